"""Resizing of frames ``[B, T, H, W, C]`` to another height and width, on the device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Take row i from row floor(i H / H') of the old frame, and columns likewise: PyTorch's "nearest", used by NDA."""
    for axis, new in zip((2, 3), size, strict=True):
        x = jnp.take(x, jnp.arange(new) * x.shape[axis] // new, axis=axis)
    return x


def linear(x: jax.Array, size: tuple[int, int], antialias: bool) -> jax.Array:
    """Interpolate between the four nearest pixels, at any scale: PyTorch's "bilinear" with aligned centres.

    antialias: by a triangle as wide as a new pixel, if that is larger: PIL's "bilinear", used by TET.
    """
    return jax.image.resize(x, (*x.shape[:2], *size, x.shape[-1]), "linear", antialias=antialias)


METHODS: dict[str, Callable[[jax.Array, tuple[int, int]], jax.Array]] = {
    "nearest": nearest,
    "bilinear": functools.partial(linear, antialias=False),
    "antialias": functools.partial(linear, antialias=True),
}
