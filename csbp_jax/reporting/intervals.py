"""Means with their uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, None if there is only one value."""

    mean: float
    low: float | None
    high: float | None


def student(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Compute a mean with Student's t interval, ``mean +- t s / sqrt(n)`` (not bounded at 100 %).

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


def wilson(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the ends of Wilson's score interval of a share, which lie within [0, 1].

    >>> wilson(10, 10)
    (0.7224..., 1.0)

    Raises:
      ValueError: ``count`` is 0, or less than ``successes``.
    """
    low, high = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return float(low), float(high)
