"""The monitor of a run: rows, means of good steps, divergence, and that nothing outside changes it."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import Diverged
from csbp_jax.training.monitor import Outputs, TrainingMonitor, empty_progress

PACKAGE = pathlib.Path(__file__).parents[2] / "csbp_jax"
CONFIG = dataclasses.replace(configs.load("digits"), log_every=2)


def metrics(loss, bad_steps=0):
    numbers = {"task_loss": loss, "chaos_loss": 0.0, "accuracy": 0.5, "z": {"tap": 3.0}, "rates": {"layer": 0.1}}
    return jax.tree.map(np.float32, numbers) | {"bad_steps": np.int32(bad_steps)}


def make(progress=None, step=0, seconds=0.0, of_step=None):
    """A monitor of epochs of four steps, and the rows and the lines that it writes."""
    rows, lines = list[dict](), list[str]()
    outputs = Outputs(rows.append, lambda step, text: None, lines.append)
    start, of_step = [{"kind": "start", "step": 0, "seconds": seconds}], of_step or metrics(0)
    return TrainingMonitor(CONFIG, 4, of_step, progress or empty_progress(of_step), (step, start), outputs), rows, lines


def test_it_reads_a_step_when_the_next_one_is_dispatched():
    monitor, rows, _ = make()
    for n in range(3):
        monitor(metrics(n))
        assert monitor.step == n
    assert [(row["kind"], row["step"], row["task_loss"]) for row in rows] == [("first", 1, 0.0), ("train", 2, 1.0)]
    monitor.catch_up()
    monitor.catch_up()
    assert monitor.step == 3 and monitor.steps_left == 1


def test_an_epoch_has_the_means_of_its_good_steps_across_a_resume():
    monitor, *_ = make()
    for loss, bad in ((1.0, 0), (np.nan, 1)):
        monitor(metrics(loss, bad))
    monitor.catch_up()
    resumed, rows, _ = make(monitor.progress(), monitor.step, 5.0)
    for loss in (2.0, 6.0):
        resumed(metrics(loss))
    resumed.catch_up()
    assert resumed.steps_left == 0
    resumed.end_epoch(resumed.epoch_row({"loss": 0.5}, {"loss": 0.25}))
    row = rows[-1]
    assert (row["kind"], row["step"], row["epoch"], row["task_loss"]) == ("epoch", 4, 1, 3.0)
    assert (row["validation_loss"], row["ema_validation_loss"]) == (0.5, 0.25) and row["seconds"] >= 5
    assert resumed.epochs == 1 and resumed.steps_left == 4
    assert resumed.progress()["count"] == resumed.progress()["sums"]["task_loss"] == 0


def test_a_metric_that_the_checkpoint_lacks_is_no_mean_of_a_part_of_an_epoch():
    """Two steps before a resume were done by a version with another metric."""
    monitor, *_ = make()
    for loss in (1.0, 3.0):
        monitor(metrics(loss))
    monitor.catch_up()
    progress = monitor.progress()
    progress["sums"]["of_another_version"] = np.asarray(7.0)
    resumed, rows, _ = make(progress, monitor.step, of_step=metrics(0) | {"norms": {"layer": 0.0}})
    for loss in (2.0, 2.0, 4.0):
        if resumed.step == 3:
            resumed.catch_up()
            resumed.end_epoch(resumed.epoch_row({"accuracy": 0.5, "loss": 0.5}, {}))
            assert rows[-1]["kind"] == "epoch" and (rows[-1]["task_loss"], rows[-1]["z"]) == (2.0, {"tap": 3.0})
            assert not {"norms", "of_another_version"} & rows[-1].keys()
        resumed(metrics(loss) | {"norms": {"layer": np.float32(loss)}})
    resumed.catch_up()
    assert resumed.progress()["sums"]["norms"]["layer"] == resumed.progress()["sums"]["task_loss"] == 4


def test_the_line_of_an_epoch_is_printed_on_a_terminal_too():
    monitor, _, lines = make()
    monitor(metrics(1.0))
    monitor.catch_up()
    monitor.end_epoch(monitor.epoch_row({"accuracy": 0.975, "loss": 0.1}, {}))
    assert "epoch 1/30 val 97.5% acc 50.0% task 1" in lines[0]


def test_three_bad_steps_in_a_row_are_a_divergence():
    monitor, rows, lines = make()
    for bad in (1, 0, 1, 2, 3):
        monitor(metrics(1.0, bad))
    with pytest.raises(Diverged, match="not finite at steps 3 to 5"):
        monitor.catch_up()
    assert [(row["step"], row["bad_steps"]) for row in rows if row["kind"] == "bad"] == [(1, 1), (3, 1), (4, 2), (5, 3)]
    assert lines == [f"step {n}: loss or gradient is not finite; the step is skipped" for n in (1, 3, 4, 5)]


def test_an_epoch_in_which_a_layer_never_fired_is_followed_by_a_row_and_a_line():
    monitor, rows, lines = make()
    for _ in range(2):
        monitor(metrics(1.0) | {"rates": {"layer": np.float32(0)}})
    monitor.catch_up()
    monitor.end_epoch(monitor.epoch_row({}, {}))
    assert [(row["kind"], row["step"]) for row in rows[-2:]] == [("epoch", 2), ("never_fires", 2)]
    assert rows[-1]["layers"] == ["layer"]
    assert lines[-1].startswith("epoch 1: layer never fires; try")


def test_it_reports_since_when_a_run_fails():
    monitor, *_ = make()
    since = []
    for loss, bad in ((1.0, 0), (1.0, 1), (1.0, 0), (1e4, 0), (1e4, 1), (1.0, 0), (1.0, 1), (1.0, 2)):
        monitor(metrics(loss, bad))
        monitor.catch_up()
        since.append(monitor.failing_since)
    assert since == [None, 2, None, 4, 4, None, 7, 7]
