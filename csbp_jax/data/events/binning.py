"""Events to frames: where each frame begins, then one count. Every event is counted exactly once.

A rule gives ``edges [T + 1]``: frame k holds events ``edges[k]`` to ``edges[k + 1] - 1``. So a frame is a slice, and no
event carries a frame number. N is the number of events, at least one, and their times ``t [N]`` do not fall.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np


def by_number(t: np.ndarray, T: int) -> np.ndarray:
    """Frames of ``N // T`` events each; the last also takes the remainder (SpikingJelly's "split by number")."""
    return np.append(np.arange(T) * (len(t) // T), len(t))


def by_time(t: np.ndarray, T: int) -> np.ndarray:
    """Frames of equal length: an event at t is in frame ``(t - t[0]) T // (t[-1] - t[0] + 1)``, exact for any t."""
    span = int(t[-1]) - int(t[0]) + 1
    return _edges(t, T, (-(-k * span // T) for k in range(1, T)))


def by_window(t: np.ndarray, T: int, window: int) -> np.ndarray:
    """Frames of ``window`` each, in units of t: frame ``min((t - t[0]) // window, T - 1)``."""
    return _edges(t, T, (k * window for k in range(1, T)))


def _edges(t: np.ndarray, T: int, starts: Iterable[int]) -> np.ndarray:
    """Frame k begins at the first event that is ``starts[k]`` or more after the first; Python's integers are exact."""
    first, last = int(t[0]), int(t[-1])
    reached = [first + start for start in starts if first + start <= last]
    edges = np.full(T + 1, len(t))
    edges[0] = 0
    edges[1 : len(reached) + 1] = np.searchsorted(t, np.array(reached, t.dtype))
    return edges


def resized(x: np.ndarray, old: int, new: int) -> np.ndarray:
    """Coordinates ``[N]`` on an axis of ``new`` instead of ``old`` pixels: ``x new // old``; no event is lost."""
    return x if new == old else (np.arange(old) * new // old).astype(np.min_scalar_type(new)).take(x)


def count(x: np.ndarray, y: np.ndarray, p: np.ndarray, edges: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Counts ``[T, H, W, C]`` of events ``[N]`` in frames of ``shape`` (H, W, C), in the smallest unsigned type.

    Coordinates must lie inside. With C = 2 the last axis is the polarity p in {0, 1}; with C = 1 polarities are summed.
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
