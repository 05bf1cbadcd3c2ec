"""Convolution and max pooling in forms that XLA compiles to fast code on CPU; elsewhere, the plain operations."""

import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def convolution(x: jax.Array, kernel: jax.Array, strides: Sequence[int], *rest: Any, **options: Any) -> jax.Array:
    """Compute ``lax.conv_general_dilated`` of ``[N, H, W, C]`` with padding ``kernel // 2``; for Flax's ``Conv``.

    On CPU, XLA computes a convolution or its gradient a hundred times slower if the input is smaller than the kernel.
    Such an input is padded with zeros to the size of the kernel, and the output is cropped.
    """
    sizes = x.shape[1:3]
    # Rows and columns to add so that the output is as large as the kernel too: it is the kernel of the gradient.
    missing = [max(0, (k - 1) * s + 1 - n) for n, k, s in zip(sizes, kernel.shape, strides, strict=False)]
    if jax.default_backend() != "cpu" or max(missing) == 0 or max(sizes) == 1:
        return lax.conv_general_dilated(x, kernel, strides, *rest, **options)
    height, width = (-(-n // s) for n, s in zip(sizes, strides, strict=True))
    # Without the barriers XLA would fold these zeros, and in the reverse pass those of the crop, into the convolution's
    # own padding.
    larger = _barrier(jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0))))
    return _barrier(lax.conv_general_dilated(larger, kernel, strides, *rest, **options))[:, :height, :width]


def _barrier(x: jax.Array) -> jax.Array:
    barred: jax.Array = lax.optimization_barrier(x)
    return barred


def max_pool(x: jax.Array, size: int, stride: int, pad: int) -> jax.Array:
    """Compute the maximum over square windows of ``[B, T, H, W, C]``; see :func:`csbp_jax.models.layers.max_pool`."""
    if jax.default_backend() != "cpu":
        pads = ((0, 0), (pad, pad), (pad, pad))
        largest: jax.Array = nn.max_pool(x, (1, size, size), (1, stride, stride), pads)
        return largest
    # The maximum of shifted arrays: XLA on CPU finds and scatters the gradient of a window element by element, ten
    # times slower. The comparison is strict, so that the first of equal numbers has the gradient, as in XLA.
    x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=-jnp.inf)
    rows, columns = ((n - size) // stride * stride + 1 for n in x.shape[2:4])
    largest = x[:, :, :rows:stride, :columns:stride]
    for i, j in itertools.islice(itertools.product(range(size), repeat=2), 1, None):
        shifted = x[:, :, i : i + rows : stride, j : j + columns : stride]
        largest = jnp.where(shifted > largest, shifted, largest)
    return largest
