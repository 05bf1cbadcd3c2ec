"""Bifurcation diagrams: samples of the attractors of many runs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax.dynamics.state import PyTree, Step, inputs, step_all, strongly_typed


def attractor_samples(
    step: Step,
    states: PyTree,
    batches: Iterable[Any],
    readout: Callable[[PyTree], jax.Array],
    transient: int,
) -> tuple[NDArray[Any], PyTree]:
    """Sample a read-out of K runs in every step after a transient, for a bifurcation diagram.

    Args:
      step: the map; jittable.
      states: initial states of K runs that differ, e.g., in z (a leaf of the state: ``hparams``) or, as attractors may
        coexist, in the start; each leaf has a leading axis ``[K]``.
      batches: one input of ``step`` per step, shared by the runs.
      readout: function of one state, e.g. a weight.
      transient: number of first steps that are not sampled.

    Returns:
      ``(values [steps - transient, K, ...], states)``, the states at the end, e.g. to measure exponents from.

    Raises:
      ValueError: no step is left after the transient.
      TypeError: ``batches`` is a number.
    """
    # Compiled separately from the step: a composed function would be a new object, and so compiled, in every call.
    states, sample, values = strongly_typed(states), jax.jit(jax.vmap(readout)), []
    for done, batch in enumerate(inputs(batches), start=1):
        states = step_all(step, states, batch)
        if done > transient:
            values.append(sample(states))
    if not values:
        raise ValueError("attractor_samples: no step is left after the transient; pass more batches")
    return np.stack(jax.device_get(values)), states
