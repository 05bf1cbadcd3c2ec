"""Frames ``[B, T, H, W, C]`` to another height and width, on the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Row i is row floor(i H / H') of the old frame, columns alike: PyTorch's "nearest", so NDA's recipe."""
    for axis, new in zip((2, 3), size, strict=True):
        x = jnp.take(x, jnp.arange(new) * x.shape[axis] // new, axis=axis)
    return x


def bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Between the four nearest pixels, however much the frame shrinks: PyTorch's "bilinear", centres aligned."""
    return _linear(x, size, antialias=False)


def antialias(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear, over a triangle as wide as the new pixel where the frame shrinks: PIL's "bilinear", so TET's recipe."""
    return _linear(x, size, antialias=True)


def _linear(x, size, antialias):
    return jax.image.resize(x, (*x.shape[:2], *size, x.shape[-1]), "linear", antialias=antialias)


METHODS: dict[str, Callable[[jax.Array, tuple[int, int]], jax.Array]] = {
    "nearest": nearest,
    "bilinear": bilinear,
    "antialias": antialias,
}
