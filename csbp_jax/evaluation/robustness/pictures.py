"""Corruptions of one still picture ``x [1, H, W, C]``, brightness in [0, 1] before normalisation, as pure functions.

A corruption is called as ``corruption(key, x, severity)``, and its result is in [0, 1] too. Severities may be traced.
Noise, blur and contrast follow the idea of Hendrycks & Dietterich (ICLR 2019, arXiv:1903.12261), with severities of
our own.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

BLUR_RADIUS = 6
"""Pixels at which the kernel of :func:`blur` is cut off: 4 standard deviations at its largest severity."""

_NEIGHBOURS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0))


def noise(key: jax.Array, x: jax.Array, deviation: ArrayLike) -> jax.Array:
    """Add Gaussian noise: ``clip(x + deviation n, 0, 1)``, n standard normal for each pixel and channel."""
    return jnp.clip(x + deviation * jax.random.normal(key, x.shape, x.dtype), 0, 1)


def blur(key: jax.Array, x: jax.Array, deviation: ArrayLike) -> jax.Array:
    """Convolve with a Gaussian whose standard deviation is ``deviation`` pixels; pixels of the edge continue outside.

    Exact for deviations that :data:`BLUR_RADIUS` covers. The key has no effect.
    """
    rows, columns = (_blur_matrix(length, deviation, x.dtype) for length in x.shape[1:3])
    return jnp.einsum("ij,tjkc,lk->tilc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _blur_matrix(length: int, deviation: ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """Return ``[length, length]``: the kernel of each output pixel, with what it has outside moved to the edge."""
    offsets = jnp.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel = jax.nn.softmax(-(offsets.astype(dtype) ** 2) / (2 * jnp.asarray(deviation, dtype) ** 2))
    sources = jnp.clip(jnp.arange(length)[:, None] + offsets[None], 0, length - 1)
    return jnp.einsum("idj,d->ij", jax.nn.one_hot(sources, length, dtype=dtype), kernel)


def shift(key: jax.Array, x: jax.Array, pixels: ArrayLike) -> jax.Array:
    """Move by whole ``pixels`` towards one of the eight neighbours, equally likely; the edge is repeated behind."""
    down, right = jnp.array(_NEIGHBOURS)[jax.random.randint(key, (), 0, len(_NEIGHBOURS))]
    pixels = jnp.asarray(pixels).astype(jnp.int32)
    for axis, step in ((1, down), (2, right)):
        sources = jnp.clip(jnp.arange(x.shape[axis]) - step * pixels, 0, x.shape[axis] - 1)
        x = jnp.take(x, sources, axis=axis)
    return x


def contrast(key: jax.Array, x: jax.Array, remaining: ArrayLike) -> jax.Array:
    """Reduce contrast: ``m + remaining (x - m)``, m the mean of all pixels and channels. The key has no effect."""
    mean = x.mean()
    return mean + jnp.asarray(remaining, x.dtype) * (x - mean)


def occlusion(key: jax.Array, x: jax.Array, side: ArrayLike) -> jax.Array:
    """Cover a square, at a random position within the picture, with grey (brightness 1/2).

    side: of the square, as a fraction of the shorter side of the picture; rounded to whole pixels.
    """
    pixels = jnp.round(jnp.asarray(side) * min(x.shape[1:3])).astype(jnp.int32)
    covered = random_square(key, x.shape[1:3], pixels)
    return jnp.where(covered[None, :, :, None], jnp.asarray(0.5, x.dtype), x)


def random_square(key: jax.Array, size: Sequence[int], side: ArrayLike) -> jax.Array:
    """Return a mask ``[H, W]`` of a square of ``side`` pixels, at a random position within a picture of this size."""
    inside = []
    for length, uniform in zip(size, jax.random.uniform(key, (2,)), strict=True):
        first = jnp.floor(uniform * (length - side + 1)).astype(jnp.int32)
        inside.append((jnp.arange(length) >= first) & (jnp.arange(length) < first + side))
    return inside[0][:, None] & inside[1][None, :]
