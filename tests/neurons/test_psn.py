"""Parallel spiking neurons against products with one matrix, from each time step to each, differentiated by JAX."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal

from csbp_jax import surrogate
from csbp_jax.config import Neuron
from csbp_jax.neurons import psn
from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.neurons.psn import PSN, MaskedPSN, SlidingPSN

B, T, C = 3, 5, (2, 4)
SPIKE = surrogate.arctan(2.0)
MODULES = {
    "psn": PSN(T, spike=SPIKE),
    "masked": MaskedPSN(T, spike=SPIKE, order=2),
    "half masked": MaskedPSN(T, spike=SPIKE, order=2, masking=0.5),
    "sliding": SlidingPSN(3, spike=SPIKE),
    "longer than T": SlidingPSN(7, spike=SPIKE),
}
NAMES = pytest.mark.parametrize("name", MODULES)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.4, 1.0, shape)


def parameters(name):
    """Drawn parameters in the shapes of the module's own."""
    shapes = jax.eval_shape(MODULES[name].init, jax.random.key(0), 4)["params"]
    return {
        key: draw(*leaf.shape, seed=n).astype(jnp.result_type(float)) for n, (key, leaf) in enumerate(shapes.items())
    }


def bound(module, params) -> Any:
    """The neuron of a layer with these parameters."""
    return module.apply({"params": params}, 4)


def plain(name, x, params):
    """``(spikes, u, last u)``; the entries of a sliding PSN's matrix are its weights, by their lag."""
    weight, threshold = params["weight"], params["threshold"]
    lag = np.arange(T)[:, None] - np.arange(T)[None]
    seen = (lag >= 0) & (lag < (weight.size if weight.ndim == 1 else 2))
    if weight.ndim == 1:
        matrix = jnp.where(seen, weight[::-1][np.where(seen, lag, 0)], 0)
    else:
        matrix = weight * {"psn": np.ones((T, T)), "masked": seen, "half masked": 0.5 + 0.5 * seen}[name]
    u = jnp.einsum("ts,bs...->bt...", matrix, x)
    return SPIKE(u - threshold.reshape(1, -1, 1, 1)), u, u[:, -1]


@NAMES
def test_values_and_all_gradients_equal_those_of_one_matrix(x64, name):
    spikes_bar, u_bar = draw(B, T, *C, seed=7), draw(B, T, *C, seed=8)

    def gradients(run):
        def loss(x, params):
            outputs = run(x, params)
            return (spikes_bar * outputs[0]).sum() + (u_bar * outputs[1]).sum(), outputs

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(draw(B, T, *C), parameters(name))

    def traced(x, params):
        spikes, state, u = bound(MODULES[name], params).trace(x)
        return spikes, u, getattr(state, "membrane", state)

    expected = gradients(functools.partial(plain, name))
    assert 0.1 < expected[1][0].mean() < 0.9
    assert_trees_all_close(gradients(traced), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "recomputed", "sequences"), [("psn", T, 1), ("psn", T - 1, 2), ("sliding", 0, 1)])
def test_reverse_pass_keeps_the_input_and_u_of_long_sequences(monkeypatch, name, recomputed, sequences):
    monkeypatch.setattr(psn, "_RECOMPUTED", recomputed)
    x = draw(B, T, *C).astype(np.float32)
    vjp = functools.partial(jax.vjp, lambda x, params: bound(MODULES[name], params)(x)[0])
    _, pull = jax.eval_shape(vjp, x, parameters(name))
    assert sum(leaf.size == x.size for leaf in jax.tree.leaves(pull)) == sequences


def test_gradients_do_not_depend_on_what_is_kept(x64, monkeypatch):
    x, weights = (draw(B, T, *C, seed=seed) for seed in (0, 1))

    def value(x, params):
        spikes, _, u = bound(MODULES["psn"], params).trace(x)
        return (weights * (spikes + u**2)).sum()

    def gradients():
        gradient = jax.grad(value, (0, 1))
        tangent = (jnp.ones_like(x), jax.tree.map(jnp.ones_like, parameters("psn")))
        return jax.jit(lambda: jax.jvp(gradient, (x, parameters("psn")), tangent))()

    expected = gradients()
    monkeypatch.setattr(psn, "_RECOMPUTED", 0)
    assert_trees_all_close(gradients(), expected, rtol=1e-12, atol=1e-12)


def test_first_parameters_are_those_of_the_article():
    modules = PSN(100), MaskedPSN(100), SlidingPSN(4, threshold=0.5)
    *others, params = jax.jit(lambda: [module.init(jax.random.key(0), 4)["params"] for module in modules])()
    for first in jax.device_get(others):
        assert first["threshold"].tolist() == [1.0] * 100
        assert 0.095 < np.abs(first["weight"]).max() <= 0.1 and np.abs(first["weight"].mean()) < 0.01
    assert MaskedPSN(T).order == SlidingPSN().order == Neuron().order
    assert params["weight"].tolist() == [0.125, 0.25, 0.5, 1.0] and params["threshold"] == 0.5


@pytest.mark.parametrize("order", [1, 3, 7])
def test_a_sliding_psn_goes_on_from_its_state(x64, order):
    x = draw(B, 9, *C)

    @jax.jit
    def run_all(x):
        neuron = SlidingPSN(order, spike=SPIKE).init_with_output(jax.random.key(0), 4)[0]
        first, state = neuron(x[:, :2])
        second, state = neuron(x[:, 2:], state)
        rest = jax.tree.map(jnp.zeros_like, state)
        chunked, spikes = in_chunks(lambda state, x: neuron(x, state)[::-1], rest, x, 4)
        return neuron(x), (jnp.concatenate([first, second], 1), state), (spikes, chunked)

    expected, *others = run_all(x)
    for other in others:
        assert_trees_all_close(other, expected, rtol=1e-12, atol=1e-12)


@NAMES
def test_bfloat16_currents_have_float32_membranes_and_bfloat16_spikes(name):
    def trace(x):
        return MODULES[name].init_with_output(jax.random.key(0), 4)[0].trace(x)

    spikes, _, u = jax.eval_shape(trace, draw(B, T, *C).astype(jnp.bfloat16))
    assert (spikes.dtype, u.dtype) == (jnp.bfloat16, jnp.float32)


def test_all_products_of_a_psn_keep_the_bits_of_float32_on_any_device():
    def total(x, params):
        spikes, _, u = bound(MODULES["psn"], params).trace(x)
        return (spikes + u).sum()

    program = jax.jit(jax.grad(total, (0, 1))).lower(np.zeros((B, T, *C), np.float32), parameters("psn")).as_text()
    products = re.findall(r"stablehlo\.dot_general .*", program)
    assert products and all("precision = [HIGHEST, HIGHEST]" in product for product in products)


@NAMES
def test_it_can_fire_at_exactly_its_threshold(name):
    x = np.random.default_rng(0).integers(-2, 3, (B, T, *C)).astype(np.float32)
    params = jax.tree.map(lambda a: np.ones(a.shape, np.float32), parameters(name))

    @jax.jit
    def outputs(x):
        rules = [bound(MODULES[name].clone(at_threshold=rule), params)(x)[0] for rule in ("silent", "fire")]
        return bound(MODULES[name], params).trace(x)[2], *rules

    u, silent, fire = jax.device_get(outputs(x))
    assert (u == 1).any()
    assert_trees_all_equal((silent, fire), ((u > 1).astype(np.float32), (u >= 1).astype(np.float32)))
