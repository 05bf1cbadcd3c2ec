"""Frames from events: the edges of each frame in time, then one count. Every event is counted exactly once.

A rule gives ``edges [T + 1]``: frame k holds events ``edges[k]`` to ``edges[k + 1] - 1``. A frame is thus a slice, and
events need no frame numbers. N is the number of events, at least one; their times ``t [N]`` are non-decreasing.
"""

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.data.events.readers import IntArray

MAX_COUNTS = 2**28
"""Most counts ``T H W C`` of one recording's frames, 2 GiB while events are counted."""


def check_grid(T: int, shape: tuple[int, int, int], name: object) -> None:
    """Check that frames of this shape have at most ``MAX_COUNTS`` counts, before memory is allocated.

    Args:
      T: number of frames.
      shape: (H, W, C) of a frame.
      name: what the message begins with.

    Raises:
      ConfigError: they have more.
    """
    if T * math.prod(shape) > MAX_COUNTS:
        raise ConfigError(
            f"{name}: {T} frames of {'x'.join(map(str, shape))} are more than {MAX_COUNTS:,} counts; set data.size "
            "with data.resize events, use fewer time steps, or remove a recording whose coordinates are wrong"
        )


def by_number(t: IntArray, T: int) -> IntArray:
    """Compute edges of frames of ``N // T`` events, the last with the remainder (SpikingJelly's "split by number")."""
    return np.append(np.arange(T) * (len(t) // T), len(t))


def by_time(t: IntArray, T: int) -> IntArray:
    """Compute edges of frames of equal duration: t is in frame ``(t - t[0]) T // (t[-1] - t[0] + 1)``, exactly."""
    span = int(t[-1]) - int(t[0]) + 1
    return _edges(t, T, (-(-k * span // T) for k in range(1, T)))


def by_window(t: IntArray, T: int, window: int) -> IntArray:
    """Compute edges of frames of ``window``, in units of t: t is in frame ``min((t - t[0]) // window, T - 1)``."""
    return _edges(t, T, (k * window for k in range(1, T)))


def _edges(t: IntArray, T: int, starts: Iterable[int]) -> IntArray:
    """Compute edges of frames that begin ``starts`` after the first event, in Python's integers, free of overflow."""
    first, last = int(t[0]), int(t[-1])
    reached = [first + start for start in starts if first + start <= last]
    edges = np.full(T + 1, len(t))
    edges[0] = 0
    edges[1 : len(reached) + 1] = np.searchsorted(t, np.array(reached, t.dtype))
    return edges


def rescale(x: IntArray, old: int, new: int) -> IntArray:
    """Map coordinates ``[N]`` from an axis of ``old`` pixels to one of ``new``: ``x new // old``; no event is lost."""
    return x if new == old else (np.arange(old) * new // old).astype(np.min_scalar_type(new)).take(x)


def count(x: IntArray, y: IntArray, p: IntArray, edges: IntArray, shape: tuple[int, int, int]) -> IntArray:
    """Count events ``[N]`` per frame and pixel: ``[T, H, W, C]``, in the smallest unsigned type that holds them.

    Args:
      x, y, p: columns, rows and polarities in {0, 1}; coordinates must lie inside the frame.
      edges: of a rule, ``[T + 1]``.
      shape: (H, W, C). With C = 2 the last axis is the polarity; with C = 1 polarities are summed.
    """
    height, width, channels = shape
    pixels, T = height * width * channels, len(edges) - 1
    index = y.astype(np.intp)
    index *= width
    index += x
    if channels == 2:
        index *= 2
        index += p
    for k, (start, end) in enumerate(pairwise(edges)):
        index[start:end] += k * pixels
    counts = np.bincount(index, minlength=T * pixels)
    return counts.astype(np.min_scalar_type(counts.max())).reshape(T, *shape)
