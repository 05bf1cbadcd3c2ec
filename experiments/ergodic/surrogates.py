"""Surrogates of a series, and a test of whether a linear process explains the series.

Chaos is nonlinear: if surrogates without any nonlinearity look the same, the series holds no evidence of chaos.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, spatial, special, stats

ITERATIONS = 100
"""Most iterations of a surrogate."""

DIMENSION, NEIGHBOURS = 3, 5
"""Values of a pattern, and nearest patterns that predict its next value."""

Array = NDArray[np.float64]


def iaaft(series: Array, count: int, seed: int) -> Array:
    """Draw surrogates with the values and the spectrum of a series, random otherwise (Schreiber & Schmitz 1996).

    Iterated amplitude-adjusted Fourier transform: from a random shuffle, in turn the Fourier amplitudes are set to
    those of the series, and the values, by rank, to those of the series; until the ranks no longer change.

    The values are exactly those of the series. The spectrum is close to its own, and less so for heavy tails, or if
    the ends of the series do not match (:func:`matching_ends`).

    Args:
      series: ``[N]``.
      count: number of surrogates.
      seed: random seed.

    Returns:
      ``[count, N]``.
    """
    ordered, amplitudes = np.sort(series), np.abs(fft.rfft(series))
    surrogates = np.random.default_rng(seed).permuted(np.tile(series, (count, 1)), axis=1)
    ranks = np.full(surrogates.shape, -1)
    active = np.arange(count)
    for _ in range(ITERATIONS):
        transformed = fft.rfft(surrogates[active])
        sizes = np.abs(transformed)
        phases = np.divide(transformed, sizes, out=np.ones_like(transformed), where=sizes > 0)
        adjusted = fft.irfft(amplitudes * phases, len(series))
        order = np.argsort(adjusted, axis=1)
        np.put_along_axis(adjusted, order, np.broadcast_to(ordered, adjusted.shape), axis=1)
        surrogates[active] = adjusted
        settled = (order == ranks[active]).all(axis=1)
        ranks[active] = order
        active = active[~settled]
        if not len(active):
            break
    return surrogates


def matching_ends(series: Array) -> slice:
    """Return the stretch of a series whose ends fit together best in value and slope.

    Fourier transforms repeat a series periodically. A jump at the seam adds high frequencies to its surrogates, and
    makes a smooth linear series look nonlinear (Schreiber & Schmitz 2000, section 4.6). At most a twentieth of the
    series is left out at either end.
    """
    size, cut = len(series), len(series) // 20
    starts, ends = np.arange(cut)[:, None], np.arange(size - cut, size)[None]
    slopes = np.diff(series)
    mismatch = (series[starts] - series[ends]) ** 2 + (slopes[starts] - slopes[ends - 1]) ** 2
    first, last = np.unravel_index(np.argmin(mismatch), mismatch.shape)
    return slice(int(first), int(size - cut + last + 1))


def time_asymmetry(series: Array) -> float:
    """Compute ``|mean d^3| / (mean d^2)^1.5`` of the differences d: 0 if the series looks the same backwards.

    Linear Gaussian processes do. A nonlinear series may do so as well, such as x of the Lorenz system by its symmetry.
    """
    differences = np.diff(series)
    return float(abs(np.mean(differences**3)) / max(np.mean(differences**2) ** 1.5, np.finfo(float).tiny))


def prediction_error(series: Array) -> float:
    """Compute the error of a nonlinear prediction one step ahead, in standard deviations of the series.

    Each value of the second half is predicted by the mean of the values that follow the nearest patterns of
    three values in the first half (Farmer & Sidorowich 1987, of order zero); root mean square of the errors.
    """
    patterns, following = np.lib.stride_tricks.sliding_window_view(series, DIMENSION)[:-1], series[DIMENSION:]
    half = len(following) // 2
    _, nearest = spatial.KDTree(patterns[:half]).query(patterns[half:], np.arange(1, NEIGHBOURS + 1))
    errors = following[:half][nearest].mean(axis=1) - following[half:]
    return float(np.sqrt(np.mean(errors**2)) / series.std())


_STATISTICS: tuple[tuple[Callable[[Array], float], int], ...] = ((time_asymmetry, 1), (prediction_error, -1))
"""Each statistic with the sign of its deviation in a nonlinear series."""


def nonlinearity_test(series: Array, surrogates: int, seed: int) -> float:
    """Return p of the hypothesis that a series is a linear Gaussian process, seen through a fixed monotone function.

    By their ranks, the values are first replaced by those of a normal distribution, so that the result depends on their
    order only: a loss and its logarithm give the same p. The stretch with :func:`matching_ends` is compared with its
    :func:`iaaft` surrogates. For each statistic, ``p = (1 + r) / (1 + surrogates)``, where r counts the surrogates that
    are at least as extreme: :func:`time_asymmetry` as large, :func:`prediction_error` as small. The p of both together
    is twice the smaller one (Bonferroni), so 39 surrogates are the fewest that allow p = 0.05.

    What it cannot show: chaos. Noise in a nonlinear system without chaos is nonlinear as well, and so are cycles, two
    frequencies, and series that drift or have a transient. Only a large p is clear: the series holds no evidence
    against a linear process, and thus none of chaos, for these statistics and this length.

    Args:
      series: ``[N]``, finite and not constant.
      surrogates: their number.
      seed: random seed of the surrogates.
    """
    x = special.ndtri((stats.rankdata(series) - 0.5) / len(series))
    x = x[matching_ends(x)]
    drawn = iaaft(x, surrogates, seed)
    ps = []
    for statistic, sign in _STATISTICS:
        # Surrogates of a cycle may equal it up to rounding, which is no evidence.
        extreme: NDArray[np.bool_] = sign * (np.array([statistic(s) for s in drawn]) - statistic(x)) >= -1e-9
        ps.append(float((1 + extreme.sum()) / (1 + surrogates)))
    return min(1.0, len(ps) * min(ps))
