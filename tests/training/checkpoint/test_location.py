"""Checkpoints elsewhere_run from their run: all that another machine needs is there; names as a bucket has them."""

import dataclasses
import importlib.util
import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.runs import restore
from csbp_jax.training import run_json
from csbp_jax.training.checkpoint import checkpoint, layout, location
from csbp_jax.training.metrics_log import read_rows
from tests.support.small_run import run

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")
MODEL = dataclasses.replace(configs.load("digits").model, name="dense", features=(8,), time_steps=2)
CHAOS = dataclasses.replace(configs.load("digits").chaos, taps=("fc1.membrane",))
SMALL = dataclasses.replace(
    configs.load("digits"), model=MODEL, chaos=CHAOS, epochs=2, batch_size=512, checkpoint_every=1, log_every=1
)
TREE = {"kernel": jnp.arange(12.0).reshape(3, 4), "mean": np.asarray(1 / 3)}


def at(step):
    return {**TREE, "kernel": TREE["kernel"] + step}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose checkpoints are named as in a bucket, which test_bucket.py has."""
    monkeypatch.setattr(layout, "is_bucket", lambda folder: True)
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def save(folder, *numbers):
    with checkpoint.open_folder(folder) as checkpoints:
        for number in numbers:
            checkpoints.save(int(number), at(number))


def restored(folder):
    reported: list[str] = []
    with checkpoint.open_folder(folder, reported.append) as checkpoints:
        tree = checkpoints.restore(TREE)
    return None if tree is None else float(tree["kernel"][0, 0]), reported


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_without_a_manifest_is_incomplete_and_removed(folder):
    save(folder, 9, 11)
    shutil.copytree(folder / "11", folder / "12")
    (folder / "12" / "manifest.json").unlink()  # a kill before the seal, or within a deletion
    (folder / "13.manifest").write_text("{")
    assert list(layout.complete(folder)) == [9, 11]
    assert restored(folder) == (11.0, [])
    assert left(folder) == ["11", "9"]


def test_a_damaged_checkpoint_loses_its_manifest_and_its_step_is_saved_again(folder):
    save(folder, 9, 11)
    (folder / "11" / "_METADATA").write_text("{}")
    value, (line,) = restored(folder)
    assert value == 9.0
    (aside,) = (folder / "11").glob("manifest.json.*")
    assert line.startswith(f"{folder}/11: _METADATA is damaged")
    assert line.endswith(f"; renamed to 11/{aside.name}") and "damaged-" in aside.name
    save(folder, 11.5)
    assert left(folder) == ["11", "11.1", "9"]
    assert restored(folder) == (11.5, []) and aside.exists()
    for path in (folder / "11.1", folder / "9"):
        (path / "_METADATA").unlink()
    with pytest.raises(
        CheckpointError, match=r"no checkpoint is intact \(11.1: _METADATA is missing; 9: _METADATA is mis"
    ):
        restored(folder)
    assert (folder / "11.1" / "manifest.json").exists() and (folder / "9" / "manifest.json").exists()


@pytest.fixture(scope="module")
def elsewhere_run(tmp_path_factory):
    """A finished run with its checkpoints elsewhere_run, and where they are."""
    root = tmp_path_factory.mktemp("apart")
    result, text = run(SMALL, root / "runs", name="r", checkpoints=str(root / "there"))
    return root, result, text


def rows(run):
    clocks = ("seconds", "examples_per_second", "waiting")
    return [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(run / "metrics.jsonl")]


def copy(elsewhere_run, tmp_path):
    return shutil.copytree(elsewhere_run[0] / "there", tmp_path / "there")


def test_another_machine_resumes_from_the_checkpoints_alone(elsewhere_run, tmp_path):
    root, result, text = elsewhere_run
    assert f"checkpoints  {root / 'there' / 'r'}" in text
    assert left(root / "there" / "r") == ["2", "4"]
    there = copy(elsewhere_run, tmp_path)
    shutil.rmtree(there / "r" / "4")
    again, reported = run(SMALL, tmp_path / "runs", name="r", checkpoints=str(there))
    assert "resumed after step 2" in reported
    assert again | {"seconds": 0} == result | {"seconds": 0}
    assert rows(tmp_path / "runs" / "r") == rows(root / "runs" / "r")
    configs = [json.loads((place / "runs" / "r" / "config.json").read_text()) for place in (root, tmp_path)]
    assert configs[0] == configs[1]


def test_an_edit_of_the_config_stays_and_resumes_with_and_without_the_option(elsewhere_run, tmp_path):
    there, mine = copy(elsewhere_run, tmp_path), shutil.copytree(elsewhere_run[0] / "runs", tmp_path / "runs")
    (mine / "r" / "checkpoints").write_text(f"{there / 'r'}\n")
    content = run_json.read_config(mine / "r")
    content["config"]["eval_batch_size"] = 90
    (mine / "r" / "config.json").write_text(json.dumps(content))
    for options in ({}, {"checkpoints": str(there)}):
        (mine / "r" / "result.json").unlink()
        result, text = run(dataclasses.replace(SMALL, eval_batch_size=90), mine, name="r", **options)
        assert "resumed after step 4" in text and result["params_sha256"] == elsewhere_run[1]["params_sha256"]
        assert run_json.read_config(mine / "r")["config"]["eval_batch_size"] == 90


def test_metrics_come_from_the_checkpoint_if_a_machine_has_fewer_rows(elsewhere_run, tmp_path):
    there, mine = copy(elsewhere_run, tmp_path), shutil.copytree(elsewhere_run[0] / "runs", tmp_path / "runs")
    (mine / "r" / "checkpoints").write_text(f"{there / 'r'}\n")
    (mine / "r" / "result.json").unlink()
    (mine / "r" / "metrics.jsonl").write_text("")
    again, _ = run(SMALL, mine, name="r")
    assert again["params_sha256"] == elsewhere_run[1]["params_sha256"]
    assert rows(mine / "r") == rows(elsewhere_run[0] / "runs" / "r")


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
    assert sorted(path.name for path in begun.iterdir()) == ["checkpoints", "config.json", "lock"]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"gs://x/y", "names gs://x/y, which is opened only if you say so: give --trust, or to train --checkpoints"),
        *((f"{a}://a/b".encode(), "is not possible; allowed are a directory and gs://") for a in ("s3", "hf", "http")),
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


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_an_address_without_gcsfs_is_one_line(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^gs://bucket/runs: needs the package gcsfs; pip install 'csbp_jax\[gcs\]'$"
    ):
        run(SMALL, tmp_path, checkpoints="gs://bucket/runs")
    assert not list(tmp_path.iterdir())
