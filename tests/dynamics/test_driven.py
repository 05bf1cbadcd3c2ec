"""Exponents of driven networks against formulas, known transitions and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics, surrogate
from csbp_jax.dynamics.driven import reverse_tangent
from csbp_jax.runtime.hardware import float64


def tanh_network(weights, state, x):
    return jnp.tanh(weights @ state + x)


def spiking_map(slope, v, x):
    """A membrane with soft reset: ``u = slope v + x``, less 1 where it is above 1."""
    u = slope * v + x
    return u - surrogate.triangle(0.5)(u - 1)


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def measured_tanh(gain, inputs=0.0, n=1, units=200, steps=300, warmup=100):
    weights = gain * drawn(units, units) / np.sqrt(units)
    x = inputs * drawn(1, steps, units, seed=1)
    return dynamics.driven_exponents(tanh_network, drawn(1, units, seed=2), x, weights, n=n, warmup=warmup)


def test_a_leaky_integrator_forgets_by_its_decay():
    with float64():
        decays = jnp.array([0.9, 0.5, 0.2])
        start, x = drawn(2, 3), drawn(2, 60, 3, seed=1)
        measured = dynamics.driven_exponents(lambda a, v, x: a * v + x, start, x, decays, n=3, warmup=40)
        np.testing.assert_allclose(measured.tangent.exponents, np.log(decays)[None].repeat(2, 0), rtol=1e-6)
        # A real difference, of any size, is left with its slowest direction.
        np.testing.assert_allclose(measured.finite_size.exponents, np.log(0.9), rtol=1e-6)


@pytest.mark.parametrize("gain, sign", [(0.8, -1), (0.95, -1), (1.3, 1), (2.0, 1)])
def test_a_random_tanh_network_becomes_chaotic_near_gain_1(gain, sign):
    """Sompolinsky, Crisanti & Sommers 1988; below 1, its state falls to 0 as the largest eigenvalue says."""
    with float64():
        measured = measured_tanh(gain)
        largest, small = measured.tangent.exponents[0, 0], measured.finite_size.exponents[0, 0]
        assert np.sign(largest) == sign
        assert small == pytest.approx(float(largest), abs=0.03)
        if sign < 0:
            radius = np.abs(np.linalg.eigvals(gain * drawn(200, 200) / np.sqrt(200))).max()
            assert largest == pytest.approx(np.log(radius), abs=0.02)


def test_input_suppresses_the_chaos():
    """Molgedey, Schuchhardt & Schuster 1992."""
    with float64():
        assert measured_tanh(1.5).tangent.exponents[0, 0] > 0.05
        assert measured_tanh(1.5, inputs=2.0).tangent.exponents[0, 0] < -0.05


def test_qr_is_the_product_of_jacobians_by_finite_differences():
    with float64():
        units, steps, size = 4, 6, 1e-6
        weights, start, x = drawn(units, units), drawn(1, units, seed=2), drawn(1, steps, units, seed=1)
        measured = dynamics.driven_exponents(tanh_network, start, x, weights, n=units)

        def last(state):
            for x_t in np.asarray(x[0]):
                state = np.tanh(np.asarray(weights) @ state + x_t)
            return state

        columns = [(last(start[0] + size * unit) - last(start[0] - size * unit)) / (2 * size) for unit in np.eye(units)]
        _, volume = np.linalg.slogdet(np.stack(columns, axis=1))
        assert steps * measured.tangent.exponents.sum() == pytest.approx(volume, rel=1e-4)


def test_spikes_count_in_real_differences_and_the_surrogate_in_the_tangent():
    """The map stretches small differences by its slope, as the beta transformation does; its gradient by less."""
    slope, steps = 1.7, 4000
    with float64():
        x = jnp.zeros((1, steps, 1))
        measured = dynamics.driven_exponents(spiking_map, jnp.full((1, 1), 0.3), x, slope, deltas=1e-7)
        v, growth = 0.3, []
        for _ in range(steps):
            u = slope * v
            growth.append(slope * (1 - max(0, 0.5 - abs(u - 1)) / 0.25))
            v = u - (u > 1)
        # Orbits part by rounding, so that the two means are of different orbits.
        expected = np.log(np.abs(growth)).mean()
        assert measured.tangent.exponents[0, 0] == pytest.approx(expected, abs=float(5 * measured.tangent.stderr[0, 0]))
        assert measured.finite_size.exponents[0, 0] == pytest.approx(np.log(slope), abs=0.02)
        assert abs(expected - np.log(slope)) > 0.2


def test_forward_mode_is_the_transpose_of_the_reverse_pass():
    with float64():
        v, x = drawn(5), drawn(5, seed=1)
        direction = drawn(5, seed=2)
        _, image = jax.jvp(lambda v: reverse_tangent(spiking_map)(1.2, v, x), (v,), (direction,))
        np.testing.assert_allclose(image, jax.jacrev(spiking_map, 1)(1.2, v, x) @ direction, rtol=1e-12)
        with pytest.raises(TypeError, match="custom_vjp"):
            jax.jvp(lambda v: spiking_map(1.2, v, x), (v,), (direction,))


def test_the_program_is_compiled_once_for_all_parameters():
    traces: list[None] = []

    def step(weights, state, x):
        traces.append(None)
        return jnp.tanh(weights @ state + x)

    arguments = drawn(2, 3), drawn(2, 8, 3, seed=1)
    dynamics.driven_exponents(step, *arguments, drawn(3, 3))
    first = len(traces)
    dynamics.driven_exponents(step, *arguments, drawn(3, 3, seed=5))
    assert len(traces) == first > 0


def test_states_and_inputs_of_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match=r"must be \[K, T, ...\] of as many sequences as the states"):
        dynamics.driven_exponents(tanh_network, drawn(2, 3), drawn(1, 8, 3), drawn(3, 3))
    with pytest.raises(ValueError, match="chunk"):
        dynamics.driven_exponents(tanh_network, drawn(2, 3), drawn(2, 1, 3), drawn(3, 3))
