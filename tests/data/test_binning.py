"""Binning against its definition, one event at a time, by ``np.add.at``."""

import chex
import numpy as np
import pytest

from csbp_jax.data.events import binning

SIZES = [(1, 1), (1, 7), (3, 10), (10, 10), (11, 10), (1000, 1), (1000, 16), (997, 20)]
CASES = [
    *((n, T, span, 0, np.int64) for n, T in SIZES for span in (1, 2, 13, 5000, 10**13)),
    # Near the end of their type.
    (500, 16, 5000, 2**63 - 10_000, np.int64),
    (500, 16, 5000, 2**64 - 10_000, np.uint64),
    (500, 16, 5000, -(2**62), np.int64),
]
RULES = {
    "number": binning.by_number,
    "time": binning.by_time,
    "window": lambda t, T: binning.by_window(t, T, window=300),
}


def frame_of_each_event(rule, t, T):
    """The definitions, in Python's integers."""
    first, span, n = int(t[0]), int(t[-1]) - int(t[0]) + 1, len(t)
    if rule == "number":
        return [min(i // (n // T), T - 1) if n >= T else T - 1 for i in range(n)]
    if rule == "time":
        return [(int(v) - first) * T // span for v in t]
    return [min((int(v) - first) // 300, T - 1) for v in t]


def recording(n, span=5000, start=0, dtype=np.int64, seed=0, height=5, width=7):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, span, n).astype(dtype)) + np.array(start, dtype)
    return random.integers(0, width, n), random.integers(0, height, n), t, random.integers(0, 2, n)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n, T, span, start, dtype", CASES)
def test_counts_are_those_of_the_definition(rule, n, T, span, start, dtype):
    x, y, t, p = recording(n, span, start, dtype, seed=n + T)
    expected = np.zeros((T, 5, 7, 2), int)
    np.add.at(expected, (frame_of_each_event(rule, t, T), y, x, p), 1)
    counts = binning.count(x, y, p, RULES[rule](t, T), (5, 7, 2))
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == n and counts.dtype == np.min_scalar_type(expected.max())


def test_the_longest_span_does_not_overflow():
    t = np.array([-(2**63), -1, 0, 2**63 - 1])
    np.testing.assert_array_equal(binning.by_time(t, 4), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(binning.by_window(t, 4, 2**62), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("old, new", [(128, 48), (128, 128), (34, 17), (240, 64), (5, 1), (3, 8)])
def test_resized_coordinates(old, new):
    x = np.random.default_rng(0).integers(0, old, 1000).astype(np.int16)
    np.testing.assert_array_equal(binning.rescale(x, old, new), [int(v) * new // old for v in x])


@pytest.mark.parametrize("n, dtype", [(255, np.uint8), (256, np.uint16), (65536, np.uint32)])
def test_the_type_holds_the_largest_count(n, dtype):
    zeros = np.zeros(n, np.uint8)
    counts = binning.count(zeros, zeros, zeros, np.array([0, n]), (3, 2, 2))
    assert counts.dtype == dtype and counts[0, 0, 0, 0] == n == counts.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_narrow_coordinates_do_not_overflow(dtype):
    x, y, p = np.array([126], dtype), np.array([127], dtype), np.array([True])
    counts = binning.count(x, y, p, np.array([0, 0, 1]), (128, 127, 2))
    assert np.argwhere(counts).tolist() == [[1, 127, 126, 1]]


def test_one_channel_sums_polarities_and_does_not_change_its_arguments():
    x, y, t, p = recording(300)
    before = [array.copy() for array in (x, y, p)]
    edges = binning.by_number(t, 3)
    both = binning.count(x, y, p, edges, (5, 7, 2))
    np.testing.assert_array_equal(binning.count(x, y, p, edges, (5, 7, 1))[..., 0], both.sum(-1))
    chex.assert_trees_all_equal([x, y, p], before)
