"""Finite-size Lyapunov exponents: growth of differences of a given size between nearby runs."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

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
    rounding,
    select,
    step_all,
    strongly_typed,
    summary,
)

Readouts = Callable[[PyTree], dict[str, jax.Array]]
"""Function from a state to arrays by name, e.g. logits or spikes."""

Nearby = tuple[PyTree, jax.Array]
"""States of the trajectory and of the M runs near it, ``[1 + M, ...]``, and the runs' directions, ``[M, size]``."""


def finite_size(
    step: Step,
    state: PyTree,
    batches: Iterable[Any],
    deltas: ArrayLike,
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> Statistics:
    """Compute finite-size Lyapunov exponents: the growth rate of a difference of given size, jumps included.

    Near the trajectory run ``M`` others, the m-th at distance ``deltas[m]`` (Euclidean norm over the dynamical leaves):
    every ``every`` steps its distance d is measured and rescaled to delta along its direction. Exponent m is the mean
    of ``log(d / delta) / every``. As delta goes to 0 this tends to the largest tangent exponent, except for spike
    flips. A distance that contracts below rounding counts as the rounding, and the run is rescaled along its last
    direction. The rounding is the norm of the state's dynamical leaves times the precision, 1.2e-7 in float32 and
    2.2e-16 in float64. A delta that is no larger has no direction, and its exponent is NaN. On a GPU or TPU, JAX rounds
    the factors of float32 products more coarsely, unless the step has ``jax.default_matmul_precision("highest")``. The
    first directions are random in all dynamical leaves; exclude those that must keep a sign (Adam's second moments).

    Args:
      deltas: ``[M]`` distances, well above the rounding; e.g. ``10.0 ** jnp.arange(-10, 0)`` in float64.

    The other arguments are those of :func:`csbp_jax.dynamics.lyapunov.lyapunov`.

    Returns:
      ``(exponents [M], stderr [M], history [chunks, M])``.

    Raises:
      ValueError: fewer than two chunks are left to count.
    """
    mask, nearby, deltas = _start(state, deltas, dynamical_leaves, seed)
    growth = record(
        functools.partial(_advance, step_all, step),
        lambda nearby: _rescale(mask, nearby, deltas),
        nearby,
        batches,
        every,
        warmup,
    )
    return summary(growth, every)


def finite_size_many(
    step: Step,
    states: PyTree,
    batches: Iterable[Any],
    deltas: ArrayLike,
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> Statistics:
    """Compute :func:`finite_size` of K runs at once, on the same batches.

    Each leaf of ``states`` has a leading axis of runs, or a ValueError is raised. The other arguments and errors are
    those of :func:`finite_size`.

    Returns:
      ``(exponents [K, M], stderr [K, M], history [chunks, K, M])``.
    """
    check_runs("finite_size_many", states)
    mask = mask_of(states, dynamical_leaves)

    def start(state: PyTree) -> tuple[PyTree, jax.Array]:
        return _start(state, deltas, dynamical_leaves, seed)[1:]

    nearby, deltas = jax.vmap(start, out_axes=(0, None))(states)
    growth = record(
        functools.partial(_advance, _step_all_many, step),
        lambda nearby: _rescale_many(mask, nearby, deltas),
        nearby,
        batches,
        every,
        warmup,
    )
    return summary(growth, every)


class ReadoutExponents(NamedTuple):
    """Growth of the differences of a read-out between nearby runs.

    exponents, stderr: ``[M]``, in nats per step.
    history: ``[chunks, M]``, the local exponents.
    distances: ``[chunks, M]``, just before each rescaling.
    """

    exponents: jax.Array
    stderr: jax.Array
    history: jax.Array
    distances: jax.Array


def finite_size_readouts(
    step: Step,
    state: PyTree,
    batches: Iterable[Any],
    deltas: ArrayLike,
    readouts: Readouts,
    every: int = 1,
    warmup: int = 0,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> tuple[Statistics, dict[str, ReadoutExponents]]:
    """Compute :func:`finite_size` and the growth of differences of read-outs, e.g. the exponent in function space.

    With ``r`` the distance of a read-out, its growth is ``log(r just before a rescaling / r just after the last one) /
    every``. The change by the rescaling itself is left out, so nothing saturates. For a smooth read-out and a small
    delta the mean tends to the exponent of the state, unless the read-out does not depend on the direction that grows.
    A distance below the rounding of the read-out counts as the rounding. Where a read-out is equal in both
    runs at any counted step, as spikes and votes of spikes often are, its exponent is NaN: use its ``distances``.

    Args:
      readouts: function from a state to the read-outs; a squared distance of spikes (0 or 1) counts those that differ.
        The same function object is compiled once over calls.

    The other arguments, and the errors raised, are those of :func:`finite_size`.

    Returns:
      The result of :func:`finite_size`, and :class:`ReadoutExponents` for each read-out.
    """
    mask, nearby, deltas = _start(state, deltas, dynamical_leaves, seed)
    readings = record(
        lambda carry, batch: (_advance(step_all, step, carry[0], batch), carry[1]),
        lambda carry: _rescale_and_read(readouts, mask, carry, deltas),
        (nearby, _log_distances(*_distances(readouts, nearby[0]))),
        batches,
        every,
        warmup,
    )
    of_state = summary([growth for growth, _ in readings], every)
    exponents = {}
    for name in readings[0][1]:
        growth, distances = zip(*(by_name[name] for _, by_name in readings), strict=True)
        exponents[name] = ReadoutExponents(
            *summary(growth, every), distances=jnp.asarray(np.stack(jax.device_get(distances)))
        )
    return of_state, exponents


def separation(
    step: Step,
    state: PyTree,
    batches: Iterable[Any],
    deltas: ArrayLike,
    readouts: Readouts,
    every: int = 1,
    *,
    dynamical_leaves: PyTree = None,
    seed: int = 0,
) -> dict[str, jax.Array]:
    """Compute the distances of runs that start ``deltas`` away from a trajectory and are never rescaled.

    Args:
      readouts: function from a state to the arrays whose distances are taken; e.g. its parameters, its logits on a
        probe batch (whose growth is the exponent in function space), or spikes (0 or 1), whose squared distance counts
        those that differ.

    The other arguments are those of :func:`finite_size`.

    Returns:
      For each read-out its Euclidean distances ``[1 + chunks, M]``, before the first step and after each chunk.
    """
    _, (states, _), _ = _start(state, deltas, dynamical_leaves, seed)
    later = record(
        functools.partial(step_all, step),
        lambda states: (states, _distances(readouts, states)[0]),
        states,
        batches,
        every,
        warmup=0,
    )
    return jax.tree.map(lambda *values: jnp.stack(values), _distances(readouts, states)[0], *later)


def _start(state: PyTree, deltas: ArrayLike, dynamical_leaves: PyTree, seed: int) -> tuple[Mask, Nearby, jax.Array]:
    """Return the mask, the states and directions at the start, and ``deltas`` in the state's dtype."""
    mask, state = mask_of(state, dynamical_leaves), strongly_typed(state)
    x, _ = ravel_pytree(select(state, mask))
    deltas = jnp.atleast_1d(jnp.asarray(deltas, x.dtype))
    directions = jax.random.normal(jax.random.key(seed), (deltas.size, x.size), x.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)
    # The trajectory is member 0 of the same batch, so that all runs are computed, and rounded, in the same way.
    offsets = jnp.concatenate([jnp.zeros((1, x.size), x.dtype), deltas[:, None] * directions])
    return mask, (jax.vmap(lambda offset: join(x + offset, state, mask))(offsets), directions), deltas


def _advance(step_runs: Callable[[Step, PyTree, Any], PyTree], step: Step, nearby: Nearby, batch: Any) -> Nearby:
    states, directions = nearby
    return step_runs(step, states, batch), directions


@functools.partial(jax.jit, static_argnames="readouts")
def _distances(readouts: Readouts, states: PyTree) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Compute, for each read-out, its distances ``[M]`` from that of the trajectory, and its rounding."""
    values = jax.tree.map(_flat, jax.vmap(readouts)(states))
    distances = jax.tree.map(lambda flat: jnp.linalg.norm(flat[1:] - flat[:1], axis=1), values)
    return distances, jax.tree.map(lambda flat: rounding(flat[0]), values)


def _flat(values: jax.Array) -> jax.Array:
    """Return a read-out as vectors ``[1 + M, size]`` that can be subtracted."""
    flat = values.reshape(len(values), -1)
    return flat if jnp.issubdtype(flat.dtype, jnp.inexact) else flat.astype(jnp.result_type(float))


def _log_distances(distances: dict[str, jax.Array], smallest: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Compute the logarithms of distances, of which those below rounding count as the rounding; NaN for 0."""

    def log_distance(distance: jax.Array, least: jax.Array) -> jax.Array:
        return jnp.where(distance > 0, log(jnp.maximum(distance, least)), jnp.nan)

    return jax.tree.map(log_distance, distances, smallest)


@functools.partial(jax.jit, static_argnames=("readouts", "mask"))
def _rescale_and_read(
    readouts: Readouts, mask: Mask, carry: tuple[Nearby, dict[str, jax.Array]], deltas: jax.Array
) -> tuple[Any, Any]:
    """Rescale, and return the log growth of the state and, for each read-out, its log growth and its distances too.

    The carry holds the nearby runs and the log distances of the read-outs just after the last rescaling.
    """
    nearby, last = carry
    distances, smallest = _distances(readouts, nearby[0])
    growth = jax.tree.map(jnp.subtract, _log_distances(distances, smallest), last)
    nearby, growth_of_state = _rescale(mask, nearby, deltas)
    growth = jax.tree.map(lambda of_readout: jnp.where(jnp.isnan(growth_of_state), jnp.nan, of_readout), growth)
    by_name = {name: (growth[name], distances[name]) for name in distances}
    return (nearby, _log_distances(*_distances(readouts, nearby[0]))), (growth_of_state, by_name)


@functools.partial(jax.jit, static_argnames="step")
def _step_all_many(step: Step, states: PyTree, batch: Any) -> PyTree:
    return jax.vmap(jax.vmap(lambda state: step(state, batch)))(states)


@functools.partial(jax.jit, static_argnames="mask")
def _rescale(mask: Mask, nearby: Nearby, deltas: jax.Array) -> tuple[Nearby, jax.Array]:
    """Rescale the distances of the nearby runs to ``deltas``, and return their log growth ``[M]`` too.

    It is NaN for a delta that is within rounding.
    """
    states, directions = nearby
    points = jax.vmap(lambda state: ravel_pytree(select(state, mask))[0])(states)
    differences = points[1:] - points[:1]
    smallest = rounding(points[0])
    distances = jnp.linalg.norm(differences, axis=1)
    # Two runs that have met would never separate again, and a difference below rounding has no direction.
    separate = (distances > smallest)[:, None]
    directions = jnp.where(separate, differences / jnp.where(separate, distances[:, None], 1.0), directions)
    rescaled = points[:1] + deltas[:, None] * directions
    states = jax.vmap(lambda x, state: join(x, state, mask))(jnp.concatenate([points[:1], rescaled]), states)
    growth = jnp.where(deltas > smallest, log(jnp.maximum(distances, smallest) / deltas), jnp.nan)
    return (states, directions), growth


@functools.partial(jax.jit, static_argnames="mask")
def _rescale_many(mask: Mask, nearby: Nearby, deltas: jax.Array) -> tuple[Nearby, jax.Array]:
    return jax.vmap(lambda runs: _rescale(mask, runs, deltas))(nearby)
