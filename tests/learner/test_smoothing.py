"""Label smoothing: the loss of the smoothed labels, in training alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import losses
from csbp_jax.config import Chaos, Loss
from tests.support import small_net
from tests.support.small_net import eval_step, first_state, recipe, train_step


@pytest.mark.parametrize("name", ["rate", "tet", "mse"])
def test_smoothing_is_the_loss_on_the_formulas_labels(name):
    """For every loss; also for labels that are probabilities already, as mixup makes them."""
    plain = jax.jit(losses.build(Loss(name)))
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3, 5)), jnp.float32)
    labels = jnp.arange(8) % 5
    hot = np.eye(5)[labels]
    mixed = 0.6 * hot + 0.4 * np.roll(hot, 1, axis=0)
    for targets, rows in ((labels, hot), (jnp.asarray(mixed, jnp.float32), mixed)):
        loss = plain(logits, losses.smoothed(targets, 5, 0.3))
        expected = plain(logits, jnp.asarray(0.7 * rows + 0.3 / 5, jnp.float32))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert abs(expected - plain(logits, targets)) > 1e-3
        assert losses.smoothed(targets, 5, 0.0) is targets


def test_labels_are_smoothed_in_training_and_not_in_evaluation(x64):
    without_term = dataclasses.replace(small_net.CONFIG, chaos=Chaos())
    plain = recipe(without_term)
    smoothing = recipe(dataclasses.replace(without_term, loss=Loss(smoothing=0.3)))
    state, batch = first_state(plain), small_net.batch()
    smooth = batch | {"y": losses.smoothed(batch["y"], 3, 0.3)}
    loss = train_step(smoothing, state, batch)[1]["task_loss"]
    np.testing.assert_allclose(loss, train_step(plain, state, smooth)[1]["task_loss"], rtol=1e-5)
    masked = batch | {"mask": jnp.ones(8, bool)}
    assert eval_step(smoothing, state, masked)["loss"] == eval_step(plain, state, masked)["loss"] != 8 * loss
