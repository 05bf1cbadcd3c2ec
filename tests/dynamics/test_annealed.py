"""Rise of annealed runs, against maps where it is known."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import dynamics


@pytest.mark.parametrize(
    "history, expected",
    [
        ([-1.0, -2.0], 0.0),
        ([1.0, 2.0], 3.0),
        ([-5.0, 2.0, 3.0, -1.0], 5.0),
        ([2.0, -1.0, 2.0, -9.0, 1.0], 3.0),
        ([np.nan, 1.0], np.nan),
        ([0.1, np.inf, 0.2], np.nan),
        ([0.1, -np.inf], np.nan),
    ],
)
@pytest.mark.parametrize("every", [1, 4])
def test_rise_is_the_largest_growth_between_two_steps(history, expected, every):
    np.testing.assert_equal(dynamics.rise(history, every), every * expected)


def test_rise_of_each_column_is_the_largest_sum_of_an_interval():
    history = np.random.default_rng(0).normal(size=(40, 3, 2))
    sums = [history[a:b].sum(axis=0) for a, b in itertools.combinations(range(41), 2)]
    np.testing.assert_allclose(dynamics.rise(history), np.maximum(np.max(sums, axis=0), 0))


@pytest.mark.parametrize("every", [1, 5])
def test_rise_of_fluctuations_alone_grows_with_the_root_of_the_steps_and_of_their_chunks(every):
    """As the expected largest drawdown of a Brownian motion does (Magdon-Ismail et al. 2004)."""
    history = np.random.default_rng(0).normal(size=(5000 // every, 400))
    assert dynamics.rise(history, every).mean() / (every * 5000) ** 0.5 == pytest.approx((np.pi / 2) ** 0.5, rel=0.08)


def annealed(state, _):
    """Multiply x by its rate, which falls with the number of the step."""
    x, rate, n = state
    return x * rate * 0.9**n, rate, n + 1


@pytest.mark.parametrize("every", [1, 2])
def test_rises_of_many_annealed_runs(x64, every):
    rates = jnp.array([0.5, 1.0, 1.5, 3.0])
    states = (jnp.ones(4), rates, jnp.zeros(4, int))
    leaves = (True, False, False)
    rises = dynamics.annealed_rises(annealed, states, [None] * 20, every=every, dynamical_leaves=leaves)
    growth = np.log(np.asarray(rates))[None] + np.arange(20)[:, None] * np.log(0.9)
    if every == 2:
        growth = growth.reshape(10, 2, 4).sum(axis=1)
    np.testing.assert_allclose(rises, np.maximum(growth, 0).sum(axis=0), atol=1e-9)
    assert rises.shape == (4,) and rises[0] == 0 < rises[2]
