"""What reads files of others refuses a pipe, a device and a file that is too large, before it opens them."""

import os
import signal
from typing import Any

import pytest

from csbp_jax.config import ConfigError
from csbp_jax.data.events import cochlea, readers, spoken_digits
from csbp_jax.data.events.readers import read_file
from csbp_jax.data.images import tfrecord
from csbp_jax.data.images.decode import picture_shape
from csbp_jax.evaluation import html_report
from csbp_jax.experiment.store import Store
from csbp_jax.runs import RunTable, published
from csbp_jax.runtime import files
from csbp_jax.training import metrics_log, plugin_file, run_json
from csbp_jax.training.checkpoint import location
from csbp_jax.weights import nir_file, torch_file, user_table

OWN = {"parts": ["model"], "file": "a.py", "sha256": "0"}
SMALL, LARGE = files.SMALL, files.LARGE
READERS: dict[str, tuple[Any, int]] = {
    "config.json": (run_json.read_config, SMALL),
    "result.json": (run_json.read_result, SMALL),
    "metrics.jsonl": (lambda folder: metrics_log.read_rows(folder / "metrics.jsonl"), LARGE),
    "robustness.json": (lambda folder: files.read_json(folder / "robustness.json"), SMALL),
    "experiment.py": (lambda folder: plugin_file.reload(folder, OWN, True, None), SMALL),
    "blocks/0-0.json": (lambda folder: Store(folder, print), LARGE),
    "runs.csv": (RunTable.read, LARGE),
    "table.json": (lambda folder: user_table.read(folder / "table.json"), SMALL),
    "recordings/0_a_0.wav": (lambda folder: spoken_digits.checksum(folder / "recordings"), LARGE),
    "0_a_0.wav": (lambda folder: cochlea.read_wav(folder / "0_a_0.wav"), LARGE),
    **{f"a{suffix}": (lambda folder, s=suffix: read_file(folder / f"a{s}"), LARGE) for suffix in readers.SUFFIXES},
    "x.png": (lambda folder: picture_shape(folder / "x.png"), LARGE),
    "a.tfrecord": (lambda folder: list(tfrecord.read(folder / "a.tfrecord")), LARGE),
    "weights.pt": (lambda folder: torch_file.read(folder / "weights.pt"), LARGE),
    "graph.nir": (lambda folder: nir_file.load(folder / "graph.nir"), LARGE),
    "model.safetensors": (lambda folder: published.read_variables(folder, {}), LARGE),
}
# A figure that is no file is left out, and checkpoints that are none are none.
ONLY_TOO_LARGE: dict[str, tuple[Any, int]] = {
    "figures/x.png": (lambda folder: list(html_report._figures(folder)), SMALL),
    "checkpoints": (location.checkpoint_dir, SMALL),
}


@pytest.fixture(autouse=True)
def no_endless_wait():
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_or_a_device_is_not_opened(name, make, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"^{tmp_path / name}: is not a regular file, but a folder, pipe or device"):
        READERS[name][0](tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    if name in ("metrics.jsonl", "blocks/0-0.json", "recordings/0_a_0.wav", "runs.csv"):  # which need not be there
        return
    with pytest.raises(ConfigError, match=rf"^{tmp_path / name}: there is no such file$"):
        READERS[name][0](tmp_path)


@pytest.mark.parametrize("read", [torch_file.read, user_table.read, nir_file.load, RunTable.read, files.read_bytes])
@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_what_no_file_can_be_called_is_refused_in_one_line(read, name):
    reason = r"null (byte|character)|surrogates not allowed"
    with pytest.raises(ConfigError, match=rf"^{name}: is no name of a file \(.*({reason})"):
        read(name)


@pytest.mark.parametrize("name", [*READERS, *ONLY_TOO_LARGE])
def test_a_file_that_is_too_large_is_not_read(name, tmp_path):
    read, most = (READERS | ONLY_TOO_LARGE)[name]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, most + 1)  # sparse
    with pytest.raises(ConfigError, match=rf"^{tmp_path / name}: has {most + 1:,} bytes; allowed are {most:,}; "):
        read(tmp_path)
