"""Convolution in forms that XLA compiles to fast code on CPU."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.xla import winograd
from csbp_jax.xla.memory import unfused, unfused_vjp

_Pair = tuple[int, int]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Precisions that put up with Winograd's rounding; on CPU, plain products are float32 with any of them.
_INEXACT = {None, "default", "fastest", "bfloat16", lax.Precision.DEFAULT}


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], precision: Any = None
) -> jax.Array:
    """Compute :func:`csbp_jax.xla.convolution.convolution` on CPU, without groups.

    An image that is smaller than the kernel, or (but for a stem) has such an output, is convolved tap by tap. In
    float32 and on one device, kernels of 3x3 are convolved in Winograd's form where that is estimated to be faster,
    with a rounding error of a few millionths of the largest output; ``JAX_DEFAULT_MATMUL_PRECISION=highest`` switches
    that off. With up to three channels, they are products of the kernel with what each output sees.
    """
    (top, bottom), (left, right) = padding
    geometry = (strides[0], strides[1]), ((top, bottom), (left, right))
    # The output is the kernel in the convolution that gives the kernel's gradient. For a stem, XLA's is faster.
    stem = max(kernel.shape[:2]) > 3 and kernel.shape[2] < 16
    smallest = x.shape[1:3] if stem else _size_of_output(x, kernel, *geometry)
    if any(n < k for n, k in zip(smallest, kernel.shape, strict=False)):
        return _convolve_by_taps(x, kernel, *geometry)
    if _for_winograd(x, kernel, *geometry, precision):
        return winograd.convolution(x, kernel)
    return _convolve(x, kernel, *geometry)


def _size_of_output(x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair]) -> _Pair:
    sizes = zip(x.shape[1:3], padding, kernel.shape, strides, strict=False)
    height, width = ((n + low + high - k) // stride + 1 for n, (low, high), k, stride in sizes)
    return height, width


def _for_winograd(
    x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair], precision: Any
) -> bool:
    """Return whether to compute this convolution in Winograd's form.

    Not on several devices, between which XLA would move tiles; not for a symbolic number of images, which cannot be
    counted.
    """
    default: Any = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    precision = precision or default
    precisions = set(precision) if isinstance(precision, tuple) else {precision}
    form = kernel.shape[:2] == (3, 3) and strides == (1, 1) and padding == ((1, 1), (1, 1)) and x.dtype == jnp.float32
    mesh = jax.sharding.get_abstract_mesh()
    one_device = (jax.device_count() if mesh.empty else mesh.size) == 1
    counted = one_device and isinstance(x.shape[0], int)
    return form and precisions <= _INEXACT and counted and winograd.pays(x.shape, kernel.shape[3])


def _plain_convolution(x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair]) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_DIMENSIONS)


def _convolution(x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair]) -> jax.Array:
    if _has_few_channels(x, kernel, strides):
        return _patches(x, kernel, padding) @ kernel.reshape(-1, kernel.shape[3])
    return _plain_convolution(x, kernel, strides, padding)


def _has_few_channels(x: jax.Array, kernel: jax.Array, strides: _Pair) -> bool:
    """Return whether a product with patches is faster than XLA's convolution, which is made for many channels."""
    form = kernel.shape[:2] == (3, 3) and kernel.shape[2] <= 3 and strides == (1, 1)
    return form and x.dtype != jnp.bfloat16


