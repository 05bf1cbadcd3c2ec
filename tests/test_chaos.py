"""The chaos term against independent float64 values, and its annealing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_shape, assert_trees_all_close, assert_type

from csbp_jax import chaos

# Every sign and magnitude up to 1e4, and 0; exact in bfloat16, so that all dtypes see the same h.
H = np.concatenate([s * 2.0 ** np.arange(-10, 14) for s in (-1.25, 1.0)] + [[0.0, 9984.0, -9984.0]])
settings = pytest.mark.parametrize("target, scale", [(i0, k) for i0 in (0.65, 0.3) for k in (1.0, 2.0, 10.0)])


def numpy_term(h, target, scale):
    """Elementwise, and free of cancellation: both summands are positive."""
    u = np.asarray(h, np.float64) / scale
    return target * np.logaddexp(0, -u) + (1 - target) * np.logaddexp(0, u)


def numpy_gradient(h, target, scale):
    u = np.asarray(h, np.float64) / scale
    return (0.5 * (1 + np.tanh(u / 2)) - target) / scale


@functools.partial(jax.jit, static_argnames=("reduce", "cut"))
def value_and_gradient(h, target, scale, reduce="mean", cut=None):
    return jax.value_and_grad(chaos.term)(h, target, scale, cut=cut, reduce=reduce)


@functools.partial(jax.jit, static_argnames="cut")
def per_element(h, target, scale, cut=None):
    """Compute the values and gradients of the term of each element alone."""
    return jax.vmap(lambda h: jax.value_and_grad(chaos.term)(h, target, scale, cut=cut))(h)


@pytest.mark.parametrize("case", range(4))
def test_value_and_gradient_equal_reference(x64, reference, case):
    data = reference("chaos")
    z, scale, target, *cut = data[f"{case}/meta"]
    cut = None if np.isnan(cut[0]) else tuple(cut)
    h = data[f"{case}/h"]
    value, gradient = (z * of_term for of_term in value_and_gradient(h, target, scale, cut=cut))
    # The reference's own log(1 - sigmoid) cancels; its gradient does not.
    assert_trees_all_close(value, data[f"{case}/loss"].mean(), rtol=1e-9)
    assert_trees_all_close(gradient, data[f"{case}/dh_of_mean"], atol=1e-12 * np.abs(gradient).max(), rtol=0)


@settings
def test_float32_value_is_accurate_up_to_1e4(target, scale):
    value, _ = per_element(jnp.asarray(H, jnp.float32), target, scale)
    assert_trees_all_close(np.float64(value), numpy_term(H, target, scale), rtol=1e-6)


@settings
def test_bfloat16_gradient_is_within_one_percent_up_to_1e4(target, scale):
    h = jnp.asarray(H, jnp.bfloat16)
    value, gradient = value_and_gradient(h, target, scale, "sum")
    assert_type([value, gradient], [jnp.float32, jnp.bfloat16])
    assert_trees_all_close(np.float64(gradient), numpy_gradient(H, target, scale), rtol=0.01)


@settings
def test_minimum_is_where_the_sigmoid_equals_the_target_and_is_its_entropy(x64, target, scale):
    bottom = scale * np.log(target / (1 - target))
    value, gradient = value_and_gradient(bottom, target, scale)
    entropy = -(target * np.log(target) + (1 - target) * np.log(1 - target))
    assert_trees_all_close((value, gradient), (entropy, 0.0), atol=1e-15)
    assert min(value_and_gradient(bottom + step, target, scale)[0] for step in (-1e-3, 1e-3)) > value


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_cut_holds_the_value_and_stops_the_gradient_outside_and_at_the_ends(dtype):
    low, high = -10.0, 9.875
    h = jnp.array([-jnp.inf, -50, low, -3, 3, high, 50, jnp.inf], dtype)
    value, gradient = per_element(h, 0.65, 10.0, (low, high))
    inside = np.clip(np.asarray(h, np.float64), low, high)
    assert_trees_all_close(np.float64(value), numpy_term(inside, 0.65, 10), rtol=1e-6)
    expected = np.where((inside > low) & (inside < high), numpy_gradient(inside, 0.65, 10), 0)
    assert_trees_all_close(np.float64(gradient), expected, rtol=0.01, atol=0)


def test_nan_passes_through_the_cut():
    value, _ = value_and_gradient(np.array([0, np.nan], np.float32), 0.65, 10.0, cut=(-10, 9.9))
    assert np.isnan(value)


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (2, 5, 6, 6, 3)])
def test_sum_is_mean_times_size_and_neuron_is_mean_times_channels(shape):
    h = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    mean, total, neuron = jax.jit(lambda h: [chaos.term(h, reduce=r) for r in ("mean", "sum", "neuron")])(h)
    assert_shape([mean, total, neuron], ())
    assert_trees_all_close((total, neuron), (mean * h.size, mean * 3), rtol=1e-5)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9995, 1.0])
def test_strength_is_multiplied_by_beta_once_every_given_number_of_steps(x64, beta, every):
    steps = [*range(30), 1000, 5000]
    expected = [10.0 * beta ** (n // every) for n in steps]
    z = jax.jit(chaos.strength)(np.array(steps), 10.0, beta, every)
    assert_trees_all_close(z, np.array(expected), rtol=1e-12)


def test_float32_strength_is_off_only_by_the_rounding_of_beta():
    steps, beta = np.array([0, 1, 10, 1000, 5000]), 0.9995
    z = jax.jit(chaos.strength)(steps, 10.0, beta)
    assert_type(z, jnp.float32)
    assert_trees_all_close(np.float64(z), 10 * float(np.float32(beta)) ** steps, rtol=1e-6)


def test_traced_numbers_are_not_checked():
    """One compilation serves all values, so that a range cannot depend on them."""
    assert np.isfinite(jax.jit(chaos.term)(1.0, 1.5, 2.0))
    assert jax.jit(chaos.strength)(2, -1.0, 0.5, 1) == -0.25
