"""Static tensors, whose time axis has length 1, repeated over time: direct coding."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def repeat_over_time(h: jax.Array, time_steps: int, dtype: DTypeLike | None = None) -> jax.Array:
    """Repeat a static tensor (T = 1) over ``time_steps`` (direct coding), and cast it, or any other, to ``dtype``.

    None leaves the dtype as it is.
    """
    dtype = h.dtype if dtype is None else dtype
    return _repeat(h, time_steps, dtype) if h.shape[1] == 1 else h.astype(dtype)


def _broadcast(h: jax.Array, time_steps: int, dtype: DTypeLike) -> jax.Array:
    return jnp.broadcast_to(h.astype(dtype), (h.shape[0], time_steps, *h.shape[2:]))


# The gradient of a broadcast is a sum over an array of all time steps: XLA writes that array first, in float32, and on
# CPU adds up its rows ten times slower than it could read them. A sum of rows becomes a part of what makes them, such
# as the neuron's reverse pass.
def _sum_of_rows(time_steps: int, dtype: DTypeLike, like: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    rows = (cotangent[:, t : t + 1].astype(like.dtype) for t in range(time_steps))
    return (functools.reduce(jnp.add, rows),)


_repeat = jax.custom_vjp(_broadcast, nondiff_argnums=(1, 2))
_repeat.defvjp(
    lambda h, time_steps, dtype: (_broadcast(h, time_steps, dtype), jnp.zeros((), h.dtype)),
    _sum_of_rows,
)
