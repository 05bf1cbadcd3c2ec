"""Lyapunov exponents by the tangent map."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from csbp_jax.dynamics.state import (
    Mask,
    PyTree,
    Statistics,
    Step,
    check_runs,
    join,
    log,
    mask_of,
    record,
    select,
    strongly_typed,
    summary,
)

StateAndFrame = tuple[PyTree, jax.Array]
"""A state and its frame of ``n`` tangent directions, ``[size, n]``; for several runs, with a leading axis of runs."""


def lyapunov(
    step: Step,
    state: PyTree,
    batches: Iterable[Any],
    n: int = 1,
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> Statistics:
    """Compute the ``n`` largest Lyapunov exponents along a trajectory, by the tangent map.

    With ``Q[0]`` random and orthonormal, ``Q[i+1] R[i+1] = DF^every Q[i]``: exponent j is the mean of
    ``log |R_jj| / every``. For a training step ``DF`` is the ``jvp`` through its gradient, exact except for the jumps
    at spike flips.

    Args:
      step: the map; jittable. The same function object is compiled once over calls.
      state: initial state.
      batches: one input of ``step`` per step, e.g. ``[batch] * 300`` for a fixed batch. Steps that do not fill a last
        chunk of ``every`` are not counted.
      n: number of exponents; a step costs ``n`` tangents.
      every: steps between two QR decompositions: few enough that the directions stay linearly independent, and none
        vanishes. A growth over these steps below 1.2e-38 in float32, or 2.2e-308 in float64, counts as that number,
        also of a direction that the map sends to 0, whose exponent is minus infinity.
      warmup: number of initial steps that are not counted, while the directions align.
      dynamical_leaves: pytree of bools like ``state``, True for the leaves that make up the map's state; by default all
        leaves of an inexact dtype.
      seed: random seed of the initial directions.

    Returns:
      ``(exponents [n], stderr [n], history [chunks, n])``: means, their standard errors (from the means of blocks, as
      growth is correlated in time), and the local exponents of each chunk, in nats per step.

    Raises:
      ValueError: fewer than two chunks are left to count, or ``n`` is not from 1 to the dimension of the state.
      TypeError: ``batches`` is a number.

    >>> measured = lyapunov(lambda x, _: 4 * x * (1 - x), jnp.float32(0.3), [None] * 500)
    >>> abs(float(measured.exponents[0]) - 0.693) < 0.05
    True
    """
    mask, state = mask_of(state, dynamical_leaves), strongly_typed(state)
    frame = directions(ravel_pytree(select(state, mask))[0].size, n, seed)
    advance = functools.partial(step_tangents, step, mask)
    return summary(record(advance, _orthonormalise, (state, frame), batches, every, warmup), every)


def lyapunov_many(
    step: Step,
    states: PyTree,
    batches: Iterable[Any],
    n: int = 1,
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> Statistics:
    """Compute :func:`lyapunov` of K runs at once, on the same batches.

    Each leaf of ``states`` has a leading axis of runs, or a ValueError is raised. The other arguments and errors are
    those of :func:`lyapunov`.

    Returns:
      ``(exponents [K, n], stderr [K, n], history [chunks, K, n])``.
    """
    check_runs("lyapunov_many", states)
    mask, states = mask_of(states, dynamical_leaves), strongly_typed(states)
    vectors = jax.vmap(lambda state: ravel_pytree(select(state, mask))[0])(states)
    frames = jnp.broadcast_to(directions(vectors.shape[1], n, seed), (*vectors.shape, n))
    advance = functools.partial(_step_tangents_many, step, mask)
    return summary(record(advance, _orthonormalise_many, (states, frames), batches, every, warmup), every)


def directions(size: int, n: int, seed: int) -> jax.Array:
    """Draw random orthonormal directions ``[size, n]``."""
    if not 1 <= n <= size:
        raise ValueError(f"lyapunov: n is {n}, but must be from 1 to {size}, the dimension of the dynamical leaves")
    return jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (size, n), jnp.result_type(float)))[0]


def _step_tangents(step: Step, mask: Mask, carry: StateAndFrame, batch: Any) -> StateAndFrame:
    state, frame = carry
    x, _ = ravel_pytree(select(state, mask))

    def f(x: jax.Array) -> tuple[jax.Array, PyTree]:
        stepped = step(join(x, state, mask), batch)
        return ravel_pytree(select(stepped, mask))[0], stepped

    def tangent(direction: jax.Array) -> tuple[jax.Array, PyTree]:
        _, image, stepped = jax.jvp(f, (x,), (direction.astype(x.dtype),), has_aux=True)
        return image, stepped

    frame, stepped = jax.vmap(tangent, in_axes=1, out_axes=(1, None))(frame)
    return stepped, frame


step_tangents = jax.jit(_step_tangents, static_argnames=("step", "mask"))
"""``step_tangents(step, mask, (state, frame), batch)``: advance a state by a step, and its frame by the tangent map."""


@functools.partial(jax.jit, static_argnames=("step", "mask"))
def _step_tangents_many(step: Step, mask: Mask, carry: StateAndFrame, batch: Any) -> StateAndFrame:
    return jax.vmap(functools.partial(_step_tangents, step, mask), (0, None))(carry, batch)


@jax.jit
def _orthonormalise(carry: StateAndFrame) -> tuple[StateAndFrame, jax.Array]:
    """Orthonormalise the frame, and also return the logarithm of the growth along each direction."""
    state, frame = carry
    frame, triangle = jnp.linalg.qr(frame)
    return (state, frame), log(jnp.abs(jnp.diagonal(triangle)))


_orthonormalise_many = jax.jit(jax.vmap(_orthonormalise))
