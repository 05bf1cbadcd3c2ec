"""Which records are for validation, where a data set has no such part: the same for every seed and machine."""

import numpy as np

from csbp_jax.config import ConfigError


def stratified(y: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices ``(train, validation)``, each ascending, with ``round(share n_c)`` of the n_c records of each class c.

    At least one record of a class goes to validation and one stays, if it has two; those chosen are spread evenly over
    the class in the order of the records, so nothing is drawn.

    Args:
      y: labels [N].
      share: in (0, 0.5].

    Raises:
      ConfigError: no class has two records.
    """
    chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[(2 * np.arange(count) + 1) * len(members) // (2 * max(count, 1))]] = True
    if not chosen.any():
        raise ConfigError("data.validation: no class has two records, so none can be set aside for validation")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
