"""Intervals of means, and tests of paired differences."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special, stats

Verdict = Literal["equal", "better", "worse", "not decided"]

MIN_PAIRS, MIN_EQUAL_PAIRS = 3, 6
"""Fewest pairs that :func:`verdict` decides on, and fewest if all of their differences are equal."""


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, None if there is only one value."""

    mean: float
    low: float | None
    high: float | None


def student(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Compute a mean with Student's t interval, ``mean +- t s / sqrt(n)``.

    Raises:
      ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Compute the ends of Wilson's 95 % score interval of a share, which lie within [0, 1].

    >>> wilson(10, 10)
    (0.7224..., 1.0)

    Raises:
      ValueError: ``count`` is 0, or less than ``successes``.
    """
    low, high = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def student_of_shares(shares: Sequence[float]) -> Interval:
    """Compute the mean of shares, such as accuracies, with a 95 % interval that stays in [0, 1].

    It is Student's t interval on the logit scale, ``expit(logit(mean) +- t s / (sqrt(n) mean (1 - mean)))``: close to
    :func:`student` where that is far from 0 and 1, and asymmetric elsewhere. Without spread, as where all shares are 1,
    it has no width.

    Raises:
      ValueError: there are no shares, or one is outside [0, 1].
    """
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError("shares are in [0, 1]")
    mean, low, high = student(shares)
    if low is None or high is None or low == high:
        return Interval(mean, low, high)
    half = (high - mean) / (mean * (1 - mean))
    low, high = (float(special.expit(special.logit(mean) + side * half)) for side in (-1, 1))
    return Interval(mean, low, high)


def signed_rank(differences: Sequence[float]) -> float:
    """Compute the two-sided p of Wilcoxon's signed-rank test; 1 if all differences are 0.

    Differences of 0 are left out. p of up to 13 others is exact, and cannot be below 0.05 if they are fewer than six.

    Raises:
      ValueError: there are no differences.
    """
    if len(differences) == 0:
        raise ValueError("a test needs at least one difference")
    # Differences of accuracies that are equal in theory differ by rounding, and would not count as ties.
    rounded = np.round(differences, 9)
    # SciPy leaves zeros out too, but counts them where it decides whether there are few enough for an exact p.
    others = rounded[rounded != 0]
    return float(stats.wilcoxon(others).pvalue) if len(others) else 1.0


def tost(differences: Sequence[float], margin: float) -> float:
    """Compute p of equivalence within a margin, by two one-sided t tests (Schuirmann 1987).

    Small if the mean difference is shown to be both above ``-margin`` and below ``margin``: ``p < 0.05`` exactly where
    the 90 % interval of :func:`student` lies between them.

    Raises:
      ValueError: there are fewer than two differences, or the margin is not positive.
    """
    if len(differences) < 2 or not margin > 0:
        raise ValueError("a test of equivalence needs at least two differences and a positive margin")
    distance, error = margin - abs(float(np.mean(differences))), float(stats.sem(differences))
    # Without spread, the mean is known.
    return float(stats.t.sf(distance / error, len(differences) - 1)) if error else float(distance <= 0)


def verdict(differences: Sequence[float], margin: float) -> Verdict:
    """Decide between equal, better and worse, each at a level of 5 %.

    equal: the 90 % interval lies within the margin (:func:`tost`), even if it excludes 0. better, worse: otherwise, the
    95 % interval excludes 0. not decided: neither, or there are fewer than :data:`MIN_PAIRS` differences, or fewer than
    :data:`MIN_EQUAL_PAIRS` that are all equal.

    Raises:
      ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError("a margin is positive")
    if len(differences) < MIN_PAIRS:
        return "not decided"
    # Equal differences have no spread, but another pair may differ: a value that 60 % of all pairs have comes three
    # times in a row with p = 0.22, and six times with p = 0.047.
    if len(differences) < MIN_EQUAL_PAIRS and not np.ptp(np.round(differences, 9)):
        return "not decided"
    if tost(differences, margin) < 0.05:
        return "equal"
    _, low, high = student(differences)
    if low is not None and low > 0:
        return "better"
    return "worse" if high is not None and high < 0 else "not decided"
