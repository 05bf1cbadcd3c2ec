"""Checks of the arguments of neurons, which name the neuron and the argument. Ranges of numbers: in each neuron."""

from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

AtThreshold = Literal["silent", "fire"]

State = TypeVar("State", bound=Any)
"""A named tuple of arrays."""


def sequence(neuron: str, x: jax.Array) -> tuple[jax.Array, tuple[int, ...], DTypeLike]:
    """Return ``x [B, T, ...]``, its shape without time, and the dtype of membranes.

    Raises:
      ValueError: x has no time step.
      TypeError: x does not have a floating dtype.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{neuron}: x is {x.dtype}, but must be floating; cast it, e.g. x.astype(jnp.float32)")
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"{neuron}: x has shape {x.shape}, but must be [B, T, ...] with T >= 1 (time is axis 1)")
    return x, (x.shape[0], *x.shape[2:]), jnp.promote_types(x.dtype, jnp.float32)


def expand(neuron: str, name: str, value: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Bring a value to a dtype, and to the rank of ``shape``, against which it must broadcast from the right.

    Raises:
      ValueError: it does not broadcast.
    """
    value = jnp.asarray(value, dtype)
    sizes = zip(reversed(value.shape), reversed(shape), strict=False)
    if value.ndim > len(shape) or any(n not in (1, size) for n, size in sizes):
        raise ValueError(f"{neuron}: {name} of shape {value.shape} does not broadcast to {shape}, x without time")
    return lax.expand_dims(value, range(len(shape) - value.ndim))


def states(neuron: str, kind: type[State], state: State | None, shape: tuple[int, ...], dtype: DTypeLike) -> State:
    """Return the states as a named tuple of arrays of a shape: zeros without a state.

    Raises:
      TypeError: the state is of another kind.
      ValueError: one of them does not broadcast.
    """
    values: Any = [0] * len(kind._fields) if state is None else state
    if state is not None and not isinstance(state, kind):
        raise TypeError(f"{neuron}: state is a {type(state).__name__}, but must be the {kind.__name__} of another call")
    named = zip(kind._fields, values, strict=True)
    return kind(*(jnp.broadcast_to(expand(neuron, name, value, shape, dtype), shape) for name, value in named))


def one_of(neuron: str, name: str, value: str, allowed: Any) -> None:
    """Raise a ValueError if a value is none of those of a Literal."""
    if value not in get_args(allowed):
        raise ValueError(f"{neuron}: {name} is {value!r}, but must be one of {', '.join(get_args(allowed))}")


def firing(neuron: str, spike: Any, at_threshold: AtThreshold) -> None:
    """Check how a neuron fires.

    Raises:
      TypeError: the spike is a function or a name: a surrogate is a pytree, since it may be traced.
      ValueError: ``at_threshold`` is unknown.
    """
    if jax.tree_util.all_leaves([spike]):
        raise TypeError(f"{neuron}: spike is {spike!r}, but must be a Surrogate, such as surrogate.triangle()")
    one_of(neuron, "at_threshold", at_threshold, AtThreshold)
