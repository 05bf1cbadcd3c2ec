"""A run read back: the weights are those that it was tested with, and what is no run is told in one line."""

import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax import data
from csbp_jax.config import ConfigError
from csbp_jax.evaluation import predict, restore

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("which", ["last", "chosen"])
def test_the_loaded_network_is_the_one_that_was_tested(trained, which):
    apply, variables, config = csbp_jax.load(trained, which)
    test = data.load(config)["test"]
    logits, aux = jax.jit(functools.partial(apply, inspect=("conv1",)))(variables, test.x)
    assert logits.shape == (359, 3, 10) and aux.spikes["conv1"].shape == (359, 3, 8, 8, 4)
    right = np.asarray(logits).mean(1).argmax(1) == test.y
    result = json.loads((trained / "result.json").read_text())[which]
    assert right.mean() == pytest.approx(result["test_accuracy"], abs=1e-9)


def test_a_stopped_run_is_that_of_its_newest_checkpoint(trained, tmp_path):
    run = tmp_path / "stopped"
    shutil.copytree(trained, run)
    shutil.rmtree(max((run / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    (run / "result.json").unlink()
    opened = restore.restore(run)
    assert opened.epoch == 1 and opened.which == "last"
    later = csbp_jax.load(trained)[1]["params"]["conv1"]["conv"]["kernel"]
    assert np.abs(opened.variables["params"]["conv1"]["conv"]["kernel"] - later).max() > 1e-4


def test_reading_changes_nothing(trained):
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    csbp_jax.load(str(trained))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))


def test_what_is_no_run_is_told(trained, tmp_path):
    def told(match, folder=tmp_path / "other", **options):
        with pytest.raises(ConfigError, match=match) as caught:
            csbp_jax.load(folder, **options)
        assert "\n" not in str(caught.value)

    told("other: there is no such folder; name a run's, such as runs/NAME")
    (tmp_path / "other").mkdir()
    told("other: is no run's folder, it has no config.json")
    told("'best' is not possible; allowed are last, chosen", trained, epoch="best")

    about = json.loads((trained / "config.json").read_text())

    def write(**changes):
        content = about | {"config": about["config"] | changes}
        (tmp_path / "other" / "config.json").write_text(json.dumps(content))

    write()
    told("other: has no checkpoint yet; train on")
    write(grid={"seed": [0, 1]})
    told("other: is a sweep, whose members keep no weights")
    write(surprise=1)
    told("config.json: not of this version of csbp_jax .no field 'surprise'.; use the one")
    write(epochs=0)
    told("config.json: not of this version of csbp_jax .epochs: 0 is not possible")
    write(model=about["config"]["model"] | {"features": [4]})
    shutil.copytree(trained / "checkpoints", tmp_path / "other" / "checkpoints")
    told(r"checkpoints/\d+: this checkpoint cannot be read")


def test_python_and_links_of_the_docs(trained, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "using.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    names = {"x": np.zeros((2, 1, 8, 8, 1), np.float32)}
    exec(compile(block, "using.md", "exec"), names)
    assert names["logits"].shape == (2, 3, 10) and names["aux"].membranes["conv1"].shape == (2, 3, 8, 8, 4)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_importing_the_package_imports_no_jax():
    code = "import csbp_jax, sys; assert callable(csbp_jax.load); assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_folder_keeps_the_names_of_classes(trained, tmp_path):
    assert restore.restore(trained).classes == list("0123456789")
    run = shutil.copytree(trained, tmp_path / "run")
    about = json.loads((run / "config.json").read_text())
    for kept, answer in ((list("abcdefghij"), "abcdefghij"), (["a"], "0123456789"), (None, "0123456789")):
        about["classes"] = kept
        if kept is None:
            del about["classes"]
        (run / "config.json").write_text(json.dumps(about))
        np.save(tmp_path / "x.npy", np.zeros((8, 8), np.uint8))
        (told,) = predict.predict(run, [tmp_path / "x.npy"], top=10)
        assert sorted(told.labels) == sorted(answer)
