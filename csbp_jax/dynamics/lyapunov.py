"""Lyapunov exponents by the tangent map."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from csbp_jax.dynamics.state import Step, follow, join, log, mask_of, select, strongly_typed


def lyapunov(
    step: Step,
    state: Any,
    batches: Iterable,
    n: int,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The ``n`` largest Lyapunov exponents along a trajectory, by the tangent map.

    With ``Q[0]`` random and orthonormal, ``Q[i+1] R[i+1] = DF^every Q[i]``: exponent j is the mean of
    ``log |R_jj| / every``. For a training step ``DF`` is the ``jvp`` through its gradient, exact but for the jumps at
    spike flips.

    Args:
      step: the map; jittable. The same function object is compiled once over calls.
      state: where to start.
      batches: one input of ``step`` for each step, e.g. ``[batch] * 300`` for a fixed batch. What does not fill a last
        chunk of ``every`` steps is not used.
      n: how many exponents; a step costs ``n`` tangents.
      every: steps between two QR decompositions: few enough that the directions stay apart.
      warmup: first steps, in which the directions align, and which are not counted.
      fed_back: pytree of bools like ``state``, True for the leaves that make up the map's state; by default all inexact
        ones.
      seed: of the first directions.

    Returns:
      ``(exponents [n], stderr [n], history [chunks, n])``: means, their standard errors (of the means of blocks, as
      growth is correlated in time), and the local exponents of each chunk.

    Raises:
      ValueError: no chunk is left to count, or ``n`` is not from 1 to the dimension of the state.

    >>> exponents, _, _ = lyapunov(lambda x, _: 4 * x * (1 - x), jnp.float32(0.3), [None] * 500, n=1)
    >>> abs(float(exponents[0]) - 0.693) < 0.05
    True
    """
    mask, state = mask_of(state, fed_back), strongly_typed(state)
    frame = directions(ravel_pytree(select(state, mask))[0].size, n, seed)
    return follow(functools.partial(step_tangents, step, mask), _orthonormal, (state, frame), batches, every, warmup)


def lyapunov_many(
    step: Step,
    states: Any,
    batches: Iterable,
    n: int = 1,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """:func:`lyapunov` of K runs at once, on the same batches; each leaf of ``states`` has a leading axis of runs.

    Returns:
      ``(exponents [K, n], stderr [K, n], history [chunks, K, n])``.
    """
    mask, states = mask_of(states, fed_back), strongly_typed(states)
    vectors = jax.vmap(lambda state: ravel_pytree(select(state, mask))[0])(states)
    frames = jnp.broadcast_to(directions(vectors.shape[1], n, seed), (*vectors.shape, n))
    push = functools.partial(_push_many, step, mask)
    return follow(push, _orthonormal_many, (states, frames), batches, every, warmup)


def directions(size, n, seed):
    """Random orthonormal directions ``[size, n]``."""
    if not 1 <= n <= size:
        raise ValueError(
            f"lyapunov: n is {n}, but must be from 1 to {size}, the dimension of the state that feeds back"
        )
    return jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (size, n), jnp.result_type(float)))[0]


def _pushed(step, mask, place, batch):
    state, frame = place
    x, _ = ravel_pytree(select(state, mask))

    def f(x):
        new = step(join(x, state, mask), batch)
        return ravel_pytree(select(new, mask))[0], new

    def push(direction):
        _, pushed, new = jax.jvp(f, (x,), (direction.astype(x.dtype),), has_aux=True)
        return pushed, new

    frame, new = jax.vmap(push, in_axes=1, out_axes=(1, None))(frame)
    return new, frame


step_tangents = jax.jit(_pushed, static_argnames=("step", "mask"))


@functools.partial(jax.jit, static_argnames=("step", "mask"))
def _push_many(step, mask, places, batch):
    return jax.vmap(functools.partial(_pushed, step, mask), (0, None))(places, batch)


@jax.jit
def _orthonormal(place):
    state, frame = place
    frame, triangle = jnp.linalg.qr(frame)
    return (state, frame), log(jnp.abs(jnp.diagonal(triangle)))


_orthonormal_many = jax.jit(jax.vmap(_orthonormal))
