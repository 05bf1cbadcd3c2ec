"""A chunk of one member on all devices trains by the programs of a run, and has its results to the byte."""

import dataclasses

import jax
import numpy as np
import pandas
import pytest

import csbp_jax
from csbp_jax.experiment import Experiment, Training, chunk, saves
from csbp_jax.training.lifts import OneMember
from csbp_jax.training.metrics_log import read_rows
from tests.experiment.test_training import ALL_DIGITS
from tests.support.small_runs import QUIET, SMALL

pytestmark = pytest.mark.usefixtures("no_figures")

BASE = dataclasses.replace(SMALL, patience=1, epochs=4, optimizer=dataclasses.replace(SMALL.optimizer, ema=0.5))


def run(folder, arms, callbacks=(), **options):
    """Runs that train one after another, each on all devices."""
    experiment = Experiment(Training(BASE, data_parallel=jax.device_count()), arms, seeds=(3,))
    return experiment.run(folder, chunk=1, callbacks=callbacks, console=QUIET(), **options)


def test_it_equals_the_run_to_the_byte(tmp_path):
    seen = []

    def watch(trainer, row):
        assert trainer.count == 1 and trainer.evaluate("validation", trainer.state)["loss"] == row["validation_loss"]
        assert all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(trainer.state.params))
        seen.append(row["epoch"])
        return {"double": 2 * row["validation_loss"]}

    table = run(tmp_path / "e", {"a": {"optimizer.lr": 0.04}}, [watch], weights=True)
    config = BASE.replace(**{"seed": 3, "optimizer.lr": 0.04})
    result = csbp_jax.train(config, root=tmp_path, name="r", console=QUIET())
    (row,) = table.frame.to_dict("records")
    compared = [name for name in row if name.startswith(("last_", "chosen_", "ema_"))]
    assert len(compared) > 5
    for name in compared:
        kind, _, measure = name.partition("_")
        assert row[name] == result[kind][measure]
    rows = [row for row in read_rows(tmp_path / "r" / "metrics.jsonl") if row["kind"] == "epoch"]
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv", **ALL_DIGITS)
    assert len(curves) == len(rows) == len(seen)
    for name in ("task_loss", "grad_norm", "validation_loss", "validation_accuracy", "ema_validation_loss"):
        np.testing.assert_array_equal(curves[name], [row[name] for row in rows])
    np.testing.assert_array_equal(curves["watch.double"], 2 * curves["validation_loss"])
    of_member, of_run = table.weights(row)["params"], csbp_jax.load(tmp_path / "r", weights_of="last")[1]["params"]
    assert jax.tree.all(jax.tree.map(np.array_equal, of_member, of_run))


def test_killed_it_goes_on_after_the_last_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(saves, "SAVE_EVERY", 0)
    run(tmp_path / "whole", {"a": {}, "b": {"chaos.z0": 0.0}})
    lifts, init = [], OneMember.init

    def counted(lift):
        lifts.append(lift)
        return init(lift)

    monkeypatch.setattr(OneMember, "init", counted)
    row = chunk.Curves.row

    def killed(curves, epoch, *arguments):
        if epoch == 3:
            raise InterruptedError
        return row(curves, epoch, *arguments)

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(chunk.Curves, "row", killed)
        run(tmp_path / "killed", {"a": {}, "b": {"chaos.z0": 0.0}})
    assert len(lifts) == 1
    run(tmp_path / "killed", {"a": {}, "b": {"chaos.z0": 0.0}})
    assert len(lifts) == 2, "only the second run begins anew"
    for name in ("runs.csv", "epochs.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
