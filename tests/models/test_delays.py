"""Learned delays: values and gradients against loops in float64, and exact shifts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models
from csbp_jax.config import Model
from csbp_jax.evaluation.synaptic_ops import count_synops
from csbp_jax.models import basic, delays
from csbp_jax.runtime.hardware import float64

B, T, INPUTS, FEATURES, LONGEST = 3, 9, 4, 5, 6


def reference(x, weights, theta):
    """The equation of the module as loops over connections; before the sequence, x is 0."""
    d = LONGEST / (1 + np.exp(-theta))
    h = np.zeros((B, T, FEATURES))
    for t in range(T):
        for j in range(INPUTS):
            for i in range(FEATURES):
                whole = int(np.floor(d[j, i]))
                for s, share in ((whole, 1 - (d[j, i] - whole)), (whole + 1, d[j, i] - whole)):
                    if s <= t:
                        h[:, t, i] += weights[j, i] * share * x[:, t - s, j]
    return h


@pytest.fixture
def case():
    random = np.random.default_rng(0)
    x, cotangent = random.normal(size=(B, T, INPUTS)), random.normal(size=(B, T, FEATURES))
    return x, random.normal(size=(INPUTS, FEATURES)), random.normal(size=(INPUTS, FEATURES)), cotangent


def test_values_and_gradients_equal_loops(case):
    x, weights, theta, cotangent = case

    def loss(x, weights, theta):
        synapse = delays.DelayedSynapse(FEATURES, LONGEST)
        h = synapse.apply({"params": {"kernel": weights, "delay": theta}}, x, jnp.zeros((B, LONGEST, INPUTS)))
        return jnp.sum(h * cotangent), h

    with float64():
        (_, h), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(x, weights, theta)
    gradients = jax.device_get(gradients)
    np.testing.assert_allclose(h, reference(x, weights, theta), rtol=1e-12, atol=1e-12)
    # Piecewise linear in d: central differences are exact but for the logistic function's curvature.
    step = 1e-5
    for n, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(a) for a in (x, weights, theta)]
                moved[n][index] += sign * step
                ends.append(np.sum(reference(*moved) * cotangent))
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("delay", range(LONGEST + 1))
def test_a_whole_delay_is_a_shift(delay):
    weights, delay_of_each = np.full((2, 1), 3, np.float32), np.full((2, 1), delay, np.float32)
    kernel = jax.jit(delays.interpolate, static_argnums=2)(weights, delay_of_each, LONGEST)
    expected = np.zeros((LONGEST + 1, 2, 1))
    expected[delay] = 3
    np.testing.assert_array_equal(kernel, expected)


def test_delays_start_spread_over_their_range():
    init = jax.jit(delays.DelayedSynapse(200, 20).init)
    variables = init(jax.random.key(0), np.zeros((1, 1, 50), np.float32), np.zeros((1, 20, 50), np.float32))
    d = np.sort(20 / (1 + np.exp(-np.asarray(variables["params"]["delay"]))).ravel())
    np.testing.assert_allclose(d, np.linspace(0.2, 19.8, d.size), atol=0.3)


def test_a_static_input_arrives_step_by_step():
    config = Model(name="dense", input_shape=(6,), time_steps=8, features=(7,), norm="none", max_delay=5)
    network = models.build(config)
    x = np.random.default_rng(0).uniform(size=(2, 1, 6)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    @jax.jit
    def outputs(variables, x):
        result: Any = network.apply(variables, x, inspect=("fc1",), tap=lambda h: h[:, :, 0], taps=("fc1.dense",))
        repeated = network.apply(variables, jnp.repeat(x, 8, axis=1))[0]
        return network.apply(variables, x)[0], repeated, result[1].terms["fc1.dense"]

    static, repeated, h = jax.device_get(outputs(variables, x))
    np.testing.assert_array_equal(static, repeated)
    assert len(np.unique(h[0, :6])) > 1
    np.testing.assert_allclose(h[:, 5:], np.repeat(h[:, 5:6], 3, axis=1), rtol=1e-5)


def test_a_spike_uses_two_connections_for_each_target():
    config = Model(name="dense", input_shape=(6,), time_steps=T, features=(7,), max_delay=3)
    network = models.build(config)
    x = (np.random.default_rng(0).random((2, T, 6)) < 0.3).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    counted = jax.jit(lambda variables, x: count_synops(network.apply, variables, x)[1])(variables, x)
    assert list(counted) == ["fc1.dense", "readout"]
    np.testing.assert_array_equal(counted["fc1.dense"].effective, x.sum(-1) * 2 * 7)
    assert (counted["fc1.dense"].dense == 2 * 6 * 7).all() and counted["fc1.dense"].spiking.all()


def test_bfloat16_rounds_the_product_only():
    config = Model(name="dense", input_shape=(6,), time_steps=T, features=(7,), max_delay=3, norm="none")
    x = (np.random.default_rng(0).random((2, T, 6)) < 0.3).astype(np.float32)
    network, rounded = models.build(config), models.build(dataclasses.replace(config, precision="bfloat16"))
    variables = jax.jit(network.init)(jax.random.key(0), x)
    shapes = jax.eval_shape(rounded.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}

    @jax.jit
    def currents(variables, x):
        results: list[Any] = [n.apply(variables, x, tap=lambda h: h, taps=("fc1.dense",)) for n in (network, rounded)]
        return [aux.terms["fc1.dense"] for _, aux in results]

    h, low = jax.device_get(currents(variables, x))
    assert low.dtype == jnp.float32 and 0 < np.abs(h - low).max() < 0.02


def test_a_network_without_a_delay_streams_as_it_computes_the_whole():
    network = basic.Dense(classes=4, time_steps=9, features=(7,), max_delay=0)

    @jax.jit
    def both(x):
        variables = network.init(jax.random.key(0), x, False)
        return network.apply(variables, x, False)[0], models.stream(network, variables, x)[0]

    whole, streamed = both(np.ones((2, 9, 5), np.float32))
    np.testing.assert_allclose(streamed, whole, rtol=1e-6)
