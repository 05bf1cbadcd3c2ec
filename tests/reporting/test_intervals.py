"""Intervals and tests of paired differences, against SciPy and by their definitions."""

import numpy as np
import pytest
from scipy import stats

from csbp_jax.reporting import intervals
from csbp_jax.reporting.intervals import signed_rank, student, student_of_shares, tost, verdict

DIFFERENCES = [0.004, -0.001, 0.003, 0.002, 0.006, -0.002, 0.001, 0.005]


def test_students_interval():
    expected = stats.ttest_1samp(DIFFERENCES, 0).confidence_interval(0.9)
    assert student(DIFFERENCES, 0.9)[1:] == pytest.approx(expected)
    assert student(DIFFERENCES).mean == pytest.approx(np.mean(DIFFERENCES))
    assert student([0.7]) == (0.7, None, None)
    with pytest.raises(ValueError, match="needs at least one value"):
        student([])


def test_an_interval_of_shares_is_students_in_the_middle_and_stays_within_0_and_1():
    middle = [0.50, 0.51, 0.49, 0.505]
    assert student_of_shares(middle) == pytest.approx(student(middle), abs=1e-4)
    for shares in ([1.0, 0.99], [0.9, 1.0, 0.95, 1.0], [0.0, 0.02], [0.1] + [0.98] * 7):
        mean, low, high = student_of_shares(shares)
        unbounded = student(shares)
        assert unbounded.low is not None and unbounded.high is not None and low is not None and high is not None
        assert unbounded.low < 0 or unbounded.high > 1
        assert 0 < low < mean < high < 1 and mean == unbounded.mean
    assert student_of_shares([1.0, 1.0]) == (1.0, 1.0, 1.0) and student_of_shares([0.7]) == (0.7, None, None)
    with pytest.raises(ValueError, match=r"shares are in \[0, 1\]"):
        student_of_shares([0.5, 93.0])


def test_it_holds_the_mean_of_accuracies_near_1_as_often_as_it_says():
    shares = np.random.default_rng(0).beta(297, 3, (400, 4))  # mean 0.99
    held = [low <= 0.99 <= high for _, low, high in map(student_of_shares, shares)]  # type: ignore[operator]
    assert 0.92 < np.mean(held) < 0.98


def test_wilcoxons_p_is_scipys_and_1_without_differences():
    without_ties = [0.004, -0.001, 0.003, 0.002, 0.006, -0.0025, 0.0015, 0.005]
    assert signed_rank(without_ties) == stats.wilcoxon(without_ties, method="exact").pvalue
    assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5]) == 2 / 2**5 and signed_rank([0.0, 0.0, 0.0]) == 1
    # Ties and zeros, as of accuracies on a small test split, where rounding hides them.
    ties = [0.01, 0.01, -0.01, 0.02, 0.03, 0.0]
    hidden = [0.51 - 0.5, 0.91 - 0.9, 0.9 - 0.91, 0.52 - 0.5, 0.93 - 0.9, 0.3 - (0.1 + 0.2)]
    assert hidden != ties and signed_rank(hidden) == signed_rank(ties) == stats.wilcoxon(ties).pvalue < 1
    # Few differences are few beside any number of zeros, as of single examples of two networks.
    assert signed_rank([0.01] * 4 + [0.0] * 10) == 2 / 2**4 and signed_rank([-0.01] + [0.0] * 358) == 1
    assert signed_rank([*without_ties, *[0.0] * 20]) == signed_rank(without_ties)
    with pytest.raises(ValueError, match="at least one"):
        signed_rank([])


@pytest.mark.parametrize("margin", [0.001, 0.003, 0.01])
def test_equivalence_is_two_one_sided_t_tests_and_the_90_percent_interval(margin):
    above = stats.ttest_1samp(DIFFERENCES, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(DIFFERENCES, margin, alternative="less").pvalue
    assert tost(DIFFERENCES, margin) == pytest.approx(max(above, below))
    _, low, high = student(DIFFERENCES, 0.9)
    assert low is not None and high is not None
    assert (tost(DIFFERENCES, margin) < 0.05) == (-margin < low and high < margin)


def test_equivalence_without_spread_and_of_impossible_input():
    assert tost([0.002, 0.002], 0.005) == 0 and tost([0.002, 0.002], 0.001) == 1
    for differences, margin in (([0.1], 0.5), ([0.1, 0.2], 0.0), ([0.1, 0.2], float("nan"))):
        with pytest.raises(ValueError, match="at least two differences and a positive margin"):
            tost(differences, margin)


def test_verdicts_need_evidence_either_way():
    near, far = [0.001, -0.001, 0.0005, 0.0], [0.02, 0.021, 0.019, 0.02]
    wide = [0.03, -0.03, 0.02, -0.02]
    assert verdict(near, 0.005) == "equal"
    assert verdict(far, 0.005) == "better" and verdict([-d for d in far], 0.005) == "worse"
    # No difference is shown, but none is excluded either: not rejecting is no equality.
    assert stats.ttest_1samp(wide, 0).pvalue > 0.9 and verdict(wide, 0.005) == "not decided"
    # A difference that is sure and within the margin is without importance.
    assert verdict([0.0020, 0.0021, 0.0019], 0.005) == "equal" and verdict([0.0020, 0.0021, 0.0019], 0.001) == "better"
    assert verdict([0.0, 0.0], 0.005) == "not decided" and intervals.MIN_PAIRS == 3
    with pytest.raises(ValueError, match="a margin is positive"):
        verdict(near, 0)


def test_equal_differences_decide_nothing_before_there_are_six():
    # The last ones are equal but for rounding.
    for value in (0.0, 0.002, 0.02):
        assert verdict([value] * 5, 0.005) == verdict([value, value + 1e-17, value], 0.005) == "not decided"
    assert verdict([0.0] * 6, 0.005) == verdict([0.002] * 6, 0.005) == "equal"
    assert verdict([0.02] * 6, 0.005) == "better"


def test_the_error_rate_of_equal_is_5_percent_at_the_margin():
    random = np.random.default_rng(0).normal(0.005, 0.004, (300, 8))
    assert np.mean([verdict(row, 0.005) == "equal" for row in random]) == pytest.approx(0.05, abs=0.03)
