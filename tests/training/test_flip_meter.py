"""The flip meter of a run: its ratios against the full matrix."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, data
from csbp_jax.config import Chaos, Optimizer
from csbp_jax.training import flip_meter
from csbp_jax.training.build import resolve
from tests.support import shared_programs
from tests.support.rows import full_but

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

DENSE = dataclasses.replace(
    configs.load("digits"),
    epochs=2,
    batch_size=320,
    chaos=Chaos(z0=(4.0,), beta=0.5, taps=("fc1.dense",), scale=1.0, reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.1, schedule="constant"),
    model=dataclasses.replace(configs.load("digits").model, name="dense", features=(4,), time_steps=2),
)


def ratio_of(run):
    return flip_meter.make(run.pure_gradients, run.config, run.steps_per_epoch)


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


@pytest.mark.parametrize("part", full_but(["both"], flip_meter.PARTS))
def test_a_ratio_is_that_of_the_full_matrix(started, jacobians, part):
    run, state, batch = started
    matrix = jacobians["task"] + jacobians["chaos"] if part == "both" else jacobians[part]
    expected = 0.1 * np.linalg.eigvals(matrix).real.max() / (2 * 1.9)
    assert ratio_of(run)(part, state, batch) == pytest.approx(expected, rel=2e-2)


@pytest.mark.full
def test_the_terms_ratio_follows_the_learning_rate_and_its_schedule(started):
    run, state, batch = started
    step = dataclasses.replace(run.config.optimizer, schedule="step", step_epochs=1, step_factor=0.1)
    ratio = flip_meter.make(run.pure_gradients, dataclasses.replace(run.config, optimizer=step), 3)
    early = ratio("chaos", state, batch)
    # An epoch of three steps is over: z has halved.
    counted = optax.tree.set(state.opt_state, count=jnp.int32(3))
    later = ratio("chaos", dataclasses.replace(state, step=jnp.int32(3), opt_state=counted), batch)
    assert later == pytest.approx(early * 0.1 * 0.5, rel=2e-2)


@pytest.mark.full
def test_adam_has_no_ratio_before_its_first_step(started):
    adam = dataclasses.replace(started[0].config, optimizer=Optimizer(name="adam"))
    run = shared_programs.compile_run(adam, started[0].source, 3)
    state, batch = run.init(jax.random.key(0)), started[2]
    assert math.isnan(ratio_of(run)("task", state, batch))
    finite, refused = ({"z0": {"fc1.dense": jnp.float32(z)}} for z in (4.0, np.nan))
    state, metrics = run.train_step(dataclasses.replace(state, hparams=state.hparams | refused), batch)
    state = dataclasses.replace(state, hparams=state.hparams | finite)
    assert int(state.step) == int(metrics["bad_steps"]) == 1 and math.isnan(ratio_of(run)("task", state, batch))
    state, _ = run.train_step(state, batch)
    assert ratio_of(run)("task", state, batch) > 0
