"""Encoders: rates within binomial bounds; at most one spike per pixel, earlier if it is brighter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import encode

rate = jax.jit(encode.rate, static_argnums=2)


@pytest.fixture
def images():
    """Grey values from 0 to 1, ``[B, 1, H, W, C]``, both ends included."""
    return jnp.tile(jnp.linspace(0, 1, 16).reshape(1, 1, 4, 4, 1), (3, 1, 1, 1, 1))


def test_rate_is_bernoulli_with_the_brightness(images):
    steps = 4000
    spikes = np.asarray(rate(jax.random.key(0), images, steps))
    assert spikes.shape == (3, steps, 4, 4, 1) and spikes.dtype == np.float32
    assert set(np.unique(spikes)) == {0, 1}
    p = np.asarray(images[:, 0])
    np.testing.assert_array_less(np.abs(spikes.mean(1) - p), 5 * np.sqrt(p * (1 - p) / steps) + 1e-6)
    # Independent from one step to the next.
    together = (spikes[:, 1:] * spikes[:, :-1]).mean(1)
    np.testing.assert_array_less(np.abs(together - p**2), 5 * np.sqrt(p**2 / steps) + 1e-3)
    assert not np.array_equal(spikes[0], spikes[1])
    assert not np.array_equal(spikes, rate(jax.random.key(1), images, steps))


STEPS = (1, 2, 7, 100)
# The last is white that was mixed or resized, and so rounded.
BRIGHTNESS = np.array([0, 1 / 255, 0.3, 0.5, 0.85, 254 / 255, 1, 1 + 2**-23], np.float32).reshape(1, 1, 8, 1, 1)


@pytest.fixture(scope="module")
def latencies():
    return jax.jit(lambda x: {steps: encode.latency(jax.random.key(0), x, steps) for steps in STEPS})(BRIGHTNESS)


@pytest.mark.parametrize("steps", STEPS)
def test_latency_gives_a_single_spike_at_the_stated_step(latencies, steps):
    spikes = np.asarray(latencies[steps])
    assert spikes.shape == (1, steps, 8, 1, 1) and spikes.dtype == np.float32
    np.testing.assert_array_equal(spikes.sum(1).ravel(), [0, 1, 1, 1, 1, 1, 1, 1])
    first = spikes.argmax(1).ravel()
    np.testing.assert_array_equal(first[1:], np.floor((1 - BRIGHTNESS.ravel()[1:].clip(max=1)) * steps))
