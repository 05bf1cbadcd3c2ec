"""Surrogates of a recorded series, and a test of whether a linear process explains the series.

Chaos is nonlinear: if surrogates without any nonlinearity look the same, the series holds no evidence of chaos.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # whose packages load at their first use, which a training does not wait for
from numpy.typing import ArrayLike, NDArray

from csbp_jax.dynamics.series import FEWEST, Series, checked


class Nonlinearity(NamedTuple):
    """Results of :func:`nonlinearity_test`.

    p: of both statistics together; values: of the series; ps: p of each statistic. The keys are "time asymmetry" and
    "prediction error".
    """

    p: float
    values: dict[str, float]
    ps: dict[str, float]


def iaaft(series: ArrayLike, count: int, seed: int = 0, iterations: int = 100) -> Series:
    """Draw surrogates with the values and the spectrum of a series, random otherwise (Schreiber & Schmitz 1996).

    Iterated amplitude-adjusted Fourier transform: from a random shuffle, in turn the Fourier amplitudes are set to
    those of the series, and the values, by rank, to those of the series; until the ranks no longer change.

    The values are exactly those of the series. The spectrum is close to its own, and less so for heavy tails, or if
    the ends of the series do not match (:func:`matching_ends`).

    Args:
      series: ``[N]``.
      count: number of surrogates.
      seed: random seed.
      iterations: most iterations.

    Returns:
      ``[count, N]``.

    Raises:
      ValueError: the series has fewer than four values, is constant, not finite, or not one-dimensional.
    """
    x = checked(series, 4)
    ordered, amplitudes = np.sort(x), np.abs(scipy.fft.rfft(x))
    surrogates = np.random.default_rng(seed).permuted(np.tile(x, (count, 1)), axis=1)
    ranks = np.full(surrogates.shape, -1)
    active = np.arange(count)
    for _ in range(iterations):
        transformed = scipy.fft.rfft(surrogates[active])
        sizes = np.abs(transformed)
        phases = np.divide(transformed, sizes, out=np.ones_like(transformed), where=sizes > 0)
        adjusted = scipy.fft.irfft(amplitudes * phases, len(x))
        order = np.argsort(adjusted, axis=1)
        np.put_along_axis(adjusted, order, np.broadcast_to(ordered, adjusted.shape), axis=1)
        surrogates[active] = adjusted
        settled = (order == ranks[active]).all(axis=1)
        ranks[active] = order
        active = active[~settled]
        if not len(active):
            break
    return surrogates


def matching_ends(series: Series, most: int = 200) -> slice:
    """Return the stretch of a series whose ends fit together best in value and slope.

    Fourier transforms repeat a series periodically. A jump at the seam adds high frequencies to its surrogates, and
    makes a smooth linear series look nonlinear (Schreiber & Schmitz 2000, section 4.6). At most a twentieth of the
    series, and ``most`` values, are left out at either end.
    """
    size, cut = len(series), max(1, min(len(series) // 20, most))
    starts, ends = np.arange(cut)[:, None], np.arange(size - cut, size)[None]
    slopes = np.diff(series)
    mismatch = (series[starts] - series[ends]) ** 2 + (slopes[starts] - slopes[ends - 1]) ** 2
    first, last = np.unravel_index(np.argmin(mismatch), mismatch.shape)
    return slice(int(first), int(size - cut + last + 1))


def time_asymmetry(series: Series) -> float:
    """Compute ``|mean d^3| / (mean d^2)^1.5`` of the differences d: 0 if the series looks the same backwards.

    Linear Gaussian processes do. A nonlinear series may do so as well, such as x of the Lorenz system by its symmetry.
    """
    differences = np.diff(series)
    return float(abs(np.mean(differences**3)) / max(np.mean(differences**2) ** 1.5, np.finfo(float).tiny))


def prediction_error(series: Series, dimension: int = 3, neighbours: int = 5) -> float:
    """Compute the error of a nonlinear prediction one step ahead, in standard deviations of the series.

    Each value of the second half is predicted by the mean of the values that follow the nearest patterns of
    ``dimension`` values in the first half (Farmer & Sidorowich 1987, of order zero); root mean square of the errors.
    """
    patterns, following = np.lib.stride_tricks.sliding_window_view(series, dimension)[:-1], series[dimension:]
    half = len(following) // 2
    _, nearest = scipy.spatial.KDTree(patterns[:half]).query(patterns[half:], np.arange(1, neighbours + 1))
    errors = following[:half][nearest].mean(axis=1) - following[half:]
    return float(np.sqrt(np.mean(errors**2)) / series.std())


_STATISTICS: dict[str, tuple[Callable[[Series], float], int]] = {
    "time asymmetry": (time_asymmetry, 1),
    "prediction error": (prediction_error, -1),
}
"""Each statistic with the sign of its deviation in a nonlinear series."""


def nonlinearity_test(series: ArrayLike, surrogates: int = 39, seed: int = 0) -> Nonlinearity:
    """Test the hypothesis that a series is a linear Gaussian process, seen through a fixed monotone function.

    By their ranks, the values are first replaced by those of a normal distribution, so that the result depends on their
    order only: a loss and its logarithm give the same p. The stretch with :func:`matching_ends` is compared with its
    :func:`iaaft` surrogates. For each statistic, ``p = (1 + r) / (1 + surrogates)``, where r counts the surrogates that
    are at least as extreme: :func:`time_asymmetry` as large, :func:`prediction_error` as small. The p of both together
    is twice the smaller one (Bonferroni), so 39 surrogates are the fewest that allow p = 0.05.

    What it cannot show: chaos. Noise in a nonlinear system without chaos is nonlinear as well, and so are cycles, two
    frequencies, and series that drift or have a transient. Only a large p is clear: the series holds no evidence
    against a linear process, and thus none of chaos, for these statistics and this length.

    Args:
      series: at least 100 values, ``[N]``; the time grows with ``surrogates`` and, beyond some 10,000 values, is
        minutes.
      surrogates: their number.
      seed: random seed of the surrogates.

    Raises:
      ValueError: the series is too short, constant, not finite, or not one-dimensional; or there are no surrogates.
    """
    if surrogates < 1:
        raise ValueError(f"surrogates: {surrogates} is not possible; at least one is needed")
    x = checked(series, FEWEST)
    x = scipy.special.ndtri((scipy.stats.rankdata(x) - 0.5) / len(x))
    x = checked(x[matching_ends(x)], 2)
    drawn = iaaft(x, surrogates, seed)
    values, ps = {}, {}
    for name, (statistic, sign) in _STATISTICS.items():
        values[name] = statistic(x)
        # Surrogates of a cycle may equal it up to rounding, which is no evidence.
        extreme: NDArray[np.bool_] = sign * (np.array([statistic(s) for s in drawn]) - values[name]) >= -1e-9
        ps[name] = float((1 + extreme.sum()) / (1 + surrogates))
    return Nonlinearity(min(1.0, len(ps) * min(ps.values())), values, ps)
