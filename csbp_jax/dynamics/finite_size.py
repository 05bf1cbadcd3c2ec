"""Growth of differences of a given size, between nearby runs."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax.dynamics.state import (
    Step,
    follow,
    join,
    log,
    mask_of,
    recorded,
    select,
    step_all,
    strongly_typed,
    summary,
)


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
    push, back = functools.partial(_pushed, step_all, step), lambda place: _set_back(mask, place, deltas)
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


class ReadoutExponents(NamedTuple):
    """A read-out of nearby runs: how its differences grow (nats a step), ``exponents [M]`` with ``stderr [M]`` and
    ``history [chunks, M]``, and how large they are just before each setting back, ``distances [chunks, M]``."""

    exponents: jax.Array
    stderr: jax.Array
    history: jax.Array
    distances: jax.Array


def finite_size_readouts(
    step: Step,
    state: Any,
    batches: Iterable,
    deltas: jax.Array,
    readouts: Callable[[Any], dict[str, jax.Array]],
    every: int = 1,
    warmup: int = 0,
    *,
    fed_back: Any = None,
    seed: int = 0,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], dict[str, ReadoutExponents]]:
    """:func:`finite_size`, and beside it how differences of read-outs grow: of logits, the exponent in function space.

    With ``r`` the distance of a read-out, ``log(r just before a setting back / r just after the last one) / every``.
    What the setting back itself changes is left out, so nothing saturates. Of a smooth read-out and a small delta the
    mean tends to the exponent of the state, unless the read-out does not see the direction that grows. A distance below
    the rounding of the read-out counts as that; so of one that seldom differs (spikes) look at ``distances`` alone.

    Args:
      readouts: of a state, what is looked at; a squared distance of spikes counts those that differ. The same function
        object is compiled once over calls.

    The other arguments, and what is raised, are those of :func:`finite_size`.

    Returns:
      What :func:`finite_size` returns, and for each read-out what is :class:`Seen`.
    """
    mask, place, deltas = _start(state, deltas, fed_back, seed)
    push = functools.partial(_pushed, step_all, step)

    def read(place):
        return _set_back_seen(readouts, mask, place, deltas)

    start = place, _logs(*_apart(readouts, place[0]))
    history = recorded(lambda at, batch: (push(at[0], batch), at[1]), read, start, batches, every, warmup)
    own = summary([growth / every for growth, _ in history])
    seen = {}
    for name in history[0][1]:
        growths, distances = zip(*(told[name] for _, told in history), strict=True)
        exponents, stderr, local = summary([growth / every for growth in growths])
        seen[name] = ReadoutExponents(exponents, stderr, local, jnp.asarray(np.stack(jax.device_get(distances))))
    return own, seen


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
    distances = [_apart(readouts, states)[0]]
    for done, batch in enumerate(batches, start=1):
        states = step_all(step, states, batch)
        if done % every == 0:
            distances.append(_apart(readouts, states)[0])
    return jax.tree.map(lambda *values: jnp.stack(values), *distances)


def _start(state, deltas, fed_back, seed):
    """``(mask, (states, directions [M, size]), deltas)``: of the states the trajectory's first, then those nearby."""
    mask, state = mask_of(state, fed_back), strongly_typed(state)
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
    """For each read-out its distances ``[M]`` from the trajectory's, and its rounding."""
    values = jax.tree.map(lambda value: value.reshape(len(value), -1), jax.vmap(readouts)(states))
    distances = jax.tree.map(lambda flat: jnp.linalg.norm(flat[1:] - flat[:1], axis=1), values)
    return distances, jax.tree.map(lambda flat: jnp.finfo(flat.dtype).eps * jnp.linalg.norm(flat[0]), values)


def _logs(distances, rounding):
    return jax.tree.map(lambda far, least: log(jnp.maximum(far, least)), distances, rounding)


@functools.partial(jax.jit, static_argnames=("readouts", "mask"))
def _set_back_seen(readouts, mask, place, deltas):
    place, last = place
    distances, rounding = _apart(readouts, place[0])
    grown = jax.tree.map(jnp.subtract, _logs(distances, rounding), last)
    place, growth = _set_back(mask, place, deltas)
    told = {name: (grown[name], distances[name]) for name in distances}
    return (place, _logs(*_apart(readouts, place[0]))), (growth, told)


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
