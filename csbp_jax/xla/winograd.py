"""Winograd's convolution with kernels of 3x3, in a quarter of the multiplications; for CPUs.

Two polynomials are multiplied by evaluating both at points, multiplying there, and interpolating. A convolution is the
transpose of that in one factor: a tile of 6x6 inputs passes through the transposed interpolation, the kernel is
evaluated, and the products pass through the transposed evaluation, to 4x4 outputs. With six points along rows and six
along columns, that is 36 multiplications per tile and pair of channels in place of 144 (Lavin & Gray, CVPR 2016,
F(4x4, 3x3)). Over all tiles and channels, they are 36 products of matrices.

The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity. With them, float32 differs from the exact convolution by one to
four millionths of the largest output: about ten times what a plain sum of products does, and a quarter of what the
more usual points 0, +-1, +-2 do (the choice of points: Barabasz et al., ACM Transactions on Mathematical Software 46,
2020).
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csbp_jax.xla.memory import unfused, unfused_vjp

_OUTPUTS, _TAPS, _INPUTS = 4, 3, 6
# The fastest of those tried, on two cores. All tiles at once would also need more memory.
_TILES_AT_A_TIME = 2048
# Cost of computing one number at the points, in multiplications; fitted on two cores.
_COST_OF_A_NUMBER = 50

# The three matrices are written out. If a library of linear algebra inverted one of them, its last bits would depend on
# the processor, and with them programs and results. The operations below are rounded correctly on every processor.
_ROOT = math.sqrt(2)
# From coefficients to values: the row of a point x holds its powers 1, x, x**2, and so on, and that of infinity selects
# the last coefficient. The rows are those of 0, sqrt(1/2), -sqrt(1/2), sqrt(2), -sqrt(2) and infinity.
_FROM_OUTPUTS = np.array(
    [
        [1, 0, 0, 0],
        [1, _ROOT / 2, 1 / 2, _ROOT / 4],
        [1, -_ROOT / 2, 1 / 2, -_ROOT / 4],
        [1, _ROOT, 2, 2 * _ROOT],
        [1, -_ROOT, 2, -2 * _ROOT],
        [0, 0, 0, 1],
    ]
)
_FROM_TAP = np.array(
    [
        [1, 0, 0],
        [1, _ROOT / 2, 1 / 2],
        [1, -_ROOT / 2, 1 / 2],
        [1, _ROOT, 2],
        [1, -_ROOT, 2],
        [0, 0, 1],
    ]
)
# From six values back to the coefficients, transposed: Toom's and Cook's interpolation. The row of a point p holds the
# coefficients of Lagrange's polynomial, the product of (x - q) / (p - q) over the other finite points q: it is 1 at p
# and 0 at these. The row of infinity holds those of x (x**2 - 1/2) (x**2 - 2), which is 0 at all finite points.
_FROM_INPUTS = np.array(
    [
        [1, 0, -5 / 2, 0, 1, 0],
        [0, 2 * _ROOT / 3, 4 / 3, -_ROOT / 3, -2 / 3, 0],
        [0, -2 * _ROOT / 3, 4 / 3, _ROOT / 3, -2 / 3, 0],
        [0, -_ROOT / 12, -1 / 12, _ROOT / 6, 1 / 6, 0],
        [0, _ROOT / 12, -1 / 12, -_ROOT / 6, 1 / 6, 0],
        [0, 1, 0, -5 / 2, 0, 1],
    ]
)
_FROM_TAPS = np.kron(_FROM_TAP, _FROM_TAP)


def pays(shape: Sequence[int], features: int) -> bool:
    """Return whether this is estimated to cost less than a plain sum, from the forward pass of ``[N, H, W, C]``."""
    images, height, width, channels = shape
    rows, columns = _tiles(shape)
    tiles = images * rows * columns
    numbers = tiles * (channels + features) + channels * features
    multiplications = _INPUTS**2 * (tiles * channels * features + _COST_OF_A_NUMBER * numbers)
    return multiplications < images * height * width * _TAPS**2 * channels * features


def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve ``[N, H, W, C]`` with ``[3, 3, C, features]``: strides of 1, padding of 1."""
    at_points = unfused((_weights(_FROM_TAPS, x) @ kernel.reshape(_TAPS**2, -1)).reshape(-1, *kernel.shape[2:]))

    def of_images(images: jax.Array) -> jax.Array:
        products = lax.dot_general(
            _windows_at_points(images, _FROM_INPUTS, border=1), at_points, (((2,), (1,)), ((0,), (0,)))
        )
        return _outputs(products, images.shape)

    y: jax.Array = lax.map(of_images, _in_chunks(x))
    return y.reshape(-1, *y.shape[2:])[: len(x)]


