"""Measures of a recorded scalar series: a loss, a weight, a column of a training log of any program.

They need neither the map nor its tangent. None of them proves chaos: read each with what it cannot show, and together
with the surrogate test of :mod:`csbp_jax.dynamics.surrogates`. All are computed in float64 by numpy.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy  # whose packages load at their first use, which a training does not wait for
from numpy.typing import ArrayLike, NDArray

Series = NDArray[np.float64]

FEWEST = 100
"""Fewest values of a series for :func:`zero_one_test`, and for the surrogate test."""


class ZeroOne(NamedTuple):
    """Results of the 0-1 test, both near 0 for regular and near 1 for irregular series.

    correlation: K by the correlation method, the more sensitive of the two; regression: K by the regression method.
    frequencies, correlations: the random c, and K of each, ``[count]``; the two K are medians over them.
    """

    correlation: float
    regression: float
    frequencies: Series
    correlations: Series


class Spectrum(NamedTuple):
    """A power spectrum.

    frequencies: in cycles per sample, above 0 and up to 1/2; power: density, in squared units of the series per cycle
    per sample; flatness: geometric over arithmetic mean of the power, 0 for a line and near 1 for white noise;
    peak: the frequency of the largest power.
    """

    frequencies: Series
    power: Series
    flatness: float
    peak: float


def checked(series: ArrayLike, fewest: int) -> Series:
    """Return a series as float64.

    Raises:
      ValueError: it is not one-dimensional, has fewer than ``fewest`` values, has a value that is not finite, or is
        constant.
    """
    x = np.asarray(series, float)
    if x.ndim != 1:
        raise ValueError(f"the series has shape {x.shape}, but must have one dimension")
    if len(x) < fewest:
        raise ValueError(f"the series is too short: it has {len(x)} values, and {fewest} are needed")
    if not np.isfinite(x).all():
        first = int(np.argmin(np.isfinite(x)))
        raise ValueError(f"the series is not finite: value {first} (from 0) is {x[first]}")
    if np.ptp(x) <= 1e-12 * np.max(np.abs(x)):
        raise ValueError("the series is constant")
    return x


def standardised(series: Series) -> Series:
    """Return a checked series less its mean and over its standard deviation; neither overflows nor underflows."""
    x = series / np.max(np.abs(series))
    x = x - x.mean()
    x = x / np.max(np.abs(x))
    return np.asarray(x / x.std())


def zero_one_test(series: ArrayLike, damping: float = 0.0, count: int = 100, seed: int = 0) -> ZeroOne:
    """Apply the 0-1 test for chaos (Gottwald & Melbourne 2004, 2009).

    The series phi, less its mean and over its standard deviation, drives a walk in the plane,
    ``z(n) = sum_{j<=n} phi(j) exp(i j c)``. Its mean square displacement
    ``M(n) = mean_j |z(j+n) - z(j)|^2``, for n = 1 to N/10, stays bounded for a regular series and grows as n for a
    chaotic one. Removing the mean first does what the paper's oscillating term does. With ``D(n) = M(n) + damping
    sin(sqrt(2) n)``, K of a frequency c is

    - by correlation: the correlation coefficient of n and ``D(n)``;
    - by regression: the slope of ``log(max(D, 0) + 1)`` over ``log n``, by least squares.

    Both are medians over random c in (pi/5, 4 pi/5), away from resonances.

    The damping term (Dawes & Freeland 2008) hides a weak growth: it lowers K of a cycle with noise, and also K of weak
    chaos. They scale it by the squared mean, here it is in units of the variance: K depends neither on the unit nor on
    the offset of the series.

    What it cannot show: noise gives a K near 1 as chaos does. A series that is sampled too finely, or drifts, gives a K
    near 0 even if it is chaotic; a transient may give any K.

    Args:
      series: at least 100 values, ``[N]``; its authors recommend 1000 and more.
      damping: amplitude of the damping term; 0 is the test of 2009, 2.5 a usual value against noise.
      count: number of frequencies.
      seed: random seed of the frequencies.

    Raises:
      ValueError: the series is too short, constant, not finite, or not one-dimensional.

    >>> round(zero_one_test(np.sin(0.1 * np.arange(1000) ** 2)).correlation)
    1
    """
    x = standardised(checked(series, FEWEST))
    frequencies = np.random.default_rng(seed).uniform(np.pi / 5, 4 * np.pi / 5, count)
    n = np.arange(1, len(x) // 10 + 1)
    displacement = np.array([mean_square_displacement(x, c) for c in frequencies]) + damping * np.sin(math.sqrt(2) * n)
    centred = displacement - displacement.mean(axis=1, keepdims=True)
    correlations = centred @ (n - n.mean()) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(n - n.mean()))
    log_n = np.log(n) - np.log(n).mean()
    slopes = np.log(np.maximum(displacement, 0) + 1) @ log_n / (log_n @ log_n)
    return ZeroOne(float(np.median(correlations)), float(np.median(slopes)), frequencies, correlations)


def mean_square_displacement(series: Series, frequency: float) -> Series:
    """Compute M(n) of :func:`zero_one_test` for n = 1 to N/10, by Fourier transforms, ``[N // 10]``."""
    size, cut = len(series), len(series) // 10
    starts = size - cut
    walk = np.cumsum(series * np.exp(1j * frequency * np.arange(1, size + 1)))
    padded = scipy.fft.next_fast_len(2 * size)
    spectrum, of_starts = (scipy.fft.fft(values, padded) for values in (walk, walk[:starts]))
    products = scipy.fft.ifft(spectrum * np.conj(of_starts))[1 : cut + 1].real
    squares = np.concatenate([[0.0], np.cumsum(np.abs(walk) ** 2)])
    n = np.arange(1, cut + 1)
    return (squares[starts + n] - squares[n] + squares[starts] - 2 * products) / starts


def permutation_entropy(series: ArrayLike, order: int = 4, lag: int = 1) -> float:
    """Compute the permutation entropy (Bandt & Pompe 2002), from 0 to 1.

    ``-sum_p f_p log f_p / log(order!)``, where f_p is how often ``order`` values, ``lag`` apart, are in the order p. Of
    equal values, the earlier counts as the smaller one. It is 0 for a monotone series, and near 1 for white noise.

    What it cannot show: whether a high entropy is chaos or noise. A trend, and a series that is sampled too finely,
    lower it; take differences, or every k-th value. Values that are rounded so that many are equal distort it.

    Args:
      series: at least ``5 order! + (order - 1) lag`` values, ``[N]``.
      order: number of values in a pattern, at least 2.
      lag: distance between these values.

    Raises:
      ValueError: the series is too short for this order, constant, not finite, or not one-dimensional; or ``order`` or
        ``lag`` is too small.

    >>> permutation_entropy(np.arange(1000))
    0.0
    """
    if order < 2 or lag < 1:
        raise ValueError(f"order {order} and lag {lag} are not possible; allowed are orders from 2 and lags from 1")
    x = checked(series, 5 * math.factorial(order) + (order - 1) * lag)
    windows = np.lib.stride_tricks.sliding_window_view(x, (order - 1) * lag + 1)[:, ::lag]
    codes = np.argsort(windows, axis=1, kind="stable") @ order ** np.arange(order)
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return max(0.0, float(-np.sum(shares * np.log(shares)) / math.log(math.factorial(order))))


def power_spectrum(series: ArrayLike, segment: int = 256) -> Spectrum:
    """Estimate the power spectrum by Welch's method, with ``scipy.signal.welch``.

    Segments of at most ``segment`` values, and of at most a quarter of the series, overlap by half and have a Hann
    window; the mean of each is removed. Lines mean a regular series, a broad band means an irregular one.

    What it cannot show: whether a broad band is chaos or noise, because chaotic series may have the spectrum of white
    noise. Nor lines that are closer than about two over the length of a segment.

    Raises:
      ValueError: the series has fewer than 32 values, is constant, not finite, or not one-dimensional.
    """
    x = checked(series, 32)
    frequencies, power = scipy.signal.welch(standardised(x), nperseg=min(segment, len(x) // 4), detrend="constant")
    frequencies, power = frequencies[1:], power[1:]
    logs = np.log(np.maximum(power, np.finfo(float).tiny))
    flatness = float(np.exp(logs.mean()) / power.mean())
    return Spectrum(frequencies, power * x.var(), flatness, float(frequencies[np.argmax(power)]))


def decorrelation_lag(series: ArrayLike) -> int:
    """Return the first lag at which the autocorrelation is below 1/e; the length of the series if there is none.

    Well above 1, the series is sampled more finely than it changes.

    Raises:
      ValueError: the series has fewer than two values, is constant, not finite, or not one-dimensional.
    """
    x = standardised(checked(series, 2))
    padded = scipy.fft.next_fast_len(2 * len(x))
    autocorrelation = scipy.fft.irfft(np.abs(scipy.fft.rfft(x, padded)) ** 2, padded)[: len(x)] / len(x)
    below = autocorrelation < math.exp(-1)
    return int(np.argmax(below)) if below.any() else len(x)


def drift(series: ArrayLike) -> float:
    """Return the mean of the second half less that of the first, in standard deviations of the series.

    Far from 0, between -2 and 2, the series is not stationary: a trend, a transient, or a change slower than its
    length. Near 0 it may still not be, for instance where only its variance changes.

    Raises:
      ValueError: the series has fewer than two values, is constant, not finite, or not one-dimensional.
    """
    x = standardised(checked(series, 2))
    half = len(x) // 2
    return float(x[half:].mean() - x[:half].mean())
