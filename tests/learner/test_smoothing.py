"""Label smoothing: the loss of the smoothed labels, in training alone."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from csbp_jax import losses
from csbp_jax.config import Chaos, Loss
from csbp_jax.learner import objective
from tests.support import small_net
from tests.support.small_net import eval_step, first_state, recipe


@pytest.mark.parametrize("name", ["rate", "tet", "mse"])
def test_smoothing_is_the_loss_on_the_formulas_labels(name):
    """For every loss; also for labels that are probabilities already, as mixup makes them."""
    plain = losses.build(Loss(name))
    logits = np.random.default_rng(0).normal(size=(8, 3, 5)).astype(np.float32)
    labels = np.arange(8, dtype=np.int32) % 5
    hot = np.eye(5, dtype=np.float32)[labels]
    mixed = np.float32(0.6) * hot + np.float32(0.4) * np.roll(hot, 1, axis=0)

    @jax.jit
    def loss_of(logits, targets, expected):
        smoothed = losses.smoothed(targets, 5, 0.3)
        return plain(logits, smoothed), plain(logits, expected), plain(logits, targets)

    cases: list[Any] = [(labels, hot), (mixed, mixed)]
    for targets, rows in cases:
        loss, expected, unsmoothed = loss_of(logits, targets, np.float32(0.7) * rows + np.float32(0.3 / 5))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert abs(expected - unsmoothed) > 1e-3
        assert losses.smoothed(targets, 5, 0.0) is targets


def test_labels_are_smoothed_in_training_and_not_in_evaluation(x64):
    without_term = dataclasses.replace(small_net.CONFIG, chaos=Chaos())
    plain = recipe(without_term)
    smoothing = recipe(dataclasses.replace(without_term, loss=Loss(smoothing=0.3)))
    state, batch = first_state(plain), small_net.batch()
    smooth = batch | {"y": losses.smoothed(batch["y"], 3, 0.3)}
    in_training = jax.jit(objective.objective, static_argnums=0)
    loss, _ = in_training(smoothing, state.params, state, batch)
    np.testing.assert_allclose(loss, in_training(plain, state.params, state, smooth)[0], rtol=1e-5)
    masked = batch | {"mask": np.ones(8, bool)}
    assert eval_step(smoothing, state, masked)["loss"] == eval_step(plain, state, masked)["loss"] != 8 * loss
