"""The meter and the log of a run: rows, means of good steps, divergence, and that nothing outside changes it."""

import dataclasses
import pathlib
import types
from typing import Any

import jax
import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import Diverged
from csbp_jax.training.epochs import Meter
from csbp_jax.training.feeds import Stream
from csbp_jax.training.health import health_of
from csbp_jax.training.log import Log
from csbp_jax.training.progress import Sums

PACKAGE = pathlib.Path(__file__).parents[2] / "csbp_jax"
CONFIG = dataclasses.replace(configs.load("digits"), log_every=2)


def metrics(loss, bad_steps=0):
    numbers = {"task_loss": loss, "chaos_loss": 0.0, "accuracy": 0.5, "z": {"tap": 3.0}, "rates": {"layer": 0.1}}
    return jax.tree.map(np.float32, numbers) | {"bad_steps": np.int32(bad_steps)}


def make(progress=None, step=0, seconds=0.0, of_step=None):
    """A meter and the log of epochs of four steps, and the rows and the lines that it writes."""
    rows, lines = list[dict](), list[str]()
    start, of_step = [{"kind": "start", "step": 0, "seconds": seconds}], of_step or metrics(0)
    progress = progress or {"epochs": np.asarray(0), **Sums(of_step).progress()}
    session: Any = types.SimpleNamespace(position=(step, int(progress["epochs"])), progress=progress)
    health, no_batches = health_of(start, CONFIG.loss_limit, 4), (dict[str, Any]() for _ in range(0))
    feed = Stream(lambda state, batch: (state, batch), no_batches, lambda batch: {})
    log = Log(CONFIG, 4, health, start, feed, write=rows.append, show=lambda step, text: None, print=lines.append)
    return Meter(session, of_step, health, log), log, rows, lines


def end_epoch(meter, log, **validation):
    """As the loop over epochs does."""
    log.end_epoch(log.row(meter.epoch, meter.step, meter.sums.means() | validation, meter.running))
    meter.sums.begin_epoch()
    meter.epoch += 1


def test_it_reads_a_step_when_the_next_one_is_dispatched():
    meter, _, rows, _ = make()
    for n in range(3):
        meter(metrics(n))
        assert meter.step == n
    assert [(row["kind"], row["step"], row["task_loss"]) for row in rows] == [("first", 1, 0.0), ("train", 2, 1.0)]
    meter.catch_up()
    meter.catch_up()
    assert meter.step == 3


def test_an_epoch_has_the_means_of_its_good_steps_across_a_resume():
    meter, *_ = make()
    for loss, bad in ((1.0, 0), (np.nan, 1)):
        meter(metrics(loss, bad))
    meter.catch_up()
    resumed, log, rows, _ = make(meter.progress(0, False), meter.step, 5.0)
    for loss in (2.0, 6.0):
        resumed(metrics(loss))
    resumed.catch_up()
    end_epoch(resumed, log, validation_loss=0.5, ema_validation_loss=0.25)
    row = rows[-1]
    assert (row["kind"], row["step"], row["epoch"], row["task_loss"]) == ("epoch", 4, 1, 3.0)
    assert (row["validation_loss"], row["ema_validation_loss"]) == (0.5, 0.25) and row["seconds"] >= 5
    stands = resumed.progress(1, False)
    assert stands["count"] == stands["sums"]["task_loss"] == 0


def test_a_metric_that_the_checkpoint_lacks_is_no_mean_of_a_part_of_an_epoch():
    """Two steps before a resume were done by a version with another metric."""
    meter, *_ = make()
    for loss in (1.0, 3.0):
        meter(metrics(loss))
    meter.catch_up()
    progress = meter.progress(0, False)
    progress["sums"]["of_another_version"] = np.asarray(7.0)
    resumed, log, rows, _ = make(progress, meter.step, of_step=metrics(0) | {"norms": {"layer": 0.0}})
    for loss in (2.0, 2.0, 4.0):
        if resumed.step == 3:
            resumed.catch_up()
            end_epoch(resumed, log, validation_accuracy=0.5, validation_loss=0.5)
            assert rows[-1]["kind"] == "epoch" and (rows[-1]["task_loss"], rows[-1]["z"]) == (2.0, {"tap": 3.0})
            assert not {"norms", "of_another_version"} & rows[-1].keys()
        resumed(metrics(loss) | {"norms": {"layer": np.float32(loss)}})
    resumed.catch_up()
    sums = resumed.progress(1, False)["sums"]
    assert sums["norms"]["layer"] == sums["task_loss"] == 4


def test_the_line_of_an_epoch_is_printed_on_a_terminal_too():
    meter, log, _, lines = make()
    meter(metrics(1.0))
    meter.catch_up()
    end_epoch(meter, log, validation_accuracy=0.975, validation_loss=0.1)
    assert "epoch 1/30 val 97.5% acc 50.0% task 1" in lines[0]


def test_three_bad_steps_in_a_row_are_a_divergence():
    meter, _log, rows, lines = make()
    for bad in (1, 0, 1, 2, 3):
        meter(metrics(1.0, bad))
    with pytest.raises(Diverged, match="not finite at steps 3 to 5"):
        meter.catch_up()
    assert [(row["step"], row["bad_steps"]) for row in rows if row["kind"] == "bad"] == [(1, 1), (3, 1), (4, 2), (5, 3)]
    assert lines == [f"step {n}: loss or gradient is not finite; the step is skipped" for n in (1, 3, 4, 5)]


def test_an_epoch_in_which_a_layer_never_fired_is_followed_by_a_row_and_a_line():
    meter, log, rows, lines = make()
    for _ in range(2):
        meter(metrics(1.0) | {"rates": {"layer": np.float32(0)}})
    meter.catch_up()
    end_epoch(meter, log)
    assert [(row["kind"], row["step"]) for row in rows[-2:]] == [("epoch", 2), ("never_fires", 2)]
    assert rows[-1]["layers"] == ["layer"]
    assert lines[-1].startswith("epoch 1: layer never fires; try")


def test_it_reports_since_when_a_run_fails():
    meter, log, *_ = make()
    since = []
    for loss, bad in ((1.0, 0), (1.0, 1), (1.0, 0), (1e4, 0), (1e4, 1), (1.0, 0), (1.0, 1), (1.0, 2)):
        meter(metrics(loss, bad))
        meter.catch_up()
        since.append(log.failing_since)
    assert since == [None, 2, None, 4, 4, None, 7, 7]
