"""The gradients of the two losses, and the measures."""

import chex
import jax
import numpy as np
import optax
import pytest

from csbp_jax import learner
from csbp_jax.config import Chaos, Loss, replaced
from csbp_jax.learner import accumulation, measures, objective
from tests.support.small_net import CONFIG, batch, first_state, gradients, recipe


def test_gradient_norms_are_those_of_the_two_losses(x64):
    state = first_state(recipe())
    norms = jax.jit(learner.gradient_norms)(gradients(recipe(), state, batch()))

    @jax.jit
    def separate(params):
        def loss(params, name):
            return objective.objective(recipe(), params, state, batch())[1].metrics[name]

        return {part: optax.tree.norm(jax.grad(loss)(params, f"{part}_loss")) for part in ("task", "chaos")}

    for part, norm in separate(state.params).items():
        np.testing.assert_allclose(norms[part], norm, rtol=1e-12)
        assert norms[part] > 0


def test_without_a_term_the_task_has_the_whole_gradient(x64):
    plain = recipe(replaced(CONFIG, "chaos", Chaos(z0=(0.0,), taps=())))
    state = first_state(plain)
    both = gradients(plain, state, batch())
    _, whole = jax.jit(objective.value_and_grad, static_argnums=0)(plain, state, batch())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), both["task"], whole)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(both["task"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(both["chaos"]))
    chex.assert_trees_all_equal_shapes(both["chaos"], state.params)


def test_what_microbatches_give_is_averaged(x64):
    def mean_of(state, rows):
        return rows["x"].mean(), state.batch_stats

    mean, _ = accumulation.accumulate_gradients(mean_of, first_state(recipe()), batch(), 4)
    np.testing.assert_allclose(mean, batch()["x"].mean(), rtol=1e-5)


sums_of = jax.jit(measures.sums, static_argnums=0)
measures_of = jax.jit(measures.of_batch, static_argnums=0)


@pytest.mark.parametrize(
    "mean, deviation", [(0.0, 1.0), (30.0, 1.0), (-1e3, 1.0), (1e6, 1.0), (0.1, 0.0), (1e6 + 1 / 16, 0.0)]
)
def test_r2_in_float32_is_right_far_from_0_and_0_where_all_values_are_equal(mean, deviation):
    rng, config = np.random.default_rng(9), replaced(CONFIG, "loss", Loss(task="value", name="mse"))
    # The difference between the means of values is not explained by anything.
    y = (mean * np.arange(1, 6) + deviation * rng.normal(size=(6, 7, 5))).astype(np.float32)
    o = (y + rng.normal(size=y.shape) / 2).astype(np.float32)
    where = np.arange(6 * 7).reshape(6, 7) < 40
    parts = [sums_of(config, o[:, None], y, where=where) for o, y, where in zip(o, y, where, strict=True)]
    of_first = measures_of(config, o[0, :, None], y[0])["r2"]

    def r2(o, y):
        o, y = o.astype(float), y.astype(float)
        return 1 - np.sum((o - y) ** 2) / np.sum((y - y.mean(0)) ** 2) if deviation else 0

    of_batches = {name: np.array([part[name] for part in parts], float) for name in parts[0]}
    np.testing.assert_allclose(measures.measures(config, of_batches)["r2"], r2(o[where], y[where]), rtol=1e-5)
    np.testing.assert_allclose(of_first, r2(o[0], y[0]), rtol=1e-5)
