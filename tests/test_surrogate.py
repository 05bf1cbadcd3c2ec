"""Surrogates: a strict 0/1 step forward, the documented formula backward."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_max_traces, assert_tree_all_finite, assert_trees_all_close, assert_type
from jax import lax

from csbp_jax import neurons, surrogate
from csbp_jax.surrogate import Surrogate

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def np_sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


# name -> ds/dx in numpy, independent of the package
FORMULAS = {
    "triangle": lambda x, w: np.interp(np.abs(x), [0, w], [1 / w, 0]),
    "rectangle": lambda x, w: np.where(np.abs(x) < w / 2, 1 / w, 0),
    "sigmoid": lambda x, k: k * np_sigmoid(k * x) * (1 - np_sigmoid(k * x)),
    "arctan": lambda x, a: 2 * a / (4 + (np.pi * a * x) ** 2),
    "fast_sigmoid": lambda x, k: (1 + k * np.abs(x)) ** -2.0,
    "erf": lambda x, a: a * np.pi**-0.5 * np.exp(-(a**2) * x**2),
    "piecewise_exp": lambda x, a: a / 2 / np.exp(a * np.abs(x)),
}
DEFAULTS = {
    "triangle": 1.0,
    "rectangle": 1.0,
    "sigmoid": 4.0,
    "arctan": 2.0,
    "fast_sigmoid": 25.0,
    "erf": 2.0,
    "piecewise_exp": 1.0,
}
every_surrogate = pytest.mark.parametrize("name", FORMULAS)


def make(name, *params):
    return getattr(surrogate, name)(*params)


@pytest.mark.parametrize("dtype", DTYPES)
@every_surrogate
def test_forward_is_a_strict_step_in_the_dtype_of_u(x64, name, dtype):
    tiny = jnp.finfo(dtype).tiny
    u = np.array([-np.inf, -1, -tiny, -0.0, 0.0, np.nan, tiny, 1, np.inf]).astype(jnp.dtype(dtype))
    value, differentiated = make(name)(u), jax.vjp(make(name), u)[0]
    assert_type([value, differentiated], dtype)
    assert value.tolist() == differentiated.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]


@every_surrogate
def test_derivative_is_the_documented_formula(x64, name):
    x = np.append(np.linspace(-2.013, 2, 60), 0)
    spikes = {DEFAULTS[name]: make(name), 0.6: make(name, 0.6), 3.0: make(name, 3.0)}
    derivatives = jax.jit(lambda x: {param: spike.derivative(x) for param, spike in spikes.items()})(x)
    expected = {param: FORMULAS[name](x, param) for param in spikes}
    assert_trees_all_close(derivatives, expected, rtol=1e-11, atol=1e-15)


@every_surrogate
def test_derivative_keeps_the_dtype_and_is_accurate_in_it(x64, name):
    spike, x = make(name), np.linspace(-2.013, 2, 60)
    inputs = {dtype: x.astype(jnp.dtype(dtype)) for dtype in DTYPES}
    derivatives = jax.jit(lambda inputs: jax.tree.map(spike.derivative, inputs))(inputs)
    for dtype, derivative in derivatives.items():
        assert_type(derivative, dtype)
        expected = FORMULAS[name](inputs[dtype].astype(np.float64), DEFAULTS[name])
        # The two half precisions are rounded once, at the end; the wider two at each of a few operations.
        info = jnp.finfo(dtype)
        rtol = 0.51 * float(info.eps) if info.bits == 16 else 1e-6 if dtype == "float32" else 1e-12
        assert_trees_all_close(np.asarray(derivative, np.float64), expected, rtol=rtol, atol=float(info.tiny))


@every_surrogate
def test_derivative_and_its_gradient_are_finite_far_from_zero(x64, name):
    value_and_slope = jax.vmap(jax.value_and_grad(make(name).derivative))
    x = np.array([-1e4, -100, -1, 0.1, 1, 100, 1e4])
    inputs = [x.astype(jnp.dtype(dtype)) for dtype in DTYPES]
    for value, slope in jax.jit(lambda inputs: [value_and_slope(x) for x in inputs])(inputs):
        value, slope = np.asarray(value, np.float64), np.asarray(slope, np.float64)
        assert_tree_all_finite((value, slope))
        assert_trees_all_close(value[[0, -1]], np.zeros(2), atol=1e-6)


@every_surrogate
def test_grad_through_the_spike_is_the_derivative_times_the_cotangent(name):
    spike, u = make(name), np.linspace(-1.2, 1.3, 11, dtype=np.float32)
    weight = np.arange(11, dtype=np.float32)

    @jax.jit
    def actual_and_expected(u):
        return jax.grad(lambda u: (weight * spike(u)).sum())(u), weight * spike.derivative(u)

    assert_trees_all_close(*actual_and_expected(u), rtol=1e-6)


@every_surrogate
def test_vmap_over_the_width_equals_separate_calls(name):
    params, u = np.array([0.5, 1, 2], np.float32), np.linspace(-1.2, 1.3, 11, dtype=np.float32)

    def gradient(param):
        return jax.grad(lambda u: make(name, param)(u).sum())(u)

    vectorised, *separate = map(np.asarray, jax.jit(lambda p: (jax.vmap(gradient)(p), *map(gradient, p)))(params))
    assert_trees_all_close(vectorised, np.stack(separate), rtol=1e-6)
    assert not np.allclose(vectorised[0], vectorised[2])


def test_one_compilation_serves_all_widths_and_another_formula_needs_a_second():
    @jax.jit
    @assert_max_traces(n=2)
    def gradient(spike, u):
        return jax.grad(spike)(u)

    gradients = [float(gradient(surrogate.triangle(width), 0.25)) for width in (0.5, 1.0, 2.0)]
    assert gradients == [1.0, 0.75, 0.4375]
    assert float(gradient(surrogate.rectangle(2.0), 0.25)) == 0.5


def test_the_width_gets_no_gradient_through_a_spike():
    assert float(jax.grad(lambda width: surrogate.triangle(width)(0.25))(1.0)) == 0


def lopsided(x, left, right):
    return jnp.where(x < 0, left, right)


def test_custom_formula_with_several_params_works_under_jit():
    u = jnp.array([-0.5, 0.5])

    @jax.jit
    def spikes_and_gradient(spike):
        return spike(u), jax.grad(lambda u: spike(u).sum())(u)

    spikes, gradient = spikes_and_gradient(Surrogate(lopsided, (0.3, 0.7)))
    assert_trees_all_close(spikes, jnp.array([0.0, 1.0]))
    assert_trees_all_close(gradient, jnp.array([0.3, 0.7]))


TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "jit": jax.jit,
    "remat": lambda f: jax.jit(jax.checkpoint(f)),
    "vmap": lambda f: jax.jit(lambda u: jax.vmap(f)(u[None])[0]),
    "scan": lambda f: jax.jit(lambda u: lax.scan(lambda u, _: (f(u), None), u, length=1)[0]),
}


@every_surrogate
def test_jvp_of_the_gradient_is_its_central_difference_under_every_transform(x64, name):
    spike, h = make(name), 1e-6
    u = np.array([-0.62, -0.31, 0.17, 0.43])  # away from the spike, the kink at 0 and all edges
    direction = np.array([1.0, -0.5, 2.0, 0.7])
    gradient = jax.grad(lambda u: (u**2 * spike(jnp.sin(u))).sum())

    @jax.jit
    def compiled(u):
        tangents = {name: jax.jvp(transform(gradient), (u,), (direction,))[1] for name, transform in TRANSFORMS.items()}
        return tangents, (gradient(u + h * direction) - gradient(u - h * direction)) / (2 * h)

    tangents, difference = compiled(u)
    if name == "triangle":  # no formula has a rule of its own for this
        tangents["eager"] = jax.jvp(gradient, (u,), (direction,))[1]
    assert_trees_all_close(tangents, dict.fromkeys(tangents, difference), rtol=1e-7, atol=1e-8)


def test_a_surrogate_is_shown_as_it_is_made():
    assert repr(surrogate.triangle()) == "triangle(1.0)" and repr(surrogate.fast_sigmoid(5.0)) == "fast_sigmoid(5.0)"
    assert "ArrayLike" in str(inspect.signature(neurons.lif)) and "0x" not in str(inspect.signature(neurons.lif))


def test_the_name_of_another_library_leads_to_the_function():
    module: Any = surrogate
    with pytest.raises(AttributeError, match=r"has no attribute 'atan'; did you mean arctan\?"):
        _ = module.atan
    with pytest.raises(AttributeError, match="has no attribute 'boxcar'; it has Surrogate, arctan, erf, "):
        _ = module.boxcar
