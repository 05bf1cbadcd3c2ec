"""Winograd's convolution with kernels of 3x3, in a quarter of the multiplications; for CPUs.

A tile of 4x4 outputs needs 6x6 inputs. The polynomials whose coefficients these are, and the kernel's, are evaluated at
six points along rows and columns, multiplied there, and interpolated: 36 products of numbers a tile and pair of
channels, not 144 (Lavin & Gray, CVPR 2016, F(4x4, 3x3)). Over all tiles and channels they are 36 products of matrices.

The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity. With them, float32 differs from the exact convolution by about a
millionth of the largest output: ten times what a plain sum of products does, and a quarter of what the more usual
points 0, +-1, +-2 do (on points: Barabasz et al., ACM Transactions on Mathematical Software 46, 2020).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csbp_jax.models.unfused import unfused

_OUTPUTS, _TAPS, _INPUTS = 4, 3, 6
# Enough for all cores of a small machine; few enough for the numbers at the points to stay in its last cache.
_TILES_AT_A_TIME = 2048
# What a number at the points costs beside the products, in multiplications (measured on two cores).
_COST_OF_A_NUMBER = 50


def _evaluation(coefficients: int) -> np.ndarray:
    """Return the matrix from coefficients to values at the six points; that at infinity is the last coefficient."""
    points = np.array([0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)])
    return np.vstack([np.vander(points, coefficients, increasing=True), np.eye(coefficients)[-1]])


# A convolution is the transpose of a product of polynomials in one of its factors, so that interpolation comes first.
_FROM_INPUTS = np.linalg.inv(_evaluation(_INPUTS)).T
_FROM_OUTPUTS = _evaluation(_OUTPUTS)
_FROM_TAPS = np.kron(_evaluation(_TAPS), _evaluation(_TAPS))


def pays(x_shape: Sequence[int], features: int) -> bool:
    """Return whether this takes fewer operations than a plain sum of products, for ``[N, H, W, C]``."""
    images, height, width, channels = x_shape
    tiles = images * -(-height // _OUTPUTS) * -(-width // _OUTPUTS)
    numbers = tiles * (channels + features) + channels * features
    multiplications = _INPUTS**2 * (tiles * channels * features + _COST_OF_A_NUMBER * numbers)
    return multiplications < images * height * width * _TAPS**2 * channels * features


def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve ``[N, H, W, C]`` with ``[3, 3, C, features]``: strides of 1, padding of 1."""
    at_points = unfused((_weights(_FROM_TAPS, x) @ kernel.reshape(_TAPS**2, -1)).reshape(-1, *kernel.shape[2:]))

    def of_images(images: jax.Array) -> jax.Array:
        products = lax.dot_general(_inputs_at_points(images), at_points, (((2,), (1,)), ((0,), (0,))))
        return _outputs(products, images.shape)

    chunks = _in_chunks(x)
    y = lax.map(of_images, chunks) if len(chunks) > 1 else of_images(chunks[0])
    return y.reshape(-1, *y.shape[-3:])[: len(x)]


convolution = jax.custom_vjp(_convolution)


def kernel_gradient(x: jax.Array, y_bar: jax.Array) -> jax.Array:
    """Return the cotangent of the kernel ``[3, 3, C, features]`` for that of the output, ``[N, H, W, features]``."""

    def of_chunk(images: jax.Array, bars: jax.Array) -> jax.Array:
        at_points = _inputs_at_points(images), _windows_at_points(bars, _FROM_OUTPUTS, border=0)
        return lax.dot_general(*at_points, (((1,), (1,)), ((0,), (0,))))

    images, bars = _in_chunks(x), _in_chunks(y_bar)
    total = of_chunk(images[0], bars[0])
    if len(images) > 1:
        total, _ = lax.scan(lambda total, chunk: (total + of_chunk(*chunk), None), total, (images[1:], bars[1:]))
    kernel = _weights(_FROM_TAPS.T, x) @ total.reshape(_INPUTS**2, -1)
    return kernel.reshape(_TAPS, _TAPS, *total.shape[1:])


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = unfused(x)
    return _convolution(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], y_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    y_bar = unfused(y_bar)
    turned = jnp.flip(unfused(kernel.swapaxes(2, 3)), (0, 1))
    return _convolution(y_bar, unfused(turned)), kernel_gradient(x, y_bar)


convolution.defvjp(_forward, _backward)


def _in_chunks(x: jax.Array) -> jax.Array:
    """Split ``[N, H, W, C]`` into ``[chunks, images, H, W, C]``; images of zeros fill the last chunk."""
    tiles = len(x) * -(-x.shape[1] // _OUTPUTS) * -(-x.shape[2] // _OUTPUTS)
    images = -(-len(x) // max(1, tiles // _TILES_AT_A_TIME))
    chunks = -(-len(x) // images)
    missing = chunks * images - len(x)
    return jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0))).reshape(chunks, images, *x.shape[1:])


def _inputs_at_points(x: jax.Array) -> jax.Array:
    """Evaluate ``[N, H, W, C]`` with a border of zeros: ``[36, tiles, C]``."""
    return _windows_at_points(x, _FROM_INPUTS, border=1)


def _windows_at_points(x: jax.Array, matrix: np.ndarray, border: int) -> jax.Array:
    """Evaluate windows of ``[N, H, W, C]`` that begin every fourth row and column: ``[36, tiles, C]``."""
    size = matrix.shape[1]
    starts = [-(-n // _OUTPUTS) * _OUTPUTS - _OUTPUTS + 1 for n in x.shape[1:3]]
    ends = [(border, last + size - 1 - border - n) for n, last in zip(x.shape[1:3], starts, strict=True)]
    x = unfused(jnp.pad(x, ((0, 0), *ends, (0, 0))))
    rows = unfused(_combine(matrix, [x[:, i : i + starts[0] : _OUTPUTS] for i in range(size)]))
    both = _combine(matrix, [rows[:, :, :, j : j + starts[1] : _OUTPUTS] for j in range(size)])
    return unfused(both.swapaxes(0, 1).reshape(_INPUTS**2, -1, x.shape[3]))


def _outputs(products: jax.Array, images: Sequence[int]) -> jax.Array:
    """Interpolate ``[36, tiles, features]``, and join the tiles of images ``[N, H, W, C]``: ``[N, H, W, features]``."""
    rows, columns = (-(-n // _OUTPUTS) for n in images[1:3])
    products = products.reshape(_INPUTS, _INPUTS, images[0], rows, columns, -1)
    of_rows = unfused(_combine(_FROM_OUTPUTS.T, list(products)))
    both = unfused(_combine(_FROM_OUTPUTS.T, list(of_rows.swapaxes(0, 1))))
    y = both.transpose(2, 3, 1, 4, 0, 5).reshape(images[0], rows * _OUTPUTS, columns * _OUTPUTS, -1)
    return y[:, : images[1], : images[2]]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> jax.Array:
    """Return ``sum_j matrix[i, j] parts[j]`` for each i, along a new first axis."""
    columns = _weights(matrix, parts[0]).reshape(*matrix.shape, *(1,) * parts[0].ndim)
    return functools.reduce(jnp.add, [columns[:, j] * part[None] for j, part in enumerate(parts)])


def _weights(matrix: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(matrix, like.dtype)
