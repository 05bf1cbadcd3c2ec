"""Series whose answer is known: of a map, and of linear noise."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

LENGTH = 1000
"""Values of a series."""

Array = NDArray[np.float64]


def iterate(step: Callable[[Any], Any], state: Any, transient: int, every: int = 1) -> Array:
    """Iterate a map of several states at once, and return their first component after a transient, ``[count, LENGTH]``.

    Args:
      step: the map.
      state: ``[components, count]``.
      transient: number of first steps that are left out.
      every: number of steps from one value to the next.
    """
    values = []
    for number in range(transient + LENGTH * every):
        state = step(state)
        if number >= transient and (number - transient) % every == 0:
            values.append(state[0])
    return np.array(values, float).T


def white(generator: np.random.Generator, count: int) -> Array:
    """Draw independent normal values, ``[count, LENGTH]``."""
    return generator.normal(size=(count, LENGTH))


def ar1(a: float, generator: np.random.Generator, count: int) -> Array:
    """Draw ``x' = a x + noise``, ``[count, LENGTH]``, of which the first 2000 values are left out."""
    noise = generator.normal(size=(count, 2000 + LENGTH))
    return np.asarray(signal.lfilter([1], [1, -a], noise)[:, -LENGTH:])
