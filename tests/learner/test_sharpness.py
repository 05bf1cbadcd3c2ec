"""Sharpness-aware steps against their equations: the gradient of a batch at perturbed weights."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import learner
from csbp_jax.config import Chaos, Optimizer
from csbp_jax.learner.step import loss_and_gradient
from tests.support import small_net

RHO = 0.3
DESCENT = Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant", sam_radius=RHO)
SAM = dataclasses.replace(small_net.CONFIG, optimizer=DESCENT)


def without_sam(config):
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, sam_radius=0.0))


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_step_takes_the_gradient_at_perturbed_weights(x64, accumulate):
    """With chaos term, norm and running statistics; accumulated gradients are averaged before the move."""
    config = dataclasses.replace(SAM, optimizer=dataclasses.replace(DESCENT, accumulate=accumulate))
    plain = small_net.recipe(without_sam(config))
    state, batch = small_net.first_state(plain), small_net.batch()

    of_weights = jax.jit(loss_and_gradient, static_argnums=0)

    def gradient(params):
        return jax.device_get(of_weights(plain, dataclasses.replace(state, params=params), batch)[1])

    def norm_of(tree):
        return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))

    weights, first = jax.device_get(state.params), gradient(state.params)
    norm = norm_of(first)
    of_moved = gradient(jax.tree.map(lambda w, g: w + RHO * g / norm, weights, first))
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, weights, of_moved)

    after, metrics = small_net.train_step(small_net.recipe(config), state, batch)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-9, atol=1e-12)
    (loss, outcome), _ = of_weights(plain, state, batch)
    chex.assert_trees_all_close(after.batch_stats, outcome.batch_stats, rtol=1e-12)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-12)
    np.testing.assert_allclose(metrics["grad_norm"], norm_of(of_moved), rtol=1e-9)
    assert 0.1 * norm_of(jax.tree.map(np.subtract, of_moved, first)) > 1e-3


def test_a_nan_weight_is_detected_through_the_move(x64):
    recipe = small_net.recipe(SAM)
    healthy = small_net.first_state(recipe)
    kernel = healthy.params["fc1"]["dense"]["kernel"].at[0, 0].set(jnp.nan)
    broken = healthy.replace(params={**healthy.params, "fc1": {**healthy.params["fc1"], "dense": {"kernel": kernel}}})
    after, metrics = small_net.train_step(recipe, broken, small_net.batch(1))
    assert int(metrics["bad_steps"]) == 1
    chex.assert_trees_all_equal(after.params, broken.params)


def test_where_the_gradient_is_zero_the_weights_stay(x64):
    silent = dataclasses.replace(SAM, chaos=Chaos(), model=dataclasses.replace(SAM.model, features=(2,)))
    recipe = dataclasses.replace(small_net.recipe(silent), loss=lambda logits, labels, where=None: 0 * logits.sum())
    state = small_net.first_state(small_net.recipe(silent))
    after, metrics = jax.jit(learner.train_step, static_argnums=0)(recipe, state, small_net.batch())
    assert int(metrics["bad_steps"]) == 0
    chex.assert_trees_all_equal(after.params, state.params)