def _kernel_gradient(x: jax.Array, y_bar: jax.Array) -> jax.Array:
    """Return the cotangent of the kernel ``[3, 3, C, features]`` for that of the output, ``[N, H, W, features]``."""

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        images, bars = chunk
        at_points = (
            _windows_at_points(images, _FROM_INPUTS, border=1),
            _windows_at_points(bars, _FROM_OUTPUTS, border=0),
        )
        return total + lax.dot_general(*at_points, (((1,), (1,)), ((0,), (0,)))), None

    zeros = jnp.zeros((_INPUTS**2, x.shape[3], y_bar.shape[3]), x.dtype)
    total, _ = lax.scan(add, zeros, (_in_chunks(x), _in_chunks(y_bar)))
    kernel = _weights(_FROM_TAPS.T, x) @ total.reshape(_INPUTS**2, -1)
    return kernel.reshape(_TAPS, _TAPS, *total.shape[1:])


# It calls what has no rule of its own, so that the gradient itself can be differentiated in forward mode.
def _backward(residuals: tuple[jax.Array, jax.Array], y_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    y_bar = unfused(y_bar)
    # A transpose alone is fast; fused with the reversal, or both with the transformation, it is several times slower.
    turned = unfused(jnp.flip(unfused(kernel.swapaxes(2, 3)), (0, 1)))
    return _convolution(y_bar, turned), _kernel_gradient(x, y_bar)


convolution = unfused_vjp(_convolution, _backward)


def _tiles(shape: Sequence[int]) -> tuple[int, int]:
    """Return the rows and columns of tiles of an image of ``[N, H, W, C]``."""
    return -(-shape[1] // _OUTPUTS), -(-shape[2] // _OUTPUTS)


def _in_chunks(x: jax.Array) -> jax.Array:
    """Split ``[N, H, W, C]`` into ``[chunks, images, H, W, C]``; images of zeros fill the last chunk."""
    rows, columns = _tiles(x.shape)
    chunks = -(-len(x) // max(1, _TILES_AT_A_TIME // (rows * columns)))
    images = -(-len(x) // chunks)
    missing = chunks * images - len(x)
    return jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0))).reshape(chunks, images, *x.shape[1:])


def _windows_at_points(x: jax.Array, matrix: np.ndarray, border: int) -> jax.Array:
    """Transform windows of ``[N, H, W, C]`` that begin every fourth row and column: ``[36, tiles, C]``.

    border: zeros before the first row and column; behind the last are as many as the last windows need.
    """
    size = matrix.shape[1]
    # From the first row or column of the first window to that of the last.
    extents = [(count - 1) * _OUTPUTS + 1 for count in _tiles(x.shape)]
    ends = [(border, extent + size - 1 - border - n) for n, extent in zip(x.shape[1:3], extents, strict=True)]
    x = unfused(jnp.pad(x, ((0, 0), *ends, (0, 0))))
    rows = unfused(_combine(matrix, [x[:, i : i + extents[0] : _OUTPUTS] for i in range(size)]))
    both = _combine(matrix, [rows[:, :, :, j : j + extents[1] : _OUTPUTS] for j in range(size)])
    return unfused(both.swapaxes(0, 1).reshape(_INPUTS**2, -1, x.shape[3]))


def _outputs(products: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Transform ``[36, tiles, features]``, and join the tiles of ``[N, H, W, C]``: ``[N, H, W, features]``."""
    rows, columns = _tiles(shape)
    products = products.reshape(_INPUTS, _INPUTS, shape[0], rows, columns, -1)
    of_rows = unfused(_combine(_FROM_OUTPUTS.T, list(products)))
    both = unfused(_combine(_FROM_OUTPUTS.T, list(of_rows.swapaxes(0, 1))))
    y = both.transpose(2, 3, 1, 4, 0, 5).reshape(shape[0], rows * _OUTPUTS, columns * _OUTPUTS, -1)
    return y[:, : shape[1], : shape[2]]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> jax.Array:
    """Return ``sum_j matrix[i, j] parts[j]`` for each i, along a new first axis."""
    columns = _weights(matrix, parts[0]).reshape(*matrix.shape, *(1,) * parts[0].ndim)
    return functools.reduce(jnp.add, [columns[:, j] * part[None] for j, part in enumerate(parts)])


def _weights(matrix: np.ndarray, like: jax.Array) -> jax.Array:
    return jnp.asarray(matrix, like.dtype)
