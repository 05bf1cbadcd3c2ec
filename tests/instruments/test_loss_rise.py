"""Rises of the loss around weights: of quadratic and linear losses, where both are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.evaluation.robustness.weight_errors import with_noise
from csbp_jax.instruments import loss_rise

PARAMS = {
    "kernel": np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7),
    "bias": np.ones(6),
}
CURVATURES = np.array([[1.0, 0.0, 2.0, 0.0, 0.5, 0.0]])


def quadratic(params):
    """Half the squares of each filter times a curvature of its own, with a slope that mirrored noise cancels."""
    return jnp.sum(CURVATURES * params["kernel"] ** 2) / 2 + jnp.sum(params["kernel"]) + jnp.sum(params["bias"])


def worst_rise(loss, params):
    """At a distance of 0.02."""
    return jax.jit(lambda params: loss_rise.worst_rise(loss, params, 0.02))(params)


def test_noise_raises_a_quadratic_loss_by_half_its_weighed_trace(x64):
    """E of e' H e / 2, where the variance of e is that of the size times each filter's mean square."""
    sizes = (0.01, 0.1)
    keys = jax.random.split(jax.random.key(0), 400)
    rises = jax.jit(lambda p: loss_rise.noise_rises(quadratic, with_noise, p, keys, sizes))(PARAMS)
    assert rises.shape == (2, 400)
    trace = np.sum(CURVATURES * PARAMS["kernel"] ** 2)
    for size, mean in zip(sizes, np.asarray(rises).mean(axis=1), strict=True):
        assert mean == pytest.approx(size**2 / 2 * trace, rel=0.05)
    np.testing.assert_allclose(rises[1], 100 * rises[0], rtol=1e-6)


def test_ascent_finds_the_worst_rise_of_linear_and_of_round_losses(x64):
    slopes = np.random.default_rng(1).normal(size=(40, 6))
    norms = np.linalg.norm(PARAMS["kernel"], axis=0)

    def linear(params):
        return jnp.sum(slopes * params["kernel"]) + 100 * jnp.sum(params["bias"])

    expected = 0.02 * np.sum(norms * np.linalg.norm(slopes, axis=0))
    assert worst_rise(linear, PARAMS) == pytest.approx(expected)  # the bias stays

    def round_(params):
        return jnp.sum(CURVATURES * params["kernel"] ** 2) / 2

    quadratic_part = float(round_(PARAMS))
    expected = quadratic_part * (1.02**2 - 1)
    assert worst_rise(round_, PARAMS) == pytest.approx(expected)


def test_a_rescaled_filter_before_a_norm_has_the_same_rises(x64):
    x, y = (np.random.default_rng(n).normal(size=(30, 6)) for n in (2, 3))

    def loss(params):
        h = x[:, :4] @ params["kernel"][:4]
        normalised = (h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True)
        return jnp.mean((jnp.tanh(normalised) - y) ** 2)

    keys = jax.random.split(jax.random.key(0), 2)
    scaled = PARAMS | {"kernel": PARAMS["kernel"] * np.array([[1e-3, 1, 10, 1e3, 1, 1]])}

    @jax.jit
    def rises(params):
        return loss_rise.noise_rises(loss, with_noise, params, keys, (0.1,)), loss_rise.worst_rise(loss, params, 0.02)

    for of_scaled, expected in zip(rises(scaled), rises(PARAMS), strict=True):
        np.testing.assert_allclose(of_scaled, expected, rtol=1e-6)


def test_weights_without_a_rise_have_none():
    zero = {"kernel": np.zeros((3, 2), np.float32)}
    assert worst_rise(quadratic, {"kernel": np.zeros((3, 6), np.float32), "bias": np.zeros(6, np.float32)}) == 0
    assert worst_rise(lambda p: -jnp.sum(p["kernel"] ** 2), zero) == 0
    assert worst_rise(lambda p: jnp.sum(p["kernel"]) * jnp.nan, zero) != 0  # NaN is not hidden
