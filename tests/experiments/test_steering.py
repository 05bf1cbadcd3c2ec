"""Control of the largest Lyapunov exponent of a map by one of its parameters."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.steering.control import control_exponent


def steps(n):
    return itertools.repeat(None, n)


def logistic(state, _):
    x, rate = state
    return rate * x * (1 - x), rate


def set_rate(state, factor):
    return state[0], factor * 3.9


@pytest.mark.parametrize("target", [0.45, 0.2, -0.1])
def test_a_controlled_map_follows_a_path_of_exponents_in_the_mean(x64, target):
    path, start = [target] * 4000, (jnp.array(0.3), jnp.array(3.9))
    run = control_exponent(logistic, start, steps(4000), path, set_rate, gain=1e-3, dynamical_leaves=(True, False))
    assert run.factors[0] == 1 and np.all(run.factors * 3.9 < 4.0001)
    drift = np.log(run.factors[-1] / run.factors[1000]) / (1e-3 * 2999)
    np.testing.assert_allclose(np.mean(run.local[1000:-1]), target - drift, atol=1e-9)
    assert abs(drift) < 0.01
    x, rate = 0.3, 3.9  # the state follows from the factors
    for factor in run.factors[:50]:
        x, rate = logistic((x, 3.9 * factor), None)
    again = control_exponent(logistic, start, steps(50), path[:50], set_rate, gain=1e-3, dynamical_leaves=(True, False))
    assert again.state[0] == pytest.approx(x, rel=1e-6) and again.state[1] == pytest.approx(rate)


def test_a_controlled_map_stays_within_its_limits_and_missing_batches_are_an_error(x64):
    def step(state, _):
        return state[1] * state[0], state[1]

    def knob(state, factor):
        return state[0], factor

    start = jnp.array(1.0), jnp.array(1.0)
    options: dict[str, Any] = {"gain": 0.5, "dynamical_leaves": (True, False)}
    run = control_exponent(step, start, steps(40), [9.0] * 40, knob, limits=(0.5, 2.0), **options)
    assert run.factors[-1] == 2 and run.local[-1] == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="3 batches, but the path has 5 steps"):
        control_exponent(step, start, steps(3), [0.0] * 5, knob, **options)
