"""Standard errors of the mean against the scatter of series with known means."""

import numpy as np
import pytest
from scipy import signal

from csbp_jax.dynamics.standard_error import standard_error
from csbp_jax.dynamics.state import summary


def ar1(p, shape, seed=0):
    """Stationary AR(1) series of variance 1, along the first axis."""
    noise = np.random.default_rng(seed).normal(size=(shape[0] + 200, *shape[1:]))
    return signal.lfilter([(1 - p**2) ** 0.5], [1, -p], noise, axis=0)[200:]


def ratio_to_scatter(series):
    return float(standard_error(series).mean() / series.mean(axis=0).std(ddof=1))


@pytest.mark.parametrize("count", [200, 1000])
@pytest.mark.parametrize("p", [-0.7, 0.0, 0.5, 0.9, 0.97])
def test_standard_errors_account_for_correlation(count, p):
    """The variance of the mean of an AR(1) series is known."""
    series = ar1(p, (count, 500))
    lags = np.arange(1, count)
    true = ((1 + 2 * ((1 - lags / count) * p**lags).sum()) / count) ** 0.5
    error = standard_error(series)
    assert 0.95 < error.mean() / true < (1.6 if p > 0.9 else 1.3)
    assert np.mean(np.abs(series.mean(axis=0)) > 4 * error) < (0.03 if p > 0.9 else 0.015)


@pytest.mark.parametrize("memory", [0.0, 0.7])
@pytest.mark.parametrize("diffusion", [0.0, 0.02, 0.1])
def test_standard_errors_of_differences_fall_with_the_number_of_chunks(memory, diffusion):
    """Growth rates of flows are differences of a function of the state, plus a little noise."""
    course = ar1(memory, (1001, 256))
    series = np.diff(course, axis=0) + diffusion * ar1(0.0, (1000, 256), seed=1)
    assert 0.8 < ratio_to_scatter(series) < 1.4


def test_standard_error_of_the_logistic_map_is_the_scatter_over_starts():
    x, growth = np.random.default_rng(0).uniform(0.1, 0.9, 64), []
    for _ in range(1100):
        growth.append(np.log(np.abs(4 - 8 * x)))
        x = 4 * x * (1 - x)
    assert 0.7 < ratio_to_scatter(np.array(growth[100:])) < 1.5


def test_each_series_has_its_own_standard_error():
    series = np.stack([ar1(0.9, (300,)), np.diff(ar1(0.0, (301,))), ar1(0.0, (300,)), np.ones(300)], axis=1)
    expected = [standard_error(column) for column in series.T]
    np.testing.assert_allclose(standard_error(series.reshape(300, 2, 2)).ravel(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 26])
def test_short_series_have_finite_standard_errors(count):
    error = standard_error(np.random.default_rng(0).normal(size=(count, 50)))
    assert np.all(np.isfinite(error)) and np.all(error > 0)
    np.testing.assert_allclose(standard_error([1.0, 2.0]), 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_series_that_is_not_finite_has_no_standard_error(value):
    error = standard_error(np.array([[1.0, 1.0], [value, 2.0], [3.0, 1.5], [2.0, 1.0]]))
    assert np.isnan(error[0]) and error[1] > 0
    assert np.isnan(standard_error(np.append(np.random.default_rng(0).normal(size=1000), value)))


@pytest.mark.parametrize("count", [100, 200, 1000, 1001])
def test_a_cycle_has_no_standard_error(x64, count):
    mean, error, _ = summary(([np.array([1.0]), np.array([-1.2])] * count)[:count])
    np.testing.assert_allclose([mean[0], error[0]], [-0.1, 0.0], atol=2e-3 if count % 2 else 1e-12)
