"""Signs of a failed training: a task loss far above its start, layers that never or always fire."""

import dataclasses
import io

import numpy as np
import pytest

from csbp_jax.config import Diverged, replaced
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import health, progress
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from tests.support import stops
from tests.training.test_loop import SMALL

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")


def watched(losses, factor=1000.0, rows=(), start=0, steps_per_epoch=1000):
    """The rows and lines of a run with these task losses; NaN stands for a skipped step."""
    of_run = health.health_of(rows, factor, steps_per_epoch)
    watch, written, lines = health.LossWatch(factor, of_run, rows), [], []
    for step, loss in enumerate(losses, start=start + 1):
        if not np.isnan(loss):
            of_run.update(step, loss, 0)
            for row, line in watch.rows(step, loss, 0, of_run):
                written.append(row)
                lines += [line] if line else []
    return written, lines


UP_TO_IT = [2.0, *[2000.0] * 200]
ABOVE_IT_FOR_99_STEPS = [2.0, *([2001.0] * 99 + [1.0]) * 3]


@pytest.mark.parametrize("good, diverged, message, options", [
    (UP_TO_IT, [2.0, *[2001.0] * 100], r"above 2e\+03 at steps 2 to 101; it began at 2 \(loss_limit 1000\)", {}),
    (ABOVE_IT_FOR_99_STEPS, [2.0, 1.0, *[2001.0] * 100], "at steps 3 to 102", {}),
    ([2.0, *[20.0] * 200], [2.0, 1.0, *[21.0] * 100], "above 20 at steps 3 to 102", {"factor": 10.0}),
    # Three epochs suffice where they have fewer steps.
    ([2.0, *[2001.0] * 29, 1.0], [2.0, *[2001.0] * 30], "at steps 2 to 31", {"steps_per_epoch": 10}),
    # A loss that began below 1 is measured from 1.
    *(([first, *[999.0] * 200], [first, *[1001.0] * 100], r"above 1e\+03", {}) for first in (1e-6, 0.0, -5.0)),
])  # fmt: skip
def test_a_loss_above_its_limit_for_100_steps_in_a_row_is_a_divergence(good, diverged, message, options):
    watched(good, **options)
    with pytest.raises(Diverged, match=message):
        watched(diverged, **options)


def test_no_limit():
    assert watched([2.0, *[1e30] * 300], factor=0.0) == ([{"kind": "first", "step": 1, "task_loss": 2.0}], [])


def test_the_first_time_above_the_limit_is_printed_and_each_crossing_is_a_row():
    rows, lines = watched([np.nan, 2.0, 1.0, 5000.0, np.nan, 6000.0, 1.0, 7000.0])
    crossings = [("first", 2), ("loss_high", 4), ("loss_normal", 7), ("loss_high", 8)]
    assert [(row["kind"], row["step"]) for row in rows] == crossings
    (line,) = lines
    assert line.startswith("step 4: the task loss is 5e+03, above 2e+03; it began at 2. The run ends if this lasts 100")


def test_a_resume_goes_on_counting_from_the_rows():
    losses = [2.0, 1.0, *[2001.0] * 98]
    rows, _ = watched(losses)
    with pytest.raises(Diverged, match=r"above 2e\+03 at steps 3 to 102; it began at 2 "):
        watched([2001.0] * 2, rows=rows, start=len(losses))
    _, lines = watched([1.0, 2001.0], rows=rows, start=len(losses))
    assert not lines
    rows, _ = watched([2.0, 2001.0, 1.0])
    watched([2001.0] * 99, rows=rows, start=3)


def test_a_layer_of_integer_neurons_always_fires_where_all_have_all_their_spikes():
    ((row, _),) = health.LayerWatch([], most=4).rows(1, {"conv1": 4.0, "conv2": 1.0})
    assert row == {"kind": "always_fires", "epoch": 1, "layers": ["conv1"]}


def test_layers_are_named_once():
    layers = health.LayerWatch([])
    rates = {"conv1": 0.0, "conv2": 0.5, "conv3": 1.0, "fc1": 0.0}
    (never, line), (always, other) = layers.rows(3, rates)
    assert never == {"kind": "never_fires", "epoch": 3, "layers": ["conv1", "fc1"]} and always["layers"] == ["conv3"]
    assert line.startswith("epoch 3: conv1, fc1 never fire; try a lower model.neuron.threshold")
    assert other.startswith("epoch 3: conv3 always fires; try a smaller optimizer.lr")
    assert not list(layers.rows(4, rates)) and not list(health.LayerWatch([never, always]).rows(4, rates))
    ((row, _),) = layers.rows(5, rates | {"conv2": 0.0})
    assert row["layers"] == ["conv2"]


def quiet_run(config, root, **options):
    text = io.StringIO()
    train(config, name="r", root=root, console=Console(file=text, width=300), **options)
    return text.getvalue().splitlines(), read_rows(root / "r" / "metrics.jsonl")


@pytest.mark.full
def test_a_run_whose_loss_explodes_ends_also_where_it_was_stopped_between(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HIGH_STEPS_STOP", 3)
    wild = replaced(SMALL, "optimizer.lr", 1e20)
    message = r"diverged: the task loss was above .* at steps 2 to 4; .*; no checkpoint yet\. Try a smaller optimizer"
    with pytest.raises(Diverged, match=message) as uninterrupted:
        quiet_run(wild, tmp_path / "a")
    with pytest.raises(Stopped):
        quiet_run(wild, tmp_path / "b", stop=stops.After(5))
    stopped = read_rows(tmp_path / "b" / "r" / "metrics.jsonl")
    assert stopped[-1]["step"] == 3
    assert list(layout.complete(tmp_path / "b" / "r" / "checkpoints")) == [3]
    with pytest.raises(Diverged) as resumed:
        quiet_run(wild, tmp_path / "b")
    assert str(resumed.value) == str(uninterrupted.value)  # the checkpoint is not a good one
    quiet_run(replaced(wild, "loss_limit", 0.0), tmp_path / "c")


@pytest.mark.slow
def test_layers_of_a_net_with_a_huge_threshold_are_named_once_also_across_a_resume(tmp_path):
    neuron = dataclasses.replace(SMALL.model.neuron, threshold=1e6)
    config = replaced(SMALL, "model.neuron", neuron)
    lines, rows = quiet_run(config, tmp_path / "a")
    named = [line for line in lines if "never" in line]
    assert named == [line for line in lines if line.startswith("epoch 1: conv1, conv2 never fire; try a lower model.")]
    assert [row["layers"] for row in rows if row["kind"] == "never_fires"] == [["conv1", "conv2"]] and len(named) == 1
    with pytest.raises(Stopped):
        quiet_run(config, tmp_path / "b", stop=stops.After(8))
    lines, rows = quiet_run(config, tmp_path / "b")
    assert not [line for line in lines if "never" in line]
    assert [row["epoch"] for row in rows if row["kind"] == "never_fires"] == [1]
