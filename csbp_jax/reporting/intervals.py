"""Means with their uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and the ends of its interval, None where there is but one value."""

    mean: float
    low: float | None
    high: float | None


def student(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and its interval by Student's t: ``mean +- t s / sqrt(n)``. It knows no ceiling of 100 %.

    Raises:
      ValueError: no value.
    """
    if len(values) == 0:
        raise ValueError("an interval needs a value")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)
