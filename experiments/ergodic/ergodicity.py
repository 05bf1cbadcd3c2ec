"""Ergodicity of recorded orbits: whether all have one distribution in time, and whether that is the ensemble's.

An *orbit* is a scalar recorded along a run at fixed hyperparameters after a transient, and orbits of several starts
are ``[orbits, steps]``. Orbits of an ergodic system have the same distribution. What no record can show is whether
orbits that differ would agree after more steps: compare its length with the autocorrelation time.
"""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

RESOLUTION = 1e-9
"""Differences that count as rounding, in units of the largest absolute value."""

Array = NDArray[np.float64]


class SameDistribution(NamedTuple):
    """Results of :func:`energy_test`.

    distance: between the two samples; halves: its median between random halves of both, what equal distributions give;
    p: of the permutation test.
    """

    distance: float
    halves: float
    p: float


def split_r_hat(orbits: ArrayLike) -> float:
    """Compute the rank-normalised split-R-hat (Vehtari et al., Bayesian Analysis 2021) of ``[orbits, steps]``.

    With each orbit cut into halves of n steps, W the mean variance within a half and B / n the variance of the means of
    the halves, ``R-hat = sqrt((n - 1) / n + B / (n W))``. It is computed of the ranks of all values, as normal scores,
    and of those of their distance from the median; the larger one counts, so that orbits which differ in their spread
    differ. It is near 1 for orbits of equal distribution, and above 1.05 where they differ or have not mixed. Where no
    half varies, it is 1 if all are equal, and infinite otherwise.

    Differences below ``RESOLUTION`` times the largest absolute value count as rounding.

    Raises:
      ValueError: the orbits have fewer than four steps, values that are not finite, or not two dimensions.
    """
    values = _checked("split_r_hat", orbits)
    return float(_r_hat(*_half_moments(values), values.shape[1] // 2).max())


def orbit_groups(orbits: ArrayLike, threshold: float = 1.05) -> NDArray[np.intp]:
    """Group orbits of several observables that have the same distributions: coexisting attractors, ``[orbits]``.

    Two orbits are linked if :func:`split_r_hat` of the two is below the threshold for every observable (with ranks
    among all orbits). Groups are the connected components, numbered from the largest on, from 0.

    Args:
      orbits: ``[orbits, steps, observables]``.
      threshold: largest R-hat of orbits of equal distribution.

    Raises:
      ValueError: as of :func:`split_r_hat`.
    """
    values = np.asarray(orbits, float)
    if values.ndim != 3:
        raise ValueError(f"orbit_groups: orbits have shape {values.shape}; pass [orbits, steps, observables]")
    count = len(values)
    first, second = np.triu_indices(count, 1)
    linked = np.ones(len(first), bool)
    for observable in np.moveaxis(values, 2, 0):
        halves = (of.reshape(len(of), 2, count) for of in _half_moments(_checked("orbit_groups", observable)))
        means, variances = (np.concatenate([of[..., first], of[..., second]], axis=1) for of in halves)
        linked &= (_r_hat(means, variances, values.shape[1] // 2) < threshold).all(axis=0)
    links = (first[linked], second[linked])  # without the others, which a sparse array would hold as zeros
    graph = scipy.sparse.coo_array((np.ones(len(links[0])), links), shape=(count, count))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.asarray(np.argsort(order)[labels])


def autocorrelation_time(orbits: ArrayLike) -> float:
    """Compute the integrated autocorrelation time of ``[orbits, steps]``, in steps.

    ``1 + 2 sum_k r(k)`` over lags k from 1, with r the mean over the orbits of the autocovariance around each orbit's
    own mean, over that mean at lag 0, so that an orbit counts by its variance; the sum ends where a pair
    ``r(2m) + r(2m + 1)`` is not positive (Geyer 1992). It is 1 for white noise, below 1 for values that alternate (at
    least 1 / steps), and NaN where no orbit varies. A mean over the record is as precise as that of ``steps / time``
    independent values. It is too small where it is not small beside the number of steps.

    Raises:
      ValueError: as of :func:`split_r_hat`.
    """
    values = _checked("autocorrelation_time", orbits)
    deviations = values - values.mean(axis=1, keepdims=True)
    steps = values.shape[1]
    padded = scipy.fft.next_fast_len(2 * steps)
    covariances = scipy.fft.irfft(np.abs(scipy.fft.rfft(deviations, padded)) ** 2, padded)[:, :steps].mean(axis=0)
    if covariances[0] == 0:
        return float("nan")
    correlations = covariances[: steps - steps % 2] / covariances[0]
    pairs = correlations[::2] + correlations[1::2]
    last = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    return float(max(2 * pairs[:last].sum() - 1, 1 / steps))


def energy_test(first: ArrayLike, second: ArrayLike, permutations: int = 999, seed: int = 0) -> SameDistribution:
    """Test that two samples of a scalar, each of independent values, have the same distribution.

    Permutation test of the energy distance (Székely and Rizzo 2004; ``scipy.stats.energy_distance``), of standardised
    values. It compares, for instance, values of one orbit, far apart in time, with the states of other orbits.

    Raises:
      ValueError: a sample is empty, or has a value that is not finite.
    """
    samples = [np.asarray(sample, float).ravel() for sample in (first, second)]
    if not all(len(sample) and np.isfinite(sample).all() for sample in samples):
        raise ValueError("energy_test: a sample is empty or not finite")
    together = _rounded(np.concatenate(samples))
    spread = together.std()
    if spread == 0:
        return SameDistribution(0.0, 0.0, 1.0)
    standardised = (together - together.mean()) / spread
    result = scipy.stats.permutation_test(
        (standardised[: len(samples[0])], standardised[len(samples[0]) :]),
        scipy.stats.energy_distance,
        vectorized=False,
        n_resamples=permutations,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return SameDistribution(float(result.statistic), float(np.median(result.null_distribution)), float(result.pvalue))


def _checked(function: str, orbits: ArrayLike) -> Array:
    values = np.asarray(orbits, float)
    if values.ndim != 2 or values.shape[1] < 4:
        raise ValueError(f"{function}: orbits have shape {values.shape}; pass [orbits, steps], at least four steps")
    if not np.isfinite(values).all():
        raise ValueError(f"{function}: orbits have values that are not finite")
    return _rounded(values)


def _rounded(values: Array) -> Array:
    """Return the values in units of what counts as rounding, as whole numbers."""
    largest = np.abs(values).max()
    return np.asarray(np.round(values / largest / RESOLUTION)) if largest else values


def _half_moments(values: Array) -> tuple[Array, Array]:
    """Return means and variances of both halves, of normal scores and of folded ones, ``[2, 2 x orbits]`` each."""
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    scores = [_normal_scores(form) for form in (halves, np.abs(halves - np.median(halves)))]
    return np.array([s.mean(axis=1) for s in scores]), np.array([s.var(axis=1, ddof=1) for s in scores])


def _normal_scores(values: Array) -> Array:
    """Return the normal quantiles of the ranks among all values (Blom's)."""
    ranks = scipy.stats.rankdata(values).reshape(values.shape)
    return np.asarray(scipy.special.ndtri((ranks - 3 / 8) / (values.size + 1 / 4)))


def _r_hat(means: Array, variances: Array, steps: int) -> Array:
    """Return R-hat from the moments ``[forms, halves, ...]`` of halves of ``steps`` steps."""
    between, within = means.var(axis=1, ddof=1), variances.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt((steps - 1) / steps + between / within)
    rounding = np.finfo(float).eps
    return np.asarray(np.where(within > rounding, ratio, np.where(between > rounding, np.inf, 1.0)))
