"""Fractality of basins: uncertainty exponent and basin entropies of a grid of labels.

A *basin* is the set of starts that end in the same attractor, class or function, which a label names. On a
fractal boundary, an error of the start that is ten times smaller leaves almost as many ends unknown. Labels are any
integers on a grid of starts in a plane, ``[rows, columns]``, with equal spacing in both directions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

OFFSETS = (1, 2, 4, 8, 16)
"""Default distances of neighbours, in spacings of the grid."""

_BLOCKS = 8
"""Blocks per axis that the jackknife leaves out in turn."""


class UncertaintyExponent(NamedTuple):
    """Result of :func:`uncertainty_exponent`; ``stderr`` is NaN where a single block holds all uncertain points."""

    alpha: float
    stderr: float
    offsets: tuple[int, ...]
    fractions: tuple[float, ...]
    points: int


class BasinEntropy(NamedTuple):
    """Result of :func:`basin_entropy`, in nats; ``boundary_entropy`` is NaN where no box holds two labels."""

    entropy: float
    boundary_entropy: float
    boundary_share: float
    boxes: int


def uncertainty_exponent(labels: ArrayLike, offsets: Sequence[int] = OFFSETS) -> UncertaintyExponent:
    """Measure how the fraction of uncertain points falls with their uncertainty, ``f(eps) ~ eps^alpha``.

    A point is uncertain at eps if any of its four neighbours at the distance eps along the axes has another label. The
    box-counting dimension of the boundary is D - alpha, that is, ``2 - alpha`` in the plane: alpha is 1 for a smooth
    curve, below 1 for a fractal, and 0 where the boundary is everywhere
    (McDonald, Grebogi, Ott & Yorke, Physica D 17, 125, 1985).

    alpha is the slope of log f over log eps, weighted by the inverse of the binomial variance of log f,
    ``n f / (1 - f)``. All offsets share their n points, those with four neighbours at the largest offset. As
    neighbouring points depend on each other, the standard error is that of a jackknife over 8 x 8 blocks of points.

    Args:
      labels: ``[rows, columns]``, integers.
      offsets: distances of neighbours in spacings of the grid, increasing.

    Returns:
      alpha, its standard error, the offsets, f at each of them, and n.

    Raises:
      ValueError: the labels are not a grid of integers, there are fewer than two offsets or they do not increase from 1
        on, the grid is too small for them, or points are uncertain at fewer than two of them.
    """
    grid, sizes = _label_grid("uncertainty_exponent", labels), tuple(int(offset) for offset in offsets)
    if len(sizes) < 2 or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"uncertainty_exponent: offsets {sizes}; pass two or more that increase, the first at least 1")
    margin = sizes[-1]
    if min(grid.shape) < 2 * margin + _BLOCKS:
        raise ValueError(
            f"uncertainty_exponent: the grid is {grid.shape[0]} x {grid.shape[1]}, but an offset of {margin} needs "
            f"{2 * margin + _BLOCKS} points per axis; pass smaller offsets"
        )
    uncertain = np.stack([_uncertain(grid, size, margin) for size in sizes])
    block_sums = np.stack([_block_sums(points) for points in uncertain])
    block_sizes = _block_sums(np.ones_like(uncertain[0]))
    sums, n = block_sums.sum(axis=1), block_sizes.sum()
    if np.count_nonzero(sums) < 2:
        raise ValueError(
            "uncertainty_exponent: points are uncertain at fewer than two offsets; the grid has no boundary to measure"
        )
    slopes = np.array(
        [_slope(sizes, sums - left_out, n - size) for left_out, size in zip(block_sums.T, block_sizes, strict=True)]
    )
    stderr = np.sqrt((len(slopes) - 1) * np.mean((slopes - slopes.mean()) ** 2))
    return UncertaintyExponent(_slope(sizes, sums, n), float(stderr), sizes, tuple(float(f) for f in sums / n), int(n))


def basin_entropy(labels: ArrayLike, box: int = 5) -> BasinEntropy:
    """Measure the unpredictability of labels within boxes: basin entropy and boundary basin entropy.

    The entropy of a box is ``S = -sum_i p_i log p_i`` over the shares p_i of its labels. The basin entropy is the mean
    of S over all boxes, the boundary basin entropy that over the boxes with at least two labels. A boundary basin
    entropy above log 2 shows a fractal boundary, as a smooth curve separates two basins in nearly all of its boxes; one
    below log 2 shows nothing (Daza et al., Sci. Rep. 6, 31416, 2016).

    Boxes do not overlap; rows and columns that fill no box are left out. In boxes of random labels, S is too low by
    about ``(number of labels - 1) / (2 box^2)``.

    Args:
      labels: ``[rows, columns]``, integers.
      box: side of a box, in points.

    Returns:
      Both entropies in nats, the share of boxes with at least two labels, and the number of boxes.

    Raises:
      ValueError: the labels are not a grid of integers, or the side is below 2 or larger than the grid.
    """
    grid = _label_grid("basin_entropy", labels)
    if not 2 <= box <= min(grid.shape):
        raise ValueError(f"basin_entropy: box {box}; allowed are 2 to {min(grid.shape)}, the shorter side of the grid")
    rows, columns = (size // box for size in grid.shape)
    boxes = grid[: rows * box, : columns * box].reshape(rows, box, columns, box).swapaxes(1, 2).reshape(-1, box * box)
    shares = np.stack([(boxes == label).mean(axis=1) for label in np.unique(grid)])
    entropies = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=0)
    mixed = np.count_nonzero(shares, axis=0) > 1
    boundary = float(entropies[mixed].mean()) if mixed.any() else float("nan")
    return BasinEntropy(float(entropies.mean()), boundary, float(mixed.mean()), len(boxes))


def _label_grid(function: str, labels: ArrayLike) -> NDArray[Any]:
    grid = np.asarray(labels)
    if grid.ndim != 2 or not (np.issubdtype(grid.dtype, np.integer) or grid.dtype == bool):
        raise ValueError(f"{function}: labels are {grid.dtype} {list(grid.shape)}; pass integers [rows, columns]")
    return grid


def _uncertain(grid: NDArray[Any], offset: int, margin: int) -> NDArray[np.bool_]:
    """Return which points at least ``margin`` from the edge have a neighbour at the offset with another label."""
    rows, columns = (slice(margin, size - margin) for size in grid.shape)
    centre = grid[rows, columns]
    differs = np.zeros(centre.shape, bool)
    for shift in (-offset, offset):
        differs |= centre != grid[slice(rows.start + shift, rows.stop + shift), columns]
        differs |= centre != grid[rows, slice(columns.start + shift, columns.stop + shift)]
    return differs


def _block_sums(points: NDArray[Any]) -> NDArray[np.int64]:
    """Return the sum over each of the 8 x 8 blocks, ``[64]``."""
    strips = np.array_split(points, _BLOCKS, axis=0)
    return np.array([block.sum() for strip in strips for block in np.array_split(strip, _BLOCKS, axis=1)])


def _slope(offsets: Sequence[int], sums: NDArray[np.int64], n: int) -> float:
    """Return the weighted slope of log f over log eps; NaN if fewer than two f are above 0."""
    positive = sums > 0
    if np.count_nonzero(positive) < 2:
        return float("nan")
    f, x = sums[positive] / n, np.log(np.asarray(offsets)[positive])
    weight = n * f / (1 - f + 1 / n)  # finite where all points are uncertain
    centred = x - np.average(x, weights=weight)
    return float(np.sum(weight * centred * np.log(f)) / np.sum(weight * centred**2))
