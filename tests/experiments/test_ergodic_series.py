"""Measures of a series on systems whose answer is known, and on what they cannot tell apart."""

import functools
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from experiments.ergodic import known
from experiments.ergodic.series import (
    decorrelation_lag,
    mean_square_displacement,
    permutation_entropy,
    spectral_flatness,
    standardised,
    zero_one_test,
)


def logistic(r, generator):
    return known.iterate(lambda x: r * x * (1 - x), generator.uniform(0.1, 0.9, (1, 1)), 2000)


def henon(generator):
    start = generator.uniform(-0.1, 0.1, (2, 1))
    return known.iterate(lambda s: (1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]), start, 500)


def lorenz(interval, generator):
    """x of the Lorenz flow, at even times after a transient."""

    def velocity(_, state):
        x, y, z = state
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    times = 20 + interval * np.arange(known.LENGTH)
    start = generator.normal(size=3) + np.array([0, 0, 20])
    return integrate.solve_ivp(velocity, (0, times[-1]), start, t_eval=times, rtol=1e-6).y[:1]


def rotation(generator):
    golden = (5**0.5 - 1) / 2
    return np.sin(2 * np.pi * known.iterate(lambda t: t + golden, generator.uniform(size=(1, 1)), 500))


def nonlinear_ar(generator):
    """Noise in a system that is not chaotic: under the same noise two series approach by 0.8 per step."""
    return known.iterate(lambda x: -0.8 * np.abs(x) + generator.normal(size=x.shape), np.zeros((1, 1)), 200)


def noisy_chaos(generator):
    series = logistic(4.0, generator)
    return series + 0.3 * series.std() * known.white(generator, 1)


SYSTEMS: dict[str, Any] = {
    "white noise": lambda generator: known.white(generator, 1),
    "AR(1), 0.5": lambda generator: known.ar1(0.5, generator, 1),
    "AR(1), 0.9": lambda generator: known.ar1(0.9, generator, 1),
    "AR(1), 0.9, cubed": lambda generator: known.ar1(0.9, generator, 1) ** 3,
    "nonlinear AR": nonlinear_ar,
    "period 2": functools.partial(logistic, 3.2),
    "period 8": functools.partial(logistic, 3.55),
    "quasi-periodic": rotation,
    "logistic, r = 4": functools.partial(logistic, 4.0),
    "logistic, r = 3.7": functools.partial(logistic, 3.7),
    "logistic, r = 3.58": functools.partial(logistic, 3.58),
    "logistic, r = 4, 30 % noise": noisy_chaos,
    "Henon": henon,
    "Lorenz, every 0.1": functools.partial(lorenz, 0.1),
    "Lorenz, every 0.02": functools.partial(lorenz, 0.02),
}


@functools.cache
def draw(name, seed=0):
    return SYSTEMS[name](np.random.default_rng(seed))[0]


@pytest.mark.parametrize(
    ("names", "k", "error"),
    [
        (("period 2", "period 8", "quasi-periodic"), 0, 0.1),
        (("logistic, r = 4", "logistic, r = 3.7", "Henon", "Lorenz, every 0.1"), 1, 0.05),
        (("white noise", "AR(1), 0.5", "nonlinear AR"), 1, 0.1),
        (("Lorenz, every 0.02",), 0, 0.1),
    ],
    ids=["regular", "chaotic", "blind to noise", "blind to fine sampling"],
)
def test_k_is_near_0_for_regular_and_near_1_for_irregular_series(names, k, error):
    for name in names:
        assert zero_one_test(draw(name)) == pytest.approx(k, abs=error), name


def test_k_depends_neither_on_offset_nor_on_scale():
    x = draw("logistic, r = 3.58")
    expected = zero_one_test(x)
    for scaled in (1e3 + x, 7 * x, 1e-300 * x, 1e300 * x):
        assert zero_one_test(scaled) == pytest.approx(expected)


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
    ("series", "order", "entropy"),
    [
        (np.arange(500), 4, 0),
        (-(np.arange(500) ** 3), 4, 0),
        (draw("white noise"), 4, 0.995),
        (np.tile([0.0, 2, 1, 3], 100), 4, np.log(4) / np.log(24)),
        (np.repeat([0.0, 1, 2, 3], 100), 3, 0),  # equal values: the earlier is the smaller
    ],
    ids=["rising", "falling", "white noise", "cycle", "steps"],
)
def test_permutation_entropy_of_known_series(series, order, entropy):
    assert permutation_entropy(series, order) == pytest.approx(entropy, abs=5e-3 if entropy > 0.99 else 1e-4)


def test_permutation_entropy_of_the_logistic_map_is_exact():
    """The shares of its six patterns of three, by its conjugacy to the tent map; 3 > 2 > 1 never occurs."""
    generator = np.random.default_rng(0)
    x = known.iterate(lambda x: 4 * x * (1 - x), generator.uniform(0.1, 0.9, (1, 40)), 100)
    shares = np.array([5, 1, 4, 2, 3]) / 15
    expected = -np.sum(shares * np.log(shares)) / np.log(6)
    assert np.mean([permutation_entropy(row, 3) for row in x]) == pytest.approx(expected, abs=2e-3)


def test_spectral_flatness_and_decorrelation_lag():
    assert spectral_flatness(3 * np.sin(2 * np.pi * 0.125 * np.arange(4096)) + 7) < 1e-6
    assert spectral_flatness(draw("white noise")) > 0.85 and spectral_flatness(draw("AR(1), 0.9")) < 0.3
    assert decorrelation_lag(draw("white noise")) == 1
    assert decorrelation_lag(draw("AR(1), 0.9")) == pytest.approx(10, abs=5)


@pytest.mark.parametrize("measure", [zero_one_test, spectral_flatness, decorrelation_lag])
@pytest.mark.parametrize("value", [3.0, np.nan, np.inf])
def test_a_series_that_is_constant_or_not_finite_is_an_error(measure, value):
    with pytest.raises(ValueError, match="the series is constant, or has a value that is not finite"):
        measure(np.array([3.0, value, 3.0, 3.0] * 100))
