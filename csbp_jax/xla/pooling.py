"""Max pooling in forms that XLA compiles to fast code on each platform."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from csbp_jax.xla.memory import unfused
from csbp_jax.xla.platform import by_platform


def max_pool(x: jax.Array, size: int, stride: int, pad: int) -> jax.Array:
    """Compute the maximum over square windows of ``[B, T, H, W, C]``; see :func:`csbp_jax.models.layers.max_pool`."""

    def of_windows(x: jax.Array, index: DTypeLike) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf)
        height, width = ((n - size) // stride * stride + size for n in x.shape[2:4])
        return _max_of_windows(x[:, :, :height, :width], size, stride, index)

    def plain(x: jax.Array) -> jax.Array:  # XLA's own, forward and backward, moves fewer bytes on a TPU
        pads = ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0))
        sizes = (1, 1, size, size, 1), (1, 1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, *sizes, pads)

    return by_platform(
        x,
        cpu=functools.partial(of_windows, index=jnp.float32),  # XLA does not vectorise a selection of bytes there
        tpu=plain,
        default=functools.partial(of_windows, index=np.min_scalar_type(-(size**2))),  # the fewer bytes the faster
    )


# Of shifted arrays: XLA scatters the gradient of a window element by element, ten times slower on CPU. On a GPU, it
# adds in an order that differs from run to run, or sorts all elements before (docs/checks/bench/h100.md).
def _plain_max_of_windows(x: jax.Array, size: int, stride: int, index: DTypeLike) -> jax.Array:
    # Strict, unlike jnp.maximum, so that also the tangent is that of the first of equal elements.
    return functools.reduce(lambda most, other: jnp.where(other > most, other, most), _shifted(x, size, stride))


def _shifted(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """Return the first element of each window, ``[B, T, rows, columns, C]``, the second of each, and so on."""
    rows, columns = (n - size + 1 for n in x.shape[2:4])
    indices = itertools.product(range(size), repeat=2)
    return [x[:, :, i : i + rows : stride, j : j + columns : stride] for i, j in indices]


def _max_forward(x: jax.Array, size: int, stride: int, index: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Return the maxima and, as the residual, the index of the first of each in its window."""
    largest = _plain_max_of_windows(x, size, stride, index)
    first = jnp.full(largest.shape, size**2 - 1, index)
    for i, elements in reversed(list(enumerate(_shifted(x, size, stride)[:-1]))):
        first = jnp.where(elements == largest, first.dtype.type(i), first)
    return largest, unfused(first) if index == jnp.float32 else first


def _max_backward(size: int, stride: int, index: DTypeLike, first: jax.Array, bar: jax.Array) -> tuple[jax.Array]:
    """Give each element the cotangents of the windows whose first maximum it is, in one pass.

    The element in row ``stride (a + e) + r`` is in row ``stride e + r`` of window a, for e = 0, 1, ... as long as this
    is below ``size``; so for columns.
    """
    windows, reach = first.shape[2:4], -(-size // stride)
    rows, columns = (n + reach - 1 for n in windows)

    def spread(of_windows: jax.Array, e: int, f: int) -> jax.Array:
        """Move the windows by (e, f), and repeat each over the elements that begin there."""
        ends = ((0, 0), (0, 0), (e, reach - 1 - e), (f, reach - 1 - f), (0, 0))
        moved = jnp.pad(of_windows, ends)[:, :, :, None, :, None]
        repeated = jnp.broadcast_to(moved, (*moved.shape[:3], stride, columns, stride, moved.shape[-1]))
        return repeated.reshape(*moved.shape[:2], rows * stride, columns * stride, -1)

    def places(e: int, f: int) -> jax.Array:
        """The index of each element in the window that was moved there; -1 outside of it."""
        row = (stride * e + jnp.arange(rows * stride) % stride)[:, None, None]
        column = (stride * f + jnp.arange(columns * stride) % stride)[None, :, None]
        return jnp.where((row < size) & (column < size), size * row + column, -1).astype(first.dtype)[None, None]

    moves = itertools.product(range(reach), repeat=2)
    parts = [jnp.where(spread(first, e, f) == places(e, f), spread(bar, e, f), 0) for e, f in moves]
    height, width = ((n - 1) * stride + size for n in windows)
    return (functools.reduce(jnp.add, parts)[:, :, :height, :width],)


_max_of_windows = jax.custom_vjp(_plain_max_of_windows, nondiff_argnums=(1, 2, 3))
_max_of_windows.defvjp(_max_forward, _max_backward)
