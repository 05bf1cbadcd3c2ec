"""The chaos term and its controls on one neuron: distances of gradients, flips and exponents against formulas."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import chaos, controls, dynamics
from csbp_jax.dynamics import terms

TARGET = 0.65
REST = np.log(TARGET / (1 - TARGET))
"""Where term and drift rest, in units of k."""


def logistic(u):
    return 1 / (1 + np.exp(-u))


@pytest.mark.parametrize("k, percent", [(10, 1.2), (5, 1.2), (1, 182.9)])
def test_the_drift_is_the_term_at_k_10_and_differs_at_k_1(k, percent):
    u = np.linspace(-3, 3, 1001) / k
    curvature = (TARGET - 0.5) / REST
    expected = np.max(np.abs(logistic(u) - TARGET - curvature * (u - REST))) / (TARGET - 0.5)
    apart = dynamics.compare_terms(controls.drift, -3, 3, TARGET, k).apart
    assert apart == pytest.approx(expected, rel=1e-3) and round(100 * apart, 1) == percent


def test_gradients_are_the_formulas():
    h = jnp.linspace(-20, 20, 9)
    np.testing.assert_allclose(terms.gradient(chaos.term, h, scale=5.0), (logistic(h / 5) - TARGET) / 5, rtol=1e-5)
    np.testing.assert_allclose(terms.gradient(controls.linear, h, scale=5.0), -0.03, rtol=1e-5)
    assert not np.any(terms.gradient(chaos.term, jnp.array([-11.0, 11.0]), cut=(-10, 9.9)))


@pytest.mark.parametrize("k", [1.0, 10.0])
@pytest.mark.parametrize("term, substeps, expected", [
    (chaos.term, 1, 2 / (TARGET * (1 - TARGET))),
    (chaos.term, 10, 20 / (TARGET * (1 - TARGET))),
    (controls.drift, 1, 2 * REST / (TARGET - 0.5)),
    (controls.linear, 1, np.inf),
])  # fmt: skip
def test_flips(k, term, substeps, expected):
    assert terms.flip(term, TARGET, k, substeps=substeps) == pytest.approx(expected, rel=1e-4)


def test_the_term_is_chaotic_where_the_idea_says_and_its_controls_are_not():
    g = jnp.array([4.0, 8.0, 16.0])
    of_term = terms.exponent(chaos.term, g)
    at_rest = np.log(np.abs(1 - g * TARGET * (1 - TARGET)))  # below the flip the orbit ends at the resting point
    np.testing.assert_allclose(of_term[:2], at_rest[:2], atol=2e-3)
    assert of_term[2] > 0.3
    of_drift = terms.exponent(controls.drift, g)
    np.testing.assert_allclose(of_drift[:2], np.log(np.abs(1 - g[:2] * (TARGET - 0.5) / REST)), atol=1e-3)
    assert np.isnan(of_drift[2])  # beyond its flip it diverges
    np.testing.assert_array_equal(terms.exponent(controls.linear, g), 0)
    of_substeps = terms.exponent(chaos.term, g, substeps=10)
    np.testing.assert_allclose(of_substeps, 10 * np.log(np.abs(1 - g * TARGET * (1 - TARGET) / 10)), rtol=1e-3)


def test_many_sub_steps_are_the_gradient_flow():
    """Along the flow, u - ln|I0 - (1 - I0) exp(u)| / (1 - I0) advances by I0 g."""
    u, g, k = -1.0, 3.0, 10.0

    def clock(u):
        return u - np.log(np.abs(TARGET - (1 - TARGET) * np.exp(u))) / (1 - TARGET)

    end = float(terms.neuron_step(chaos.term, k * u, g, scale=k, substeps=3000)) / k
    assert clock(end) - clock(u) == pytest.approx(TARGET * g, rel=1e-3)


def test_sub_steps_differ_from_the_term_by_about_the_flip_ratio():
    for ratio in (0.01, 0.1):
        g = ratio * terms.flip(chaos.term)
        apart = dynamics.compare_terms(chaos.term, -1, 1, g=g, substeps=100).apart
        assert apart == pytest.approx(ratio, rel=0.3)


def test_noise_moves_two_nearby_neurons_alike():
    """As the noise does not depend on h, its exponent is 0, as that of the linear pull."""
    tx = optax.chain(controls.gaussian(lambda step: 0.3), optax.sgd(1.0))

    def step(state, _):
        h, n, of_tx = state
        update, of_tx = tx.update(jnp.zeros(()), of_tx, step=n, key=jax.random.key(0))
        return h + update, n + 1, of_tx

    start = jnp.float32(0.1), jnp.int32(0), tx.init(jnp.zeros(()))
    measured = dynamics.lyapunov(step, start, itertools.repeat(None, 20))
    assert float(measured.exponents[0]) == pytest.approx(0, abs=1e-6)


def test_impossible_arguments():
    with pytest.raises(ValueError, match="low must be below high"):
        dynamics.compare_terms(controls.drift, 3, -3)
    with pytest.raises(ValueError, match="substeps"):
        terms.neuron_step(chaos.term, 0.0, 1.0, substeps=0)
