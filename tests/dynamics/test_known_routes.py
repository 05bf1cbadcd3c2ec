"""Gradient descent whose route to chaos is known in closed form, as a check of bifurcations, exponents and flip ratio.

The smallest linear net of two layers (the UV model of Kalra, He and Barkeshli, ICLR 2025) has the loss
``(u v - 1)**2 / 2``. From u = v, with ``x = sqrt(eta) u``, a step is ``x <- x (1 + eta - x**2)``. The fixed point
``x**2 = eta`` has the multiplier ``1 - 2 eta``, so it flips at eta = 1, where the sharpness is 2 / eta. The cycle of
two has ``x**2 = r`` and ``1 / r`` with ``r + 1/r = 1 + eta``, and the multiplier ``9 - 2 (1 + eta)**2``: it doubles at
eta = sqrt(5) - 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics


def loss(params):
    return (params["u"] * params["v"] - 1) ** 2 / 2


def step(state, _):
    params, rate = state
    return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params)), rate


LEAVES = ({"u": True, "v": True}, False)


def starts(rates):
    """Balanced starts off the fixed point, one per rate."""
    weights = jnp.full(len(rates), 1.05)
    return {"u": weights, "v": weights}, jnp.asarray(rates)


def visited(rates):
    """``u`` in 8 steps after 4000, ``[8, rates]``."""
    batches = [None] * 4008
    return dynamics.attractor_samples(step, starts(rates), batches, lambda state: state[0]["u"], 4000)[0]


def test_period_doubles_where_theory_says(x64):
    rates = np.array([0.9, 1.05, 1.2, 1.25])
    values = visited(rates)
    periods = [next(p for p in (1, 2, 4, 8) if np.allclose(column[p:], column[:-p], atol=1e-6)) for column in values.T]
    assert periods == [1, 2, 2, 4]
    for rate, column in zip(rates[1:3], values.T[1:3], strict=True):
        r = ((1 + rate) + np.sqrt((1 + rate) ** 2 - 4)) / 2
        assert np.sort(column[:2] ** 2 * rate) == pytest.approx([1 / r, r], abs=1e-9)


def test_exponents_are_the_logarithms_of_the_multipliers(x64):
    rates = np.array([0.9, 1.1, 1.2])
    _, states = dynamics.attractor_samples(step, starts(rates), [None] * 4001, lambda state: state[0]["u"], 4000)
    history = dynamics.lyapunov_many(step, states, [None] * 400, 2, warmup=200, dynamical_leaves=LEAVES)[2]
    expected = [[0.0, np.log(abs(1 - 2 * rates[0]))]]
    for rate in rates[1:]:  # u - v is multiplied by 1 + rate (u v - 1), over the cycle by 3 - 2 rate
        multipliers = 3 - 2 * rate, 9 - 2 * (1 + rate) ** 2
        expected.append(sorted(np.log(np.abs(multipliers)) / 2, reverse=True))
    assert np.asarray(history).mean(0) == pytest.approx(np.array(expected), abs=1e-3)


@pytest.mark.parametrize("rate", [0.4, 1.0, 1.7])
def test_the_flip_ratio_is_sharpness_over_two_over_the_rate(x64, rate):
    """Sharpness at the minimum u = v = 1 is 2, so that the flip ratio is 2 rate / 2 (Cohen et al., ICLR 2021)."""
    params = {"u": jnp.float64(1.0), "v": jnp.float64(1.0)}
    assert dynamics.flip_ratio(jax.grad(loss), params, rate) == pytest.approx(rate, rel=1e-6)
