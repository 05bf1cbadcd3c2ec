"""Checkpoints elsewhere than their run: all that another machine needs is there."""

import dataclasses
import json
import os
import shutil

import pytest

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.runs import restore
from csbp_jax.training import run_json
from csbp_jax.training.checkpoint import location
from tests.support.small_run import SMALL, run, timeless_rows

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")


@pytest.fixture(scope="module")
def elsewhere_run(tmp_path_factory):
    """A finished run with its checkpoints elsewhere, and where they are."""
    root = tmp_path_factory.mktemp("apart")
    result, text = run(SMALL, root / "runs", name="r", checkpoints=str(root / "there"))
    return root, result, text


def copy(elsewhere_run, tmp_path):
    return shutil.copytree(elsewhere_run[0] / "there", tmp_path / "there")


@pytest.mark.full
def test_another_machine_resumes_from_the_checkpoints_alone(elsewhere_run, tmp_path):
    root, result, text = elsewhere_run
    assert f"checkpoints  {root / 'there' / 'r'}" in text
    assert sorted(path.name for path in (root / "there" / "r").iterdir()) == ["2", "4"]
    there = copy(elsewhere_run, tmp_path)
    shutil.rmtree(there / "r" / "4")
    again, reported = run(SMALL, tmp_path / "runs", name="r", checkpoints=str(there))
    assert "resumed after step 2" in reported
    assert again | {"seconds": 0} == result | {"seconds": 0}
    logs = [timeless_rows(place / "runs" / "r" / "metrics.jsonl") for place in (root, tmp_path)]
    assert logs[0] == logs[1]
    configs = [json.loads((place / "runs" / "r" / "config.json").read_text()) for place in (root, tmp_path)]
    assert configs[0] == configs[1]


@pytest.fixture
def untested(elsewhere_run, tmp_path):
    """A copy of the runs, and of the checkpoints, from before the final test."""
    there, mine = copy(elsewhere_run, tmp_path), shutil.copytree(elsewhere_run[0] / "runs", tmp_path / "runs")
    (mine / "r" / "checkpoints").write_text(f"{there / 'r'}\n")
    (mine / "r" / "result.json").unlink()
    return mine, there


def test_an_edit_of_the_config_stays_and_resumes_with_and_without_the_option(elsewhere_run, untested):
    mine, there = untested
    content = run_json.read_config(mine / "r")
    content["config"]["eval_batch_size"] = 90
    (mine / "r" / "config.json").write_text(json.dumps(content))
    for options in ({}, {"checkpoints": str(there)}):
        result, text = run(dataclasses.replace(SMALL, eval_batch_size=90), mine, name="r", **options)
        assert "resumed after step 4" in text and result["params_sha256"] == elsewhere_run[1]["params_sha256"]
        assert run_json.read_config(mine / "r")["config"]["eval_batch_size"] == 90
        (mine / "r" / "result.json").unlink()


def test_metrics_come_from_the_checkpoint_if_a_machine_has_fewer_rows(untested):
    log = untested[0] / "r" / "metrics.jsonl"
    rows = timeless_rows(log)
    log.write_text("")
    run(SMALL, untested[0], name="r")
    assert timeless_rows(log) == rows


def test_a_run_with_its_checkpoints_elsewhere_can_be_loaded(elsewhere_run):
    _, variables, _ = restore.load(elsewhere_run[0] / "runs" / "r")
    assert variables["params"]


def test_another_config_location_or_start_is_refused_without_changes(elsewhere_run, tmp_path):
    there, mine = copy(elsewhere_run, tmp_path), tmp_path / "runs"
    other = dataclasses.replace(SMALL, seed=1)
    with pytest.raises(ConfigError, match=r"NAME: run 'r' has another config; differing are seed \(0 there, 1 here\)"):
        run(other, mine, name="r", checkpoints=str(there))
    with pytest.raises(ConfigError, match=r"--fresh: .*there/r has checkpoints; move them away, or give another NAME"):
        run(SMALL, mine, name="r", checkpoints=str(there), fresh=True)
    elsewhere = f"has its checkpoints in {elsewhere_run[0]}/there/r, not in {tmp_path}/there/r; leave the option out"
    with pytest.raises(ConfigError, match=elsewhere):
        run(SMALL, elsewhere_run[0] / "runs", name="r", checkpoints=str(there))
    shutil.rmtree(mine)
    (there / "s").mkdir()
    shutil.copytree(there / "r" / "2", there / "s" / "2")
    begun = mine / "s"
    begun.mkdir(parents=True)
    content = run_json.read_config(there / "s" / "2" / "run")
    content["config"]["seed"] = 1
    (begun / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError, match=r"2: is a checkpoint of another run; differing are seed \(0 there, 1 here"
    ):
        run(other, mine, name="s", checkpoints=str(there))
    assert sorted(path.name for path in begun.iterdir()) == ["config.json", "lock"]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"gs://x/y", "names gs://x/y, which is opened only if you say so: give --trust, or to train --checkpoints"),
        *((f"{a}://a/b".encode(), "is not possible; allowed") for a in ("s3", "hf", "http", "GS", "Gs", "a_b", "x/y")),
        (b"file:///etc", "is not possible; allowed are a directory and gs://"),
        (b"gs:///", "names gs:///"),
        (b"gs:/x/y", "'gs:/x/y' is not possible"),
        (b"\xff", r"cannot be read \('utf-8' codec .*\); write the directory or address of the checkpoints to it"),
    ],
)
def test_a_location_that_a_run_names_is_parsed_as_the_option_and_opens_no_address(tmp_path, text, message):
    (tmp_path / "checkpoints").write_bytes(text)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/checkpoints: .*{message}"):
        location.checkpoint_dir(tmp_path)


@pytest.mark.parametrize("name, root", [(b"n\xff/r", None), (b"r", b"c\xff")])
def test_a_path_that_orbax_cannot_write_is_refused_before_training(tmp_path, name, root):
    run = tmp_path / os.fsdecode(name)
    with pytest.raises(ConfigError, match=r"its whole path is not UTF-8, and no checkpoint can be written there \("):
        location.checkpoint_dir(run, root and os.fsdecode(root))
