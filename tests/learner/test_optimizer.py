"""Schedules and the optimiser's stages, against their closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.config import Optimizer
from csbp_jax.learner import optimizer

BASE = Optimizer(lr=0.3, schedule="cosine")


def values(config, epochs=4, steps_per_epoch=10):
    schedule = jax.vmap(optimizer.schedule(config, epochs, steps_per_epoch))
    return np.array(schedule(jnp.arange(epochs * steps_per_epoch + 1)))


def test_cosine_runs_from_one_to_zero():
    np.testing.assert_allclose(values(BASE), (1 + np.cos(np.pi * np.arange(41) / 40)) / 2, atol=1e-6)


def test_steps_fall_every_step_epochs_epochs():
    stairs = values(dataclasses.replace(BASE, schedule="step", step_epochs=2, step_factor=0.1))
    np.testing.assert_allclose(stairs, 0.1 ** (np.arange(41) // 20), rtol=1e-5)


def test_constant():
    np.testing.assert_array_equal(values(dataclasses.replace(BASE, schedule="constant")), 1)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warmup_rises_linearly_to_the_peak_and_the_schedule_follows(schedule):
    config = dataclasses.replace(BASE, schedule=schedule, warmup_epochs=1, step_epochs=1)
    warm = values(config)
    np.testing.assert_allclose(warm[:10], np.arange(1, 11) / 10, rtol=1e-6)
    after = values(dataclasses.replace(config, warmup_epochs=0), epochs=3)
    np.testing.assert_allclose(warm[10:], after, atol=1e-6)


def test_weight_decay_is_part_of_the_gradient_for_sgd_and_decoupled_for_adamw():
    params, gradient = {"w": jnp.array(2.0)}, {"w": jnp.array(1.0)}
    sgd = optimizer.build(Optimizer(name="sgd", weight_decay=0.1, schedule="constant"), 1, 1)
    update, state = sgd.update(gradient, sgd.init(params), params)
    np.testing.assert_allclose(update["w"], -(1 + 0.1 * 2), rtol=1e-6)
    update, _ = sgd.update(gradient, state, params)  # PyTorch: the momentum buffer holds the decay too
    np.testing.assert_allclose(update["w"], -(1.2 + 0.9 * 1.2), rtol=1e-6)
    adam = Optimizer(name="adam", weight_decay=0.1, schedule="constant")
    for config, expected in ((adam, -1.0), (dataclasses.replace(adam, name="adamw"), -1.0 - 0.1 * 2)):
        tx = optimizer.build(config, 1, 1)
        update, _ = tx.update(gradient, tx.init(params), params)
        np.testing.assert_allclose(update["w"], expected, rtol=1e-4)
