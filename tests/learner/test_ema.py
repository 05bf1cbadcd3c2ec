"""The exponential moving average of the weights."""

import dataclasses

import jax
import numpy as np
import pytest

from csbp_jax.learner import weights_of
from tests.support import small_net
from tests.support.small_net import first_state, recipe, train_step

DECAY = 0.8
AVERAGING = recipe(dataclasses.replace(small_net.CONFIG, optimizer=dataclasses.replace(small_net.SGD, ema=DECAY)))


@pytest.mark.full
def test_averages_leave_training_unchanged(x64):
    state, plain, batch = first_state(AVERAGING), first_state(recipe()), small_net.batch()
    assert not jax.tree.leaves(plain.ema)
    for _ in range(4):
        (state, _), (plain, _) = train_step(AVERAGING, state, batch), train_step(recipe(), plain, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), weights_of(state), weights_of(plain))


def test_averages_equal_the_closed_form(x64):
    """w~[n] = d**n w[0] + (1 - d) sum_i d**(n - i) w[i], of running statistics too; a bad step changes nothing."""
    state, batch = first_state(AVERAGING), small_net.batch()
    seen = [jax.device_get(weights_of(state))]
    for _ in range(4):
        state, _ = train_step(AVERAGING, state, batch)
        seen.append(jax.device_get(weights_of(state)))
    powers = [DECAY**4, *((1 - DECAY) * DECAY ** (4 - i) for i in range(1, 5))]
    expected = jax.tree.map(lambda *leaves: sum(p * leaf for p, leaf in zip(powers, leaves, strict=True)), *seen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), state.ema, expected)
    assert np.abs(state.ema["params"]["fc1"]["dense"]["kernel"] - state.params["fc1"]["dense"]["kernel"]).max() > 1e-3
    after, metrics = train_step(AVERAGING, state, batch | {"x": np.full_like(batch["x"], np.nan)})
    assert metrics["bad_steps"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.ema, state.ema)
