"""Validation splits of data sets that lack them: the same for every seed and machine."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, Loss

Indices = NDArray[np.intp]


def stratified(y: NDArray[Any], fraction: float) -> tuple[Indices, Indices]:
    """Split records into ``(train, validation)`` indices, each ascending, by the same fraction of every class.

    Of the n_c records of class c, ``round(fraction n_c)`` are for validation: at least one, and at most all but one.
    They are evenly spaced within the class, in the order of the records, so nothing is random.

    Args:
      y: labels ``[N]``.
      fraction: in (0, 0.5].

    Raises:
      ConfigError: no class has two records, nor is there a second one where targets are no classes.
    """
    chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[(2 * np.arange(count) + 1) * len(members) // (2 * max(count, 1))]] = True
    if not chosen.any():
        raise ConfigError(
            "data.validation: no record can be used for validation; give two or more, of classes two of one of them"
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def divided(y: Any, fraction: float, loss: Loss) -> tuple[Indices, Indices]:
    """Split records as :func:`stratified`, by their classes; those whose targets are none as if of one class."""
    by_class = (loss.task, loss.per) == ("class", "example")
    return stratified(y if by_class else np.zeros(len(y)), fraction)
