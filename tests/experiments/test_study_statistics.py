"""Tests of the statistics of the studies, against brute force and scipy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import (
    best_weights,
    compare_solved,
    equivalence_of_shares,
    ranked_above,
)


def test_expected_best_is_the_mean_over_all_subsets():
    values = [0.3, 0.1, 0.9, 0.4, 0.4]
    for n in range(1, 6):
        subsets = [max(subset) for subset in itertools.combinations(values, n)]
        assert best_weights(5, n) @ np.sort(values) == pytest.approx(np.mean(subsets), rel=1e-12)


def test_equal_shares_are_those_with_the_90_percent_interval_inside_the_margin():
    generator = np.random.default_rng(0)
    base = generator.random(4000) < 0.9
    other = base ^ (generator.random(4000) < 0.02)
    bits = {name: {"solved": "".join("01"[int(b)] for b in values)} for name, values in (("a", base), ("b", other))}
    pair = compare_solved(bits, "a")["b"]
    difference = other.astype(float) - base
    error = difference.std() / np.sqrt(len(difference))
    for margin in (0.001, 0.01, 0.02, 0.03):
        result = equivalence_of_shares(pair, margin)
        p = max(
            stats.norm.sf((difference.mean() + margin) / error), stats.norm.cdf((difference.mean() - margin) / error)
        )
        assert result["p"] == pytest.approx(p, rel=1e-9)
        assert (result["p"] < 0.05) == (-margin < result["low"] and result["high"] < margin)
    assert equivalence_of_shares({"more": 0, "less": 0, "n": 8, "difference": 0.0}, 0.01)["p"] == 0.0


def test_ranked_above_counts_pairs_with_ties_as_a_half_and_needs_both_sides():
    values, group = np.array([1.0, 2.0, 2.0, 5.0]), np.array([False, True, False, True])
    area = ranked_above(values, group, draws=50)
    assert area is not None
    assert area["share"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert 0 <= area["low"] <= area["share"] <= area["high"] <= 1
    assert ranked_above(np.arange(3.0), np.array([True, True, True])) is None
