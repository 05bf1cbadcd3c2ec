"""Feedback control of a parameter of a map, so that the local exponent follows a path."""

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
    """The last state, the factors of the knob and the local exponents (nats) that they caused, both ``[steps]``."""

    state: Any
    factors: np.ndarray
    local: np.ndarray


def control_exponent(
    step: Step,
    state: Any,
    batches: Iterable[Any],
    path: Sequence[float] | np.ndarray,
    turn: Callable[[Any, jax.Array], Any],
    *,
    gain: float = 0.02,
    limits: tuple[float, float] = (1e-3, 1e3),
    dynamical_leaves: Any = None,
    seed: int = 0,
) -> ControlledRun:
    """Run a map while a knob (chaos strength, a rate) is controlled by the largest local exponent l that it causes.

    ``log f[i+1] = log f[i] + gain (path[i] - l[i])``, with ``f[0] = 1``. This is integral control: over n steps the
    mean of l differs from that of the path by ``log(f[n]) / (gain n)``, as long as f reaches no limit. So the mean
    exponent follows the path, chaotic or not, wherever the knob can take it; where it cannot, f stays at a limit.

    Args:
      step: the map; jittable. A function object is compiled once over all calls.
      state: initial state.
      batches: an input of ``step`` for each step of the path.
      path: ``[steps]``, target exponents, in nats per step.
      turn: ``turn(state, f)``, the state with its knob at f times its initial value. Jittable.
      gain: of the feedback. Local exponents scatter, and log f by ``gain`` times as much.
      limits: lowest and highest f.
      dynamical_leaves: as in :func:`csbp_jax.dynamics.lyapunov`; the knob is not part of it.
      seed: of the initial direction.

    Raises:
      ValueError: there are fewer batches than steps of the path.

    >>> knob = lambda state, f: (state[0], f)
    >>> run = control_exponent(lambda s, _: (s[1] * s[0], s[1]), (jnp.float32(1), jnp.float32(1)), [None] * 500,
    ...                        [0.01] * 500, knob, dynamical_leaves=(True, False))
    >>> abs(float(run.factors[-1]) - 1.0101) < 1e-3  # the exponent of this map is log f
    True
    """
    mask, state = mask_of(state, dynamical_leaves), strongly_typed(state)
    carry = state, directions(ravel_pytree(select(state, mask))[0].size, 1, seed)
    factor, history = jnp.ones((), jnp.result_type(float)), []
    for target, batch in zip(path, batches, strict=False):
        turned = _turned(turn, carry[0], factor), carry[1]
        carry, local = _aligned(step_tangents(step, mask, turned, batch))
        history.append((factor, local))
        factor = jnp.clip(factor * jnp.exp(gain * (target - local)), *limits)
    if len(history) < len(path):
        raise ValueError(f"control_exponent: {len(history)} batches, but the path has {len(path)} steps")
    factors, local = np.array(jax.device_get(history)).T
    return ControlledRun(carry[0], factors, local)


@functools.partial(jax.jit, static_argnames="turn")
def _turned(turn: Callable[[Any, jax.Array], Any], state: Any, factor: jax.Array) -> Any:
    return turn(state, factor)


@jax.jit
def _aligned(carry: tuple[Any, jax.Array]) -> tuple[tuple[Any, jax.Array], jax.Array]:
    """Normalise the direction; returns its log growth too."""
    state, direction = carry
    length = jnp.linalg.norm(direction)
    return (state, direction / length), log(length)
