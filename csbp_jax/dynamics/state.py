"""States as vectors of their dynamical leaves, stepping of many runs, and statistics of growth rates."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

PyTree = Any
"""Any pytree of arrays; the state of a map."""

Step = Callable[[PyTree, Any], PyTree]
"""Map ``step(state, batch) -> state``; jittable."""

Mask = tuple[bool, ...]
"""True for each leaf of a state that is dynamical, in the order of ``jax.tree.leaves``."""

Statistics = tuple[jax.Array, jax.Array, jax.Array]
"""``(means, standard errors of the means, values of all chunks)``."""


class Options(TypedDict, total=False):
    """Keyword arguments that all exponents have in common; see ``dynamics.lyapunov``."""

    every: int
    warmup: int
    dynamical_leaves: PyTree
    seed: int


def mask_of(state: PyTree, dynamical_leaves: PyTree) -> Mask:
    """Return the hashable mask of a pytree of bools; None selects all inexact leaves of the state."""
    if dynamical_leaves is None:
        return tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state))
    return tuple(jax.tree.leaves(dynamical_leaves))


def strongly_typed(state: PyTree) -> PyTree:
    """Remove weak types, which the first step would turn into strong ones at the price of a second compilation."""
    return jax.tree.map(
        lambda leaf: leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, state
    )


def select(state: PyTree, mask: Mask) -> list[jax.Array]:
    """Return the dynamical leaves."""
    return [leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True) if chosen]


def join(x: jax.Array, state: PyTree, mask: Mask) -> PyTree:
    """Return ``state`` with its dynamical leaves taken from the vector ``x``."""
    values = iter(ravel_pytree(select(state, mask))[1](x))
    leaves = [next(values) if chosen else leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


@functools.partial(jax.jit, static_argnames="step")
def step_all(step: Step, states: PyTree, batch: Any) -> PyTree:
    """Step many runs on one batch; each leaf of ``states`` has a leading axis of runs."""
    return jax.vmap(lambda state: step(state, batch))(states)


def record(
    advance: Callable[[Any, Any], Any],
    read: Callable[[Any], tuple[Any, Any]],
    carry: Any,
    batches: Iterable[Any],
    every: int,
    warmup: int,
) -> list[Any]:
    """Iterate ``carry = advance(carry, batch)`` and collect a reading after every ``every`` steps past the warm-up.

    ``read(carry) -> (carry, reading)`` may also renormalise the carry, and is called during the warm-up too.
    """
    readings = []
    for done, batch in enumerate(batches, start=1):
        carry = advance(carry, batch)
        if done % every == 0:
            carry, reading = read(carry)
            if done > warmup:
                readings.append(reading)
    return readings


def log(x: jax.Array) -> jax.Array:
    """Compute log(x), clamped at the smallest normal number."""
    # Ignored: JAX declares no types for finfo.
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))  # type: ignore[no-untyped-call]


def rounding(vector: jax.Array) -> jax.Array:
    """Compute the distance of two vectors near ``vector`` below which their difference is rounding."""
    # Ignored: JAX declares no types for finfo.
    smallest: jax.Array = jnp.finfo(vector.dtype).eps * jnp.linalg.norm(vector)  # type: ignore[no-untyped-call]
    return smallest


def summary(growth: Sequence[ArrayLike], every: int = 1) -> Statistics:
    """Compute the statistics of the growth per step, from the growth over chunks of ``every`` steps each.

    Raises:
      ValueError: there are fewer than two chunks.
    """
    if len(growth) < 2:
        raise ValueError(
            f"{len(growth) or 'no'} chunk is left to count, and a standard error needs two: give at least "
            "warmup + 2 every batches"
        )
    rates = [chunk / every for chunk in growth]
    history = jnp.asarray(np.stack(jax.device_get(rates)))  # jnp.stack would compile one operand per chunk
    return history.mean(axis=0), standard_error(history), history


def standard_error(history: jax.Array) -> jax.Array:
    """Compute the standard error of the mean of a correlated series ``[chunks, ...]``, from about sqrt(chunks) blocks.

    Means of blocks that are not longer than the memory of the series are still correlated. As for a first-order
    autoregression, the variance of their mean is therefore taken ``(1 + r) / (1 - r)`` times as large, with r the
    correlation of neighbouring blocks, corrected for its bias (Kendall 1954). On AR(1) series the result is right to
    within about 20 %, and too large rather than too small.
    """
    blocks = max(2, int(len(history) ** 0.5))
    means = history[: len(history) // blocks * blocks].reshape(blocks, -1, *history.shape[1:]).mean(axis=1)
    deviations = means - means.mean(axis=0, keepdims=True)
    total = (deviations**2).sum(axis=0)
    r = (deviations[1:] * deviations[:-1]).sum(axis=0) / jnp.where(total > 0, total, 1.0)
    # Anticorrelated blocks get no correction.
    r = jnp.clip(r + (1 + 3 * r) / blocks, 0.0, 0.97)
    return means.std(axis=0, ddof=1) * ((1 + r) / (1 - r) / blocks) ** 0.5
