"""A knob of a map, turned so that the local exponent follows a path."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax.dynamics.lyapunov import directions, step_tangents
from csbp_jax.dynamics.state import Step, log, mask_of, select, strongly_typed


class ControlledRun(NamedTuple):
    """The last state; by what the knob was turned, and the local exponents (nats) that followed, both ``[steps]``."""

    state: Any
    factors: np.ndarray
    local: np.ndarray


def control_exponent(
    step: Step,
    state: Any,
    batches: Iterable,
    path: Sequence[float],
    turn: Callable[[Any, jax.Array], Any],
    *,
    gain: float = 0.02,
    limits: tuple[float, float] = (1e-3, 1e3),
    dynamical_leaves: Any = None,
    seed: int = 0,
) -> ControlledRun:
    """Steps during which a knob (chaos strength, a rate) is steered by the largest local exponent l that it causes.

    ``log f[i+1] = log f[i] + gain (path[i] - l[i])``, with ``f[0] = 1``. The sum of what is missing is in f, so over n
    steps the mean of l differs from that of the path by ``log(f[n]) / (gain n)``, as long as f touches no limit: it
    follows wherever the knob can take it, in the mean, chaotic or not. A limit that is touched says that it cannot.

    Args:
      step: the map; jittable. The same function objects are compiled once over calls.
      state: where to start.
      batches: one input of ``step`` for each step of the path.
      path: ``[steps]``, the exponents that are wanted, in nats a step.
      turn: ``turn(state, f)``, the state with its knob at f times where it was at the start. Jittable.
      gain: of the feedback. Local exponents scatter, and the knob by ``gain`` times that.
      limits: of f.
      dynamical_leaves: as :func:`lyapunov` has it; the knob is not part of it.
      seed: of the first direction.

    Raises:
      ValueError: there are fewer batches than steps of the path.

    >>> knob = lambda state, f: (state[0], f)
    >>> found = control_exponent(lambda s, _: (s[1] * s[0], s[1]), (jnp.float32(1), jnp.float32(1)), [None] * 500,
    ...                 [0.01] * 500, knob, dynamical_leaves=(True, False))
    >>> abs(float(found.factors[-1]) - 1.0101) < 1e-3  # its exponent is log f
    True
    """
    mask, state = mask_of(state, dynamical_leaves), strongly_typed(state)
    place = state, directions(ravel_pytree(select(state, mask))[0].size, 1, seed)
    factor, history = jnp.ones((), jnp.result_type(float)), []
    for wanted, batch in zip(path, batches, strict=False):
        turned = _turned(turn, place[0], factor), place[1]
        place, local = _aligned(step_tangents(step, mask, turned, batch))
        history.append((factor, local))
        factor = jnp.clip(factor * jnp.exp(gain * (wanted - local)), *limits)
    if len(history) < len(path):
        raise ValueError(f"control_exponent: {len(history)} batches, but the path has {len(path)} steps")
    factors, local = np.array(jax.device_get(history)).T
    return ControlledRun(place[0], factors, local)


@functools.partial(jax.jit, static_argnames="turn")
def _turned(turn, state, factor):
    return turn(state, factor)


@jax.jit
def _aligned(place):
    state, direction = place
    length = jnp.linalg.norm(direction)
    return (state, direction / length), log(length)
