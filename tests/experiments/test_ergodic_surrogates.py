"""Surrogates keep what they promise, and the test on them finds nonlinearity and nothing else."""

import numpy as np
import pytest

from experiments.ergodic.surrogates import (
    iaaft,
    matching_ends,
    nonlinearity_test,
    prediction_error,
    time_asymmetry,
)
from tests.experiments.test_ergodic_series import draw


def test_surrogates_have_the_values_exactly_and_nearly_the_spectrum():
    x = draw("AR(1), 0.9")
    drawn = iaaft(x, 3, seed=0)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.sort(x), (3, 1)))
    amplitudes = np.abs(np.fft.rfft(x))
    errors = np.linalg.norm(np.abs(np.fft.rfft(drawn)) - amplitudes, axis=1) / np.linalg.norm(amplitudes)
    shuffled = np.abs(np.fft.rfft(np.random.default_rng(0).permutation(x)))
    assert errors.max() < 0.03 < 0.5 < np.linalg.norm(shuffled - amplitudes) / np.linalg.norm(amplitudes)


def test_surrogates_are_random_and_repeat_with_their_seed():
    x = draw("Henon")
    drawn = iaaft(x, 2, seed=1)
    assert all(abs(np.corrcoef(a, b)[0, 1]) < 0.2 for a, b in ((x, drawn[0]), (x, drawn[1]), drawn))
    np.testing.assert_array_equal(drawn, iaaft(x, 2, seed=1))
    assert not np.array_equal(drawn, iaaft(x, 2, seed=2))


def test_surrogates_of_a_cycle_of_two_are_the_cycle():
    x = np.tile([0.0, 1.0], 50)
    for drawn in iaaft(x, 3, seed=0):
        assert np.array_equal(drawn, x) or np.array_equal(drawn, 1 - x)


def test_ends_match_in_value_and_slope():
    x = np.sin(2 * np.pi * np.arange(1000) / 100 * 1.013)
    stretch = x[matching_ends(x)]
    assert 900 <= len(stretch) < 1000
    assert abs(stretch[0] - stretch[-1]) < 0.1 < abs(x[0] - x[-1])
    assert (stretch[1] - stretch[0]) * (stretch[-1] - stretch[-2]) > 0


def test_time_asymmetry_of_a_saw_and_of_a_sine():
    saw, sine = np.arange(1000.0) % 10, np.sin(0.2 * np.arange(1000.0))
    assert time_asymmetry(saw) == pytest.approx(time_asymmetry(saw[::-1])) and time_asymmetry(saw) > 2
    assert time_asymmetry(sine) < 0.05


def test_chaos_is_predicted_and_noise_is_not():
    assert prediction_error(draw("logistic, r = 4")) < 0.1
    assert prediction_error(draw("white noise")) > 0.9


@pytest.mark.parametrize(
    "name", ["logistic, r = 4", "logistic, r = 4, 30 % noise", "Lorenz, every 0.1", "nonlinear AR"]
)
def test_nonlinear_series_have_the_least_p_that_39_surrogates_allow(name):
    assert nonlinearity_test(draw(name), 39, seed=0) == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["white noise", "AR(1), 0.9, cubed"])
def test_linear_noise_is_rarely_rejected(name):
    """By the binomial distribution, more than 3 of 12 at a level of 5 % have a chance of 0.2 %."""
    ps = [nonlinearity_test(draw(name, seed)[:200], 39, seed) for seed in range(12)]
    assert np.sum(np.array(ps) <= 0.05) <= 3


def test_p_depends_on_the_order_of_the_values_only_and_is_1_where_surrogates_repeat_the_series():
    assert nonlinearity_test(draw("period 2"), 39, seed=0) == 1
    x = draw("AR(1), 0.9")
    assert nonlinearity_test(np.exp(x), 19, seed=0) == nonlinearity_test(x, 19, seed=0)
