"""The chaos meter of a run: its ratios against the whole matrix, z in units of the flip, and z steered by it."""

import dataclasses
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, data
from csbp_jax.config import Chaos, ConfigError, Diverged, Loss, Optimizer
from csbp_jax.reporting import plots
from csbp_jax.reporting.terminal import Console, progress_line
from csbp_jax.runtime.preemption import Stop, Stopped
from csbp_jax.training import flip_meter
from csbp_jax.training.compiled import compile_run, resolve
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from tests.support.checkpoint_arrays import arrays

DENSE = dataclasses.replace(
    configs.load("digits"),
    epochs=2,
    batch_size=96,
    chaos=Chaos(z0=(4.0,), beta=0.5, taps=("fc1.dense",), scale=1.0, reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.1, schedule="constant"),
    model=dataclasses.replace(configs.load("digits").model, name="dense", features=(4,), time_steps=2),
)


def changed(**fields):
    """DENSE with other fields of its chaos or optimiser."""
    parts = {
        part: {k: v for k, v in fields.items() if hasattr(getattr(DENSE, part), k)} for part in ("chaos", "optimizer")
    }
    return dataclasses.replace(
        DENSE, **{part: dataclasses.replace(getattr(DENSE, part), **values) for part, values in parts.items()}
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return data.load(DENSE, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def started(parts):
    """``(config, functions, state, batch)``"""
    config = resolve(DENSE, parts)
    run = compile_run(config, parts["train"], 10)
    batch = next(data.train_batches(parts["train"], config.batch_size, 0))
    return config, run, run.init(jax.random.key(0)), batch


@pytest.mark.parametrize("part", flip_meter.PARTS)
def test_a_ratio_is_that_of_the_whole_matrix(started, part):
    config, run, state, batch = started
    flat, unravel = ravel_pytree(state.params)

    def gradient(x):
        found = run.pure_gradients(dataclasses.replace(state, params=unravel(x)), batch)
        wanted = {"task": ["task"], "chaos": ["chaos"], "both": ["task", "chaos"]}[part]
        return sum(ravel_pytree(found[name])[0] for name in wanted)

    values = np.linalg.eigvals(np.asarray(jax.jit(jax.jacfwd(gradient))(flat), np.float64))
    expected = 0.1 * values.real.max() / (2 * 1.9)
    assert flip_meter.make(run.pure_gradients, config, 10)(part, state, batch) == pytest.approx(expected, rel=2e-2)


def test_the_terms_ratio_follows_the_learning_rate_and_its_schedule(started):
    config, run, state, batch = started
    step = dataclasses.replace(config.optimizer, schedule="step", step_epochs=1, step_factor=0.1)
    ratio = flip_meter.make(run.pure_gradients, dataclasses.replace(config, optimizer=step), 10)
    early = ratio("chaos", state, batch)
    # An epoch of ten steps is over: z has halved.
    later = ratio("chaos", dataclasses.replace(state, step=jnp.int32(10)), batch)
    assert later == pytest.approx(early * 0.1 * 0.5, rel=2e-2)


def test_adam_has_no_ratio_before_its_first_step(started):
    config, _, _, batch = started
    config = dataclasses.replace(config, optimizer=Optimizer(name="adam"))
    program = compile_run(config, data.load(config, "data")["train"], 10)
    state, batch = program.init(jax.random.key(0)), program.shard_batch(batch)
    assert math.isnan(program.flip_ratio("task", state, batch))
    state, _ = program.train_step(state, batch)
    assert program.flip_ratio("task", state, batch) > 0


def test_z_in_flips_is_measured_at_the_first_step_and_steered(tmp_path):
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), flip_every=2, batch_size=320)
    text = io.StringIO()
    train(config, name="one", root=tmp_path, console=Console(file=text, width=200))
    rows = read_rows(tmp_path / "one" / "metrics.jsonl")
    flips = [row for row in rows if row["kind"] == "flip"]
    assert [row["step"] for row in flips] == list(range(1, rows[-1]["step"] + 1, 2))
    expected = [0.5 if row["step"] <= rows[-1]["step"] // 2 else 0.25 for row in flips]
    np.testing.assert_allclose([row["flip_ratio"]["chaos"] for row in flips], expected, rtol=3e-2)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    for kept, panels in ((rows, 4), ([row for row in rows if row["kind"] != "flip"], 3)):
        flips[-1]["flip_ratio"]["task"] = None  # one that could not be told is a gap
        plots.draw_run(tmp_path, kept)
        width = int.from_bytes((tmp_path / "figures" / "training.png").read_bytes()[16:20])
        assert width == 120 * 4 * panels


@pytest.mark.parametrize("ratio, shown", [(1.25, " flip 1.2!"), (0.5, " flip 0.5"), (None, "")])
def test_a_ratio_above_1_is_marked_on_the_terminal(ratio, shown):
    assert progress_line({"epoch": 1, "step": 3, "flip_ratio": ratio}, 2) == f"epoch 1/2 step 3{shown}"


class After(Stop):
    """Tells it to stop when it has been asked so many times: once a step."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    @property
    def code(self):
        self.times -= 1
        return 42 if self.times < 0 else None


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, 0])
def test_z_in_flips_is_the_same_to_the_bit_in_a_run_stopped_within_epochs(tmp_path, every):
    """Stopped between two measurements, at one, and in the second epoch."""
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), flip_every=every, log_every=1, batch_size=320)

    def run(folder, stop=None):
        return train(config, name="r", root=tmp_path / folder, console=Console(file=io.StringIO()), stop=stop)

    whole = run("whole")
    for times in (2, 1, 2):
        with pytest.raises(Stopped):
            run("stopped", After(times))
    assert {**run("stopped"), "seconds": 0} == {**whole, "seconds": 0}
    clocks = ("seconds", "examples_per_second", "waiting")
    there, here = (
        [
            {k: v for k, v in row.items() if k not in clocks}
            for row in read_rows(tmp_path / folder / "r" / "metrics.jsonl")
        ]
        for folder in ("whole", "stopped")
    )
    assert here == there and any("z" in row for row in here)
    assert any(row["kind"] == "flip" for row in here) == bool(every)
    assert arrays(tmp_path / "stopped" / "r" / "checkpoints") == arrays(tmp_path / "whole" / "r" / "checkpoints")


def test_a_run_that_diverges_has_no_ratio_and_says_that_it_diverged(tmp_path):
    config = dataclasses.replace(changed(lr=1e30), flip_every=1, loss=Loss(name="mse"))
    with pytest.raises(Diverged, match="diverged: loss or gradient was not finite"):
        train(config, name="one", root=tmp_path, console=Console(file=io.StringIO()))
    flips = [row["flip_ratio"] for row in read_rows(tmp_path / "one" / "metrics.jsonl") if row["kind"] == "flip"]
    assert flips[0]["both"] > 1 and flips[-1]["both"] is None


def test_without_steering_z_is_measured_once(tmp_path):
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), log_every=1, epochs=1, batch_size=320)
    train(config, name="one", root=tmp_path, console=Console(file=io.StringIO()))
    rows = [row for row in read_rows(tmp_path / "one" / "metrics.jsonl") if row["kind"] == "train"]
    strengths = {row["z"]["fc1.dense"] for row in rows}
    assert len(strengths) == 1 and strengths != {0.5}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"unit": "flip", "z0": (0.0,)}, "give one number above 0"),
        ({"unit": "flip", "name": "adam"}, "allowed is sgd"),
        ({"unit": "flip", "warmup_epochs": 1}, "measured at the small rate of the first step; set flip_every above 0"),
    ],
)
def test_what_cannot_be_said_in_flips_is_refused(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        train(changed(**fields), root=tmp_path, console=Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def test_a_term_without_positive_curvature_has_no_flip(started, tmp_path):
    # All of h lies beyond the cut, where the term is level.
    config = changed(unit="flip", cut=(50.0, 60.0))
    with pytest.raises(ConfigError, match="has no positive curvature"):
        train(config, root=tmp_path, console=Console(file=io.StringIO()))
