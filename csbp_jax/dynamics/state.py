"""States as vectors of their dynamical leaves, stepping of many runs, and statistics of growth rates."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from csbp_jax import ranges
from csbp_jax.dynamics.standard_error import standard_error

PyTree = Any
"""Any pytree of arrays or numbers; the state of a map."""

Step = Callable[[PyTree, Any], PyTree]
"""Map ``step(state, batch) -> state``; jittable."""

Mask = tuple[bool, ...]
"""True for each leaf of a state that is dynamical, in the order of ``jax.tree.leaves``."""


class Statistics(NamedTuple):
    """Exponents in nats per step.

    exponents: means over chunks. stderr: their standard errors. history: the values of all chunks, ``[chunks, ...]``.
    """

    exponents: jax.Array
    stderr: jax.Array
    history: jax.Array

    def __repr__(self) -> str:
        values = zip(np.ravel(self.exponents)[:_SHOWN], np.ravel(self.stderr), strict=False)
        more = f", ... ({np.size(self.exponents)})" if np.size(self.exponents) > _SHOWN else ""
        shown = ", ".join(f"{value:.2g} ± {error:.1g}" for value, error in values)
        return f"{shown}{more} nats per step, over {len(self.history)} chunks"


_SHOWN = 8
"""Most exponents in a text."""


def mask_of(state: PyTree, dynamical_leaves: PyTree) -> Mask:
    """Return the hashable mask of a pytree of bools; None selects all inexact leaves of the state."""
    if dynamical_leaves is None:
        dtypes = (getattr(leaf, "dtype", type(leaf)) for leaf in jax.tree.leaves(state))
        return tuple(jnp.issubdtype(dtype, jnp.inexact) for dtype in dtypes)
    return tuple(jax.tree.leaves(dynamical_leaves))


def strongly_typed(state: PyTree) -> PyTree:
    """Remove weak types, which the first step would turn into strong ones at the price of a second compilation.

    Numbers become arrays.
    """

    def strong(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return jnp.asarray(leaf, jnp.result_type(leaf))
        return leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    return jax.tree.map(strong, state)


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

    ``read(carry) -> (carry, reading)`` may also renormalise the carry, and is called during the warm-up too. Readings
    are of chunks of ``every`` steps; a chunk that begins in the warm-up is not counted.

    Raises:
      ValueError: ``every`` is not a positive whole number.
      TypeError: ``batches`` has no inputs.
    """
    ranges.require("record", ranges.WHOLE_FROM_1, every=every)
    readings = []
    for done, batch in enumerate(inputs(batches), start=1):
        carry = advance(carry, batch)
        if done % every == 0:
            carry, reading = read(carry)
            if done - every >= warmup:
                readings.append(reading)
    return readings


def inputs(batches: Iterable[Any]) -> Iterable[Any]:
    """Return the inputs of the steps.

    Raises:
      TypeError: they are a number, say that of the steps.
    """
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: is {batches!r}, but must have an input for each step, such as [None] * 5000")
    return batches


def check_runs(function: str, states: PyTree) -> None:
    """Check that the leaves of the states of K runs have a leading axis ``[K]``.

    Raises:
      ValueError: they do not.
    """
    shapes: list[tuple[int, ...]] = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(states)]
    if not all(shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"{function}: every leaf of states needs a leading axis of runs, of one size, but the shapes are "
            f"{', '.join(map(str, shapes))}; stack the states of the runs, or measure one by lyapunov or finite_size"
        )


def log(x: jax.Array) -> jax.Array:
    """Compute log(x), clamped at the smallest normal number."""
    # Ignored: JAX declares no types for finfo.
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))  # type: ignore[no-untyped-call]


def rounding(vector: jax.Array) -> jax.Array:
    """Compute the distance of two vectors near ``vector`` below which their difference is rounding."""
    # Ignored: JAX declares no types for finfo.
    return jnp.finfo(vector.dtype).eps * jnp.linalg.norm(vector)  # type: ignore[no-untyped-call]


def summary(growth: Sequence[ArrayLike], every: int = 1) -> Statistics:
    """Compute the statistics of the growth per step, from the growth over chunks of ``every`` steps each.

    Raises:
      ValueError: there are fewer than two chunks.
    """
    if len(growth) < 2:
        raise ValueError(
            f"{len(growth) or 'no'} chunk is left to count, and a standard error needs two: give at least "
            "warmup (rounded up to a multiple of every) + 2 every batches"
        )
    rates = [chunk / every for chunk in growth]
    history = jnp.asarray(np.stack(jax.device_get(rates)))  # jnp.stack would compile one operand per chunk
    return Statistics(history.mean(axis=0), jnp.asarray(standard_error(history), history.dtype), history)
