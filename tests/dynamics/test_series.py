"""Measures of a recorded series on systems whose answer is known, and on what they cannot tell apart."""

import functools
import math

import numpy as np
import pytest

from csbp_jax.dynamics import permutation_entropy, power_spectrum, zero_one_test
from csbp_jax.dynamics.series import decorrelation_lag, drift, mean_square_displacement, standardised
from experiments import series_rates

MEASURES = [zero_one_test, permutation_entropy, power_spectrum, decorrelation_lag, drift]


@functools.cache
def draw(name, seed=0):
    return series_rates.SYSTEMS[name].draw(np.random.default_rng(seed), 1)[0]


REGULAR, CHAOTIC, NO_WORD = (-0.1, 0.1), (0.3, 1.5), (-1.0, 1.5)
"""Ranges of K by regression."""


@pytest.mark.parametrize(
    ("names", "k", "error", "regression"),
    [
        (("period 2", "period 8", "quasi-periodic", "period 4, 1 % noise"), 0, 0.1, REGULAR),
        (("logistic, r = 4", "logistic, r = 3.7", "Henon", "Lorenz, every 0.1"), 1, 0.05, CHAOTIC),
        (("white noise", "AR(1), 0.5"), 1, 0.1, NO_WORD),
        (("Lorenz, every 0.02",), 0, 0.1, NO_WORD),
    ],
    ids=["regular", "chaotic", "blind to noise", "blind to fine sampling"],
)
def test_k_is_near_0_for_regular_and_near_1_for_irregular_series(names, k, error, regression):
    for name in names:
        result = zero_one_test(draw(name))
        assert result.correlation == pytest.approx(k, abs=error), name
        assert regression[0] < result.regression < regression[1], name


def test_k_depends_neither_on_offset_nor_on_scale():
    x = draw("logistic, r = 3.58")
    expected = zero_one_test(x, damping=2.5)
    for scaled in (1e3 + x, 7 * x, 1e-300 * x, 1e300 * x):
        result = zero_one_test(scaled, damping=2.5)
        assert (result.correlation, result.regression) == pytest.approx((expected.correlation, expected.regression))


def test_damping_lowers_k_of_a_cycle_with_noise_and_hardly_that_of_chaos():
    plain, damped = ([zero_one_test(draw(name), a).correlation for name in ("period 8, 10 % noise", "Henon")]
                     for a in (0.0, 2.5))  # fmt: skip
    assert damped[0] < 0.7 * plain[0] and damped[1] > 0.95


def test_k_is_the_median_over_frequencies_away_from_resonances():
    result = zero_one_test(draw("Henon"), count=21, seed=3)
    assert result.correlation == np.median(result.correlations) and len(result.correlations) == 21
    assert np.all((result.frequencies > np.pi / 5) & (result.frequencies < 4 * np.pi / 5))


def test_mean_square_displacement_is_that_of_its_definition():
    x, c = draw("Henon")[:200], 1.3
    walk = np.cumsum(x * np.exp(1j * c * np.arange(1, 201)))
    expected = [np.mean(np.abs(walk[n : n + 180] - walk[:180]) ** 2) for n in range(1, 21)]
    np.testing.assert_allclose(mean_square_displacement(x, c), expected, rtol=1e-9)


def test_mean_square_displacement_of_white_noise_grows_as_n():
    x = standardised(np.random.default_rng(0).normal(size=20_000))
    grown = np.mean([mean_square_displacement(x, c) for c in np.linspace(0.7, 2.5, 10)], axis=0)
    np.testing.assert_allclose(grown[[0, 9, 99]] / [1, 10, 100], 1, atol=0.1)


@pytest.mark.parametrize(
    ("series", "options", "entropy"),
    [
        (np.arange(500), {}, 0),
        (-(np.arange(500) ** 3), {}, 0),
        (draw("white noise"), {}, 0.995),
        (np.tile([0.0, 2, 1, 3], 100), {"order": 4}, np.log(4) / np.log(24)),
        (np.tile([0.0, 2, 1, 3], 100), {"order": 3, "lag": 4}, 0),  # equal values: the earlier is the smaller
    ],
    ids=["rising", "falling", "white noise", "cycle", "cycle, its own lag"],
)
def test_permutation_entropy_of_known_series(series, options, entropy):
    assert permutation_entropy(series, **options) == pytest.approx(entropy, abs=5e-3 if entropy > 0.99 else 1e-4)


def test_permutation_entropy_of_the_logistic_map_is_exact():
    """The shares of its six patterns of three, by its conjugacy to the tent map; 3 > 2 > 1 never occurs."""
    generator = np.random.default_rng(0)
    x = series_rates.iterate(lambda x: 4 * x * (1 - x), generator.uniform(0.1, 0.9, (1, 40)), 100)
    shares = np.array([5, 1, 4, 2, 3]) / 15
    expected = -np.sum(shares * np.log(shares)) / np.log(6)
    assert np.mean([permutation_entropy(row, 3) for row in x]) == pytest.approx(expected, abs=2e-3)


def test_spectrum_of_a_sine_is_a_line_at_its_frequency():
    spectrum = power_spectrum(3 * np.sin(2 * np.pi * 0.125 * np.arange(4096)) + 7)
    assert spectrum.peak == 0.125 and spectrum.flatness < 1e-6
    width = spectrum.frequencies[1] - spectrum.frequencies[0]
    assert spectrum.power.sum() * width == pytest.approx(4.5, rel=0.02)  # its variance


def test_flatness_decorrelation_lag_and_drift():
    assert power_spectrum(draw("white noise")).flatness > 0.85 and power_spectrum(draw("AR(1), 0.9")).flatness < 0.3
    assert decorrelation_lag(draw("white noise")) == 1
    assert decorrelation_lag(draw("AR(1), 0.9")) == pytest.approx(10, abs=5)
    assert drift(np.arange(1000)) == pytest.approx(math.sqrt(3), rel=1e-2)
    assert abs(drift(draw("white noise"))) < 0.2
    assert drift(np.repeat([1.0, 0.0], 50)) == pytest.approx(-2)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([0.0], "too short: it has 1 values"),
        ([1.0, math.nan] * 500, "not finite: value 1 \\(from 0\\) is nan"),
        ([math.inf] * 500, "not finite"),
        ([3.0] * 500, "constant"),
        (np.zeros((500, 2)), "has shape \\(500, 2\\), but must have one dimension"),
    ],
)
def test_a_series_that_cannot_be_measured_is_an_error(measure, series, message):
    with pytest.raises(ValueError, match=message):
        measure(series)