def _patches(x: jax.Array, kernel: jax.Array, padding: tuple[_Pair, _Pair]) -> jax.Array:
    """Return what each output of ``[N, H, W, C]`` sees, ``[N, H, W, rows x columns x C]``."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = (n - k + 1 for n, k in zip(x.shape[1:3], kernel.shape, strict=False))
    # First along rows, so that most of what is then copied lies in one piece.
    x = unfused(jnp.concatenate([x[:, :, j : j + width] for j in range(kernel.shape[1])], -1))
    return unfused(jnp.concatenate([x[:, i : i + height] for i in range(kernel.shape[0])], -1))


def _convolution_backward(
    strides: _Pair, padding: tuple[_Pair, _Pair], residuals: tuple[jax.Array, jax.Array], y_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute both cotangents from arrays that lie in memory.

    XLA transposes x, y_bar and the kernel for it. A transpose alone is fast; fused with what makes its operand, or with
    the reversal of the kernel, it is a loop with large strides, and three to eight times slower than both.
    """
    x, kernel = residuals
    y_bar = unfused(y_bar)
    turned = jnp.flip(unfused(kernel.swapaxes(2, 3)), (0, 1))
    edges = []
    for n, m, k, stride, (low, _) in zip(x.shape[1:3], y_bar.shape[1:3], kernel.shape, strides, padding, strict=False):
        before, dilated = k - 1 - low, (m - 1) * stride + 1
        edges.append((before, n + k - 1 - dilated - before))
    x_bar = lax.conv_general_dilated(y_bar, turned, (1, 1), edges, strides, dimension_numbers=_DIMENSIONS)
    if _has_few_channels(x, kernel, strides) and kernel.shape[3] >= 32:  # with fewer features, XLA's is faster
        seen = _patches(x, kernel, padding)
        return x_bar, lax.dot_general(seen, y_bar, (((0, 1, 2), (0, 1, 2)), ((), ()))).reshape(kernel.shape)
    (kernel_bar,) = jax.linear_transpose(lambda k: _plain_convolution(x, k, strides, padding), kernel)(y_bar)
    return x_bar, kernel_bar


_convolve = unfused_vjp(_convolution, _convolution_backward, (2, 3))


# XLA on CPU takes up to a hundred times longer for a convolution of an image smaller than the kernel.
def _plain_by_taps(x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair]) -> jax.Array:
    return _sum_of_taps(x, kernel, strides, padding, 0).astype(x.dtype)


def _sum_of_taps(
    x: jax.Array, kernel: jax.Array, strides: _Pair, padding: tuple[_Pair, _Pair], inputs: int
) -> jax.Array:
    """Sum the products of the image, shifted, with each tap, a matrix, over the matrix's axis ``inputs``.

    The sum is float32 for bfloat16, so that it is rounded once.
    """
    height, width = _size_of_output(x, kernel, strides, padding)
    taps = lax.split(kernel.reshape(-1, *kernel.shape[2:]), [1] * (kernel.shape[0] * kernel.shape[1]))
    parts = []
    for (i, j), tap in zip(itertools.product(*map(range, kernel.shape[:2])), taps, strict=True):
        rows, rows_of_x = _seen_by(i - padding[0][0], x.shape[1], height, strides[0])
        columns, columns_of_x = _seen_by(j - padding[1][0], x.shape[2], width, strides[1])
        if len(rows) and len(columns):
            product = lax.dot_general(
                x[:, rows_of_x, columns_of_x],
                tap[0],
                (((3,), (inputs,)), ((), ())),
                preferred_element_type=_type_of_sum(x),
            )
            ends = [(outputs[0], n - 1 - outputs[-1]) for outputs, n in ((rows, height), (columns, width))]
            parts.append(jnp.pad(product, ((0, 0), *ends, (0, 0))))
    return functools.reduce(jnp.add, parts)


def _type_of_sum(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _seen_by(shift: int, inputs: int, outputs: int, stride: int) -> tuple[range, slice]:
    """Return the outputs for which input ``stride * output + shift`` exists, and the slice of these inputs."""
    seen = [o for o in range(outputs) if 0 <= stride * o + shift < inputs]
    if not seen:
        return range(0), slice(0)
    return range(seen[0], seen[-1] + 1), slice(stride * seen[0] + shift, stride * seen[-1] + shift + 1, stride)


def _taps_backward(
    strides: _Pair, padding: tuple[_Pair, _Pair], residuals: tuple[jax.Array, jax.Array], y_bar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Compute both cotangents; a product with a transposed tap is slow, so that the kernel is transposed first."""
    dtype = _type_of_sum(y_bar)
    x, kernel, y_bar = (operand.astype(dtype) for operand in (*residuals, unfused(y_bar)))
    turned = unfused(kernel.swapaxes(2, 3))
    (x_bar,) = jax.linear_transpose(lambda x: _sum_of_taps(x, turned, strides, padding, 1), x)(y_bar)
    (kernel_bar,) = jax.linear_transpose(lambda kernel: _sum_of_taps(x, kernel, strides, padding, 0), kernel)(y_bar)
    return x_bar.astype(residuals[0].dtype), kernel_bar.astype(residuals[1].dtype)


_convolve_by_taps = unfused_vjp(_plain_by_taps, _taps_backward, (2, 3))
