"""Measures of a scalar series, which need neither its map nor the tangent. None of them proves chaos."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

FREQUENCIES = 100
"""Number of random frequencies of the 0-1 test."""

Array = NDArray[np.float64]


def standardised(series: Array) -> Array:
    """Return a series less its mean and over its standard deviation; neither overflows nor underflows.

    Raises:
      ValueError: the series is constant, or has a value that is not finite.
    """
    if not np.isfinite(series).all() or np.ptp(series) == 0:
        raise ValueError("the series is constant, or has a value that is not finite")
    x = series / np.max(np.abs(series))
    x = x - x.mean()
    x = x / np.max(np.abs(x))
    return np.asarray(x / x.std())


def zero_one_test(series: Array) -> float:
    """Apply the 0-1 test for chaos (Gottwald & Melbourne 2004, 2009); K is near 0 if regular, near 1 if irregular.

    The series phi, less its mean and over its standard deviation, drives a walk in the plane,
    ``z(n) = sum_{j<=n} phi(j) exp(i j c)``. Its mean square displacement
    ``M(n) = mean_j |z(j+n) - z(j)|^2``, for n = 1 to N/10, stays bounded for a regular series and grows as n for a
    chaotic one. Removing the mean first does what the paper's oscillating term does. K is the correlation coefficient
    of n and M(n), the median over 100 random c in (pi/5, 4 pi/5), away from resonances.

    What it cannot show: noise gives a K near 1 as chaos does. A series that is sampled too finely, or drifts, gives a K
    near 0 even if it is chaotic; a transient may give any K.

    Args:
      series: ``[N]``; its authors recommend 1000 values and more.

    Raises:
      ValueError: as of :func:`standardised`.
    """
    x = standardised(series)
    frequencies = np.random.default_rng(0).uniform(np.pi / 5, 4 * np.pi / 5, FREQUENCIES)
    n = np.arange(1, len(x) // 10 + 1)
    displacement = np.array([mean_square_displacement(x, c) for c in frequencies])
    centred = displacement - displacement.mean(axis=1, keepdims=True)
    correlations = centred @ (n - n.mean()) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(n - n.mean()))
    return float(np.median(correlations))


def mean_square_displacement(series: Array, frequency: float) -> Array:
    """Compute M(n) of :func:`zero_one_test` for n = 1 to N/10, by Fourier transforms, ``[N // 10]``."""
    size, cut = len(series), len(series) // 10
    starts = size - cut
    walk = np.cumsum(series * np.exp(1j * frequency * np.arange(1, size + 1)))
    padded = fft.next_fast_len(2 * size)
    spectrum, of_starts = (fft.fft(values, padded) for values in (walk, walk[:starts]))
    products = fft.ifft(spectrum * np.conj(of_starts))[1 : cut + 1].real
    squares = np.concatenate([[0.0], np.cumsum(np.abs(walk) ** 2)])
    n = np.arange(1, cut + 1)
    return np.asarray((squares[starts + n] - squares[n] + squares[starts] - 2 * products) / starts)


def permutation_entropy(series: Array, order: int = 4) -> float:
    """Compute the permutation entropy (Bandt & Pompe 2002), from 0 to 1.

    ``-sum_p f_p log f_p / log(order!)``, where f_p is how often ``order`` successive values are in the order p. Of
    equal values, the earlier counts as the smaller one. It is 0 for a monotone series, and near 1 for white noise.

    What it cannot show: whether a high entropy is chaos or noise. A trend, and a series that is sampled too finely,
    lower it. Values that are rounded so that many are equal distort it.
    """
    windows = np.lib.stride_tricks.sliding_window_view(series, order)
    codes = np.argsort(windows, axis=1, kind="stable") @ order ** np.arange(order)
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    return max(0.0, float(-np.sum(shares * np.log(shares)) / math.log(math.factorial(order))))


def spectral_flatness(series: Array) -> float:
    """Compute the geometric over the arithmetic mean of the power spectrum: 0 for a line, near 1 for white noise.

    The spectrum is Welch's, of segments of at most 256 values and a quarter of the series, without the frequency 0.

    What it cannot show: whether a broad band is chaos or noise, because chaotic series may have the spectrum of white
    noise.

    Raises:
      ValueError: as of :func:`standardised`.
    """
    x = standardised(series)
    _, power = signal.welch(x, nperseg=min(256, len(x) // 4), detrend="constant")
    logs = np.log(np.maximum(power[1:], np.finfo(float).tiny))
    return float(np.exp(logs.mean()) / power[1:].mean())


def decorrelation_lag(series: Array) -> int:
    """Return the first lag at which the autocorrelation is below 1/e; the length of the series if there is none.

    Well above 1, the series is sampled more finely than it changes.

    Raises:
      ValueError: as of :func:`standardised`.
    """
    x = standardised(series)
    padded = fft.next_fast_len(2 * len(x))
    autocorrelation = fft.irfft(np.abs(fft.rfft(x, padded)) ** 2, padded)[: len(x)] / len(x)
    below = autocorrelation < math.exp(-1)
    return int(np.argmax(below)) if below.any() else len(x)
