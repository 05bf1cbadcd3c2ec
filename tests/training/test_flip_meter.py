"""The flip meter of a run: its ratios against the full matrix, z in units of the flip, and z that follows its ratio."""

import dataclasses
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, data
from csbp_jax.config import Chaos, ConfigError, Diverged, Loss, Optimizer
from csbp_jax.reporting import plots
from csbp_jax.reporting.terminal import Console, progress_line
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import flip_meter
from csbp_jax.training.compiled import resolve
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from tests.support import shared_programs
from tests.support.checkpoint_arrays import arrays
from tests.support.stops import After

DENSE = dataclasses.replace(
    configs.load("digits"),
    epochs=2,
    batch_size=320,
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


@pytest.fixture(scope="module", autouse=True)
def one_compilation_per_config():
    with shared_programs.patched():
        yield


@pytest.fixture(scope="module")
def started():
    """``(run, state, batch)``, three steps per epoch."""
    splits = data.load(DENSE)
    run = shared_programs.compile_run(resolve(DENSE, splits), splits["train"], 3)
    return run, run.init(jax.random.key(0)), run.shard_batch(next(run.batches(0)))


@pytest.fixture(scope="module")
def jacobians(started):
    """The full Jacobians of the two gradients: ``{"task": J, "chaos": J}``."""
    run, state, batch = started
    flat, unravel = ravel_pytree(state.params)

    def gradients(x):
        both = run.pure_gradients(dataclasses.replace(state, params=unravel(x)), batch)
        return {name: ravel_pytree(gradient)[0] for name, gradient in both.items()}

    return jax.tree.map(lambda matrix: np.asarray(matrix, np.float64), jax.jit(jax.jacfwd(gradients))(flat))


@pytest.mark.parametrize("part", flip_meter.PARTS)
def test_a_ratio_is_that_of_the_full_matrix(started, jacobians, part):
    run, state, batch = started
    matrix = jacobians["task"] + jacobians["chaos"] if part == "both" else jacobians[part]
    expected = 0.1 * np.linalg.eigvals(matrix).real.max() / (2 * 1.9)
    assert run.flip_ratio(part, state, batch) == pytest.approx(expected, rel=2e-2)


def test_the_terms_ratio_follows_the_learning_rate_and_its_schedule(started):
    run, state, batch = started
    step = dataclasses.replace(run.config.optimizer, schedule="step", step_epochs=1, step_factor=0.1)
    ratio = flip_meter.make(run.pure_gradients, dataclasses.replace(run.config, optimizer=step), 3)
    early = ratio("chaos", state, batch)
    # An epoch of three steps is over: z has halved.
    counted = optax.tree.set(state.opt_state, count=jnp.int32(3))
    later = ratio("chaos", dataclasses.replace(state, step=jnp.int32(3), opt_state=counted), batch)
    assert later == pytest.approx(early * 0.1 * 0.5, rel=2e-2)


def test_adam_has_no_ratio_before_its_first_step(started):
    adam = dataclasses.replace(started[0].config, optimizer=Optimizer(name="adam"))
    run = shared_programs.compile_run(adam, started[0].source, 3)
    state, batch = run.init(jax.random.key(0)), started[2]
    assert math.isnan(run.flip_ratio("task", state, batch))
    finite, refused = ({"z0": {"fc1.dense": jnp.float32(z)}} for z in (4.0, np.nan))
    state, metrics = run.train_step(dataclasses.replace(state, hparams=state.hparams | refused), batch)
    state = dataclasses.replace(state, hparams=state.hparams | finite)
    assert int(state.step) == int(metrics["bad_steps"]) == 1 and math.isnan(run.flip_ratio("task", state, batch))
    state, _ = run.train_step(state, batch)
    assert run.flip_ratio("task", state, batch) > 0


def test_z_in_flips_is_measured_at_the_first_step_and_follows_the_ratio(tmp_path, monkeypatch):
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), flip_every=2)
    text = io.StringIO()
    train(config, name="one", root=tmp_path, console=Console(file=text, width=200))
    rows = read_rows(tmp_path / "one" / "metrics.jsonl")
    flips = [row for row in rows if row["kind"] == "flip"]
    assert [row["step"] for row in flips] == list(range(1, rows[-1]["step"] + 1, 2))
    expected = [0.5 if row["step"] <= rows[-1]["step"] // 2 else 0.25 for row in flips]
    np.testing.assert_allclose([row["flip_ratio"]["chaos"] for row in flips], expected, rtol=3e-2)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    flips[-1]["flip_ratio"]["task"] = None  # a ratio that is not defined is a gap
    plots.draw_run(tmp_path, rows)
    assert int.from_bytes((tmp_path / "figures" / "training.png").read_bytes()[16:20]) == 120 * 4 * 4
    widths: dict[str, float] = {}
    monkeypatch.setattr(
        plots, "save", lambda figure, file, dpi: widths.update({file.name: dpi * figure.get_figwidth()})
    )
    plots.draw_run(tmp_path, [row for row in rows if row["kind"] != "flip"])
    assert widths["training.png"] == 120 * 4 * 3


@pytest.mark.parametrize("ratio, shown", [(1.25, " flip 1.2!"), (0.5, " flip 0.5"), (None, "")])
def test_a_ratio_above_1_is_marked_on_the_terminal(ratio, shown):
    assert progress_line({"epoch": 1, "step": 3, "flip_ratio": ratio}, 2) == f"epoch 1/2 step 3{shown}"


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, 0])
def test_z_in_flips_is_bit_identical_in_a_run_stopped_within_epochs(tmp_path, every):
    """Stopped between two measurements, at one, and in the second epoch."""
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), flip_every=every, log_every=1)

    def run(folder, stop=None):
        return train(config, name="r", root=tmp_path / folder, console=Console(file=io.StringIO()), stop=stop)

    expected = run("uninterrupted")
    for times in (2, 1, 2):
        with pytest.raises(Stopped):
            run("stopped", After(times))
    assert {**run("stopped"), "seconds": 0} == {**expected, "seconds": 0}
    clocks = ("seconds", "examples_per_second", "waiting")
    expected_rows, rows = (
        [
            {k: v for k, v in row.items() if k not in clocks}
            for row in read_rows(tmp_path / folder / "r" / "metrics.jsonl")
        ]
        for folder in ("uninterrupted", "stopped")
    )
    assert rows == expected_rows and any("z" in row for row in rows)
    assert any(row["kind"] == "flip" for row in rows) == bool(every)
    assert arrays(tmp_path / "stopped" / "r" / "checkpoints") == arrays(
        tmp_path / "uninterrupted" / "r" / "checkpoints"
    )


def test_a_diverging_run_has_no_ratio_and_reports_that_it_diverged(tmp_path):
    config = dataclasses.replace(changed(lr=1e30, z0=(0.0,)), flip_every=1, loss=Loss(name="mse"))
    with pytest.raises(Diverged, match="diverged: loss or gradient was not finite"):
        train(config, name="one", root=tmp_path, console=Console(file=io.StringIO()))
    flips = [row["flip_ratio"] for row in read_rows(tmp_path / "one" / "metrics.jsonl") if row["kind"] == "flip"]
    assert flips[0]["both"] > 1 and flips[-1]["both"] is None


def test_without_flip_every_z_is_measured_once(tmp_path):
    config = dataclasses.replace(changed(unit="flip", z0=(0.5,)), log_every=1, epochs=1)
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
def test_options_without_a_flip_are_refused(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        train(changed(**fields), root=tmp_path, console=Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def test_a_term_without_positive_curvature_has_no_flip(tmp_path):
    # All of h lies beyond the cut, where the term is level.
    config = changed(unit="flip", cut=(50.0, 60.0))
    with pytest.raises(ConfigError, match="has no positive curvature"):
        train(config, root=tmp_path, console=Console(file=io.StringIO()))
