"""What runs still visit after a transient."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from csbp_jax.dynamics.state import Step, step_all, strongly_typed


def attractor_samples(
    step: Step, states: Any, batches: Iterable, readout: Callable[[Any], jax.Array], transient: int
) -> tuple[np.ndarray, Any]:
    """A bifurcation diagram: the values of a read-out after each step that follows the transient.

    Args:
      step: the map; jittable.
      states: of K runs, which differ in z, say (a leaf of the state: ``hparams``), or in the start, as attractors
        coexist; each leaf has a leading axis ``[K]``.
      batches: one input of ``step`` for each step, shared by the runs.
      readout: of one state, e.g. a weight.
      transient: steps that are not looked at.

    Returns:
      ``(values [steps - transient, K, ...], states)``, the states at the end, to measure exponents from.

    Raises:
      ValueError: no step is left after the transient.
    """
    # Not inside the step: a function made anew at each call would be compiled anew.
    states, look, values = strongly_typed(states), jax.jit(jax.vmap(readout)), []
    for done, batch in enumerate(batches, start=1):
        states = step_all(step, states, batch)
        if done > transient:
            values.append(look(states))
    if not values:
        raise ValueError("visited: no step is left after the transient; give more batches")
    return np.stack(jax.device_get(values)), states
