"""Runs that an earlier version stored, which had options that this version no longer has (tests/data/earlier)."""

import pathlib
import re
import shutil

import pytest

from csbp_jax import configs
from csbp_jax.config import Config, flatten, from_json, run_name, to_json
from csbp_jax.config.removed import ADDED
from csbp_jax.runs import restore
from csbp_jax.runtime import files
from csbp_jax.training import run_json
from tests.support.small_run import run, timeless_rows

EARLIER = pathlib.Path(__file__).parent.parent / "data" / "earlier"
STOPPED = "digits-cd176e97"
"""Of the config below, stopped after the first of two epochs; named by that version."""
CONFIG = configs.load("digits").replace(
    **{"model.name": "dense", "model.features": (2,), "model.time_steps": 2, "chaos.taps": ("fc1.membrane",)},
    **{"epochs": 2, "batch_size": 640, "eval_batch_size": 360, "checkpoint_every": 1, "log_every": 1},
)
REFUSED = {
    "erasing": r"data\.erasing_probability: 0\.5 is not possible, as this version has no such option",
    "membrane": r"loss\.membrane: 0\.5 is not possible, as this version has no such option",
}

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")


def test_a_run_with_removed_options_at_their_defaults_is_the_same_run():
    stored = files.read_json(EARLIER / STOPPED / "config.json")["config"]
    assert {"data.erasing_probability", "loss.membrane"} <= flatten(stored).keys()
    assert from_json(stored) == CONFIG and run_name(CONFIG) == STOPPED
    content = run_json.read_config(EARLIER / STOPPED)
    assert run_json.identity(content) == run_json.identity({"config": to_json(CONFIG), "data": content["data"]})


def test_the_name_of_a_run_depends_on_an_added_option_at_another_value_alone():
    padded = CONFIG.replace(**{"data.augment": ("crop",), "data.crop_padding": 4})
    assert run_name(padded.replace("data.crop_padding", 2)) != run_name(padded)
    for name, default in ADDED.items():
        assert flatten(Config())[name] == default


def test_such_a_run_is_loaded_and_resumed(tmp_path):
    folder = shutil.copytree(EARLIER / STOPPED, tmp_path / STOPPED)
    assert restore.load(folder)[2] == CONFIG
    before = timeless_rows(folder / "metrics.jsonl")
    result, text = run(CONFIG, tmp_path)
    assert "resumed after step 1" in text and "other values" not in text and result["last"]["epoch"] == 2
    run(CONFIG, tmp_path, name="whole")
    rows, whole = (timeless_rows(tmp_path / name / "metrics.jsonl") for name in (STOPPED, "whole"))
    assert rows[: len(before)] == before
    losses, expected = ([row["task_loss"] for row in of if row["kind"] == "epoch"] for of in (rows, whole))
    assert losses == pytest.approx(expected, rel=1e-4) and len(losses) == 2


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_with_a_removed_option_at_another_value_is_refused_in_one_line(name, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("runs", "r").mkdir(parents=True)
    shutil.copy(EARLIER / f"{name}.json", "runs/r/config.json")
    line = rf"^csbp_jax: runs/r/config\.json: from another version of csbp_jax \({REFUSED[name]}.*\); use the version"
    assert re.search(line, refused("evaluate", "runs/r"))
    assert re.search(line, refused("train", "digits", "--name", "r"))


def test_a_run_of_a_removed_optimiser_is_refused_in_one_line(tmp_path, refused):
    shutil.copy(EARLIER / "averages.json", tmp_path / "config.json")
    line = r"config\.json: from another version of csbp_jax \(optimizer\.name: 'schedule_free' is not possible; "
    assert re.search(line, refused("evaluate", tmp_path))
