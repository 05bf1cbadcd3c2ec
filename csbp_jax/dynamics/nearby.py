"""Growth of differences of a given size, between nearby runs."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from csbp_jax.dynamics.state import Step, follow, join, log, mask_of, push_all, select, strong


def finite_size(
    step: Step,
    state: Any,
    batches: Iterable,
    deltas: jax.Array,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finite-size Lyapunov exponents: how a difference of given size grows, jumps included.

    Beside the trajectory run ``M`` others, the m-th kept ``deltas[m]`` apart (Euclidean norm over the leaves that feed
    back): every ``every`` steps its distance d is read and set back to delta along its direction. Exponent m is the
    mean of ``log(d / delta) / every``. As delta goes to 0 this is the largest tangent exponent, but for flips. A
    distance that contracts to rounding counts as the rounding, and the run is set back along its last direction.
    The first directions are random in all leaves that feed back; leave out those that must keep a sign (Adam's second
    moments).

    Args:
      deltas: ``[M]`` distances, e.g. ``10.0 ** jnp.arange(-10, 0)``; below 1e-6 they need float64.

    The other arguments are those of :func:`lyapunov`.

    Returns:
      ``(exponents [M], stderr [M], history [chunks, M])``.

    Raises:
      ValueError: no chunk is left to count.
    """
    mask, place, deltas = _start(state, deltas, fed_back, seed)
    push, back = functools.partial(_pushed, push_all, step), lambda place: _set_back(mask, place, deltas)
    return follow(push, back, place, batches, every, warmup)


def finite_size_many(
    step: Step,
    states: Any,
    batches: Iterable,
    deltas: jax.Array,
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """:func:`finite_size` of K runs at once, on the same batches; each leaf of ``states`` has a leading axis of runs.

    Returns:
      ``(exponents [K, M], stderr [K, M], history [chunks, K, M])``.
    """
    mask = mask_of(states, fed_back)
    places, deltas = jax.vmap(lambda one: _start(one, deltas, fed_back, seed)[1:], out_axes=(0, None))(states)
    push, back = functools.partial(_pushed, _push_all_many, step), lambda places: _set_back_many(mask, places, deltas)
    return follow(push, back, places, batches, every, warmup)


def separation(
    step: Step,
    state: Any,
    batches: Iterable,
    deltas: jax.Array,
    readouts: Callable[[Any], dict[str, jax.Array]],
    every: int = 1,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> dict[str, jax.Array]:
    """How far runs part that start ``deltas`` apart and are never set back, along a real, annealed run for instance.

    Args:
      readouts: of a state, what distances are taken of; e.g. its parameters, its logits on a probe batch (whose growth
        is the exponent in function space), or spikes, where a squared distance counts those that differ.

    The other arguments are those of :func:`finite_size`.

    Returns:
      For each read-out its Euclidean distances ``[1 + chunks, M]``, before the first step and after each chunk.
    """
    _, (states, _), _ = _start(state, deltas, fed_back, seed)
    distances = [_apart(readouts, states)]
    for done, batch in enumerate(batches, start=1):
        states = push_all(step, states, batch)
        if done % every == 0:
            distances.append(_apart(readouts, states))
    return jax.tree.map(lambda *values: jnp.stack(values), *distances)


def _start(state, deltas, fed_back, seed):
    """``(mask, (states, directions [M, size]), deltas)``: of the states the trajectory's first, then those nearby."""
    mask, state = mask_of(state, fed_back), strong(state)
    x, _ = ravel_pytree(select(state, mask))
    deltas = jnp.asarray(deltas, x.dtype)
    directions = jax.random.normal(jax.random.key(seed), (deltas.size, x.size), x.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    # The trajectory is member 0 of the same batch, so that all are computed, and rounded, alike.
    offsets = jnp.concatenate([jnp.zeros((1, x.size), x.dtype), deltas[:, None] * directions])
    return mask, (jax.vmap(lambda offset: join(x + offset, state, mask))(offsets), directions), deltas


def _pushed(push, step, place, batch):
    states, directions = place
    return push(step, states, batch), directions


@functools.partial(jax.jit, static_argnames="readouts")
def _apart(readouts, states):
    def distance(values):
        flat = values.reshape(len(values), -1)
        return jnp.linalg.norm(flat[1:] - flat[:1], axis=1)

    return jax.tree.map(distance, jax.vmap(readouts)(states))


@functools.partial(jax.jit, static_argnames="step")
def _push_all_many(step, states, batch):
    return jax.vmap(jax.vmap(lambda state: step(state, batch)))(states)


@functools.partial(jax.jit, static_argnames="mask")
def _set_back(mask, place, deltas):
    states, directions = place
    points = jax.vmap(lambda state: ravel_pytree(select(state, mask))[0])(states)
    differences = points[1:] - points[:1]
    rounding = jnp.finfo(points.dtype).eps * jnp.linalg.norm(points[0])
    distances = jnp.linalg.norm(differences, axis=1)
    # Two runs that have met would never part again, and what is left of a difference below rounding has no direction.
    apart = (distances > rounding)[:, None]
    directions = jnp.where(apart, differences / jnp.where(apart, distances[:, None], 1.0), directions)
    back = points[:1] + deltas[:, None] * directions
    states = jax.vmap(lambda x, state: join(x, state, mask))(jnp.concatenate([points[:1], back]), states)
    return (states, directions), log(jnp.maximum(distances, rounding) / deltas)


@functools.partial(jax.jit, static_argnames="mask")
def _set_back_many(mask, places, deltas):
    return jax.vmap(lambda one: _set_back(mask, one, deltas))(places)
