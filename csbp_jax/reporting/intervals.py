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
