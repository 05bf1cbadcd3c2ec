"""Intervals and tests of paired differences, against SciPy, by simulation and by their definitions."""

import numpy as np
import pytest
from scipy import stats

from csbp_jax.reporting import statistics
from csbp_jax.reporting.statistics import holm, paired, pairs_to_decide, signed_rank, student, student_of_shares

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


def test_the_paired_t_test_is_scipys():
    test, first = paired(DIFFERENCES), np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.7, 0.6, 0.2])
    expected = stats.ttest_rel(first + DIFFERENCES, first)
    assert (test.p, test.sd) == pytest.approx((expected.pvalue, np.std(DIFFERENCES, ddof=1)))
    assert test.difference == student(DIFFERENCES) and test.pairs == 8 and test.equivalence is None


def test_folds_that_share_training_data_widen_the_interval():
    differences = np.random.default_rng(0).normal(0.3, 1, 10)
    # A test set of one ninth of the training data more than doubles the variance of ten folds.
    plain, folds = paired(differences, margin=2), paired(differences, margin=2, overlap=1 / 9)
    factor = np.sqrt((1 / 10 + 1 / 9) / (1 / 10))
    widths = [test.difference.high - test.difference.mean for test in (plain, folds)]  # type: ignore[operator]
    assert widths[1] == pytest.approx(factor * widths[0])
    assert folds.p == pytest.approx(2 * stats.t.sf(abs(stats.ttest_1samp(differences, 0).statistic) / factor, 9))
    assert folds.equivalence > plain.equivalence  # type: ignore[operator]


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
    assert paired(ties, "signed-rank").p == signed_rank(ties)


def test_mcnemars_test_and_its_equivalence():
    bits = np.random.default_rng(0).random((2, 4000)) < 0.9
    differences = bits[0].astype(float) - bits[1]
    more, less = (differences > 0).sum(), (differences < 0).sum()
    test = paired(differences, "mcnemar", margin=0.02, confidence=0.9)
    assert test.p == stats.binomtest(more, more + less).pvalue
    error = differences.std() / np.sqrt(len(differences))
    ends = stats.norm.interval(0.9, differences.mean(), error)
    assert test.difference[1:] == pytest.approx(ends)
    above, below = ((0.02 + sign * differences.mean()) / error for sign in (1, -1))
    assert test.equivalence == pytest.approx(stats.norm.sf(min(above, below)))
    assert paired([0, 0, 0], "mcnemar", margin=0.01)[3:] == (1.0, 0.0)


@pytest.mark.parametrize("margin", [0.001, 0.003, 0.01])
def test_equivalence_is_two_one_sided_t_tests_and_the_90_percent_interval(margin):
    above = stats.ttest_1samp(DIFFERENCES, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(DIFFERENCES, margin, alternative="less").pvalue
    p = paired(DIFFERENCES, margin=margin).equivalence
    assert p == pytest.approx(max(above, below))
    _, low, high = student(DIFFERENCES, 0.9)
    assert low is not None and high is not None and p is not None
    assert (p < 0.05) == (-margin < low and high < margin)


def test_tests_without_spread_and_of_a_single_pair():
    assert paired([0.002, 0.002], margin=0.005).equivalence == 0
    assert paired([0.002, 0.002], margin=0.001).equivalence == 1
    # Another pair may differ: p is that of a sign test, and rounding is no spread.
    assert [paired([0.02] * n).p for n in (1, 2, 6)] == [1, 0.5, 2 / 2**6]
    assert paired([0.0, 0.0]).p == 1 and paired([0.51 - 0.5, 0.91 - 0.9]).p == 0.5
    assert paired([0.1], margin=0.5)[0] == 1 and paired([0.1], margin=0.5).equivalence is None


@pytest.mark.parametrize(
    ("differences", "options", "message"),
    [
        ([], {}, "at least one difference"),
        ([0.1], {"test": "z"}, "'z' is none of t, signed-rank, mcnemar"),
        ([0.1, 0.2], {"margin": 0}, "a margin is positive"),
        ([0.1, 0.2], {"margin": float("nan")}, "a margin is positive"),
        ([0.1, 1], {"test": "mcnemar"}, "compares bits"),
    ],
)
def test_impossible_input_of_a_test(differences, options, message):
    with pytest.raises(ValueError, match=message):
        paired(differences, **options)


def verdict(differences, margin=None):
    return statistics.verdict(paired(differences, margin=margin))


@pytest.mark.parametrize(
    ("differences", "margin", "word"),
    [
        ([0.001, -0.001, 0.0005, 0.0], 0.005, "equal"),
        ([0.02, 0.021, 0.019, 0.02], 0.005, "better"),
        ([0.02, 0.021, 0.019, 0.02], None, "better"),
        ([-0.02, -0.021, -0.019, -0.02], 0.005, "worse"),
        # No difference is shown, but none is excluded either: not rejecting is no equality.
        ([0.03, -0.03, 0.02, -0.02], 0.005, "not decided"),
        # A difference that is sure and within the margin is without importance.
        ([0.0020, 0.0021, 0.0019], 0.005, "equal"),
        ([0.0020, 0.0021, 0.0019], 0.001, "better"),
        ([0.02, 0.021], 0.005, "not decided"),
        # Equal differences decide nothing before there are six; the last ones are equal but for rounding.
        ([0.0] * 5, 0.005, "not decided"),
        ([0.02] * 5, 0.005, "not decided"),
        ([0.002, 0.002 + 1e-17, 0.002], 0.005, "not decided"),
        ([0.0] * 6, 0.005, "equal"),
        ([0.002] * 6, 0.005, "equal"),
        ([0.02] * 6, 0.005, "better"),
    ],
)
def test_verdicts_need_evidence_either_way(differences, margin, word):
    assert verdict(differences, margin) == word


def test_the_error_rate_of_equal_is_5_percent_at_the_margin():
    random = np.random.default_rng(0).normal(0.005, 0.004, (300, 8))
    assert np.mean([verdict(row, 0.005) == "equal" for row in random]) == pytest.approx(0.05, abs=0.03)


def test_holms_correction():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9}) == {"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.9}
    with pytest.raises(ValueError, match="p is NaN"):
        holm({"a": np.nan, "b": 0.01})
    with pytest.raises(ValueError, match="and finite ones"):
        paired([0.1, 0.2, np.nan], margin=1)
    assert holm({}) == {} and holm({"a": 0.4, "b": 0.9}) == {"a": 0.8, "b": 0.9}
    # A verdict by it needs more than one by p alone.
    test = paired([0.01, 0.011, 0.012, 0.03])
    assert statistics.verdict(test) == "better" and statistics.verdict(test, 0.06) == "not decided"
    close = paired([0.001, -0.001, 0.0005, 0.0], margin=0.005)
    assert statistics.verdict(close) == "equal" and statistics.verdict(close, equivalence=0.06) == "not decided"


@pytest.mark.parametrize(("effect", "sd", "alpha"), [(0.5, 0.8, 0.05), (0.3, 1.0, 0.05 / 3), (1.0, 0.9, 0.05)])
def test_the_pairs_that_decide_find_the_effect_in_four_of_five_studies(effect, sd, alpha):
    pairs = pairs_to_decide(effect, sd, alpha)
    samples = np.random.default_rng(1).normal(effect, sd, (20_000, pairs))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < alpha).mean() == pytest.approx(0.8, abs=0.03)


def test_the_unit_of_a_measure_does_not_matter():
    """Energies in joules are as far apart as accuracies; rounding of large values is no difference."""
    joules = np.array([2.3e-12, 2.5e-12, 2.4e-12, 2.45e-12, 2.2e-12, 2.6e-12])
    assert statistics.paired(joules).p == pytest.approx(stats.ttest_1samp(joules, 0).pvalue)
    assert statistics.paired(joules, "signed-rank").p == pytest.approx(stats.wilcoxon(joules).pvalue)
    assert statistics.paired([1e-17, 0, -2e-17, 1e-17], largest=0.9).p == 1


@pytest.mark.parametrize("options", [{"confidence": 95}, {"confidence": np.nan}, {"overlap": -0.05}])
def test_options_of_an_interval_that_are_not_possible_are_refused(options):
    with pytest.raises(ValueError, match="is not possible"):
        statistics.paired([0.1, 0.2, 0.4], **options)


@pytest.mark.parametrize("first, second, p, equivalence", [
    ([0.9] * 3, [0.8] * 3, 2 / 20, 1.0),  # two of the twenty ways to share out six values are as far apart
    ([0.9] * 3, [0.9 + 1e-12] * 4, 1.0, 0.0),  # equal up to rounding
])  # fmt: skip
def test_welch_of_samples_without_spread_is_a_permutation_test(first, second, p, equivalence):
    result = statistics.welch(first, second, margin=0.05)
    assert result.p == pytest.approx(p)
    assert (result.equivalence, result.sd, result.pairs) == (equivalence, 0.0, 3)


def test_welch_of_a_single_value_knows_no_spread():
    result = statistics.welch([0.9], [0.8, 0.7], margin=0.05)
    assert result.difference.mean == pytest.approx(0.15) and result.difference.low is None
    assert np.isnan(result.sd) and result.p == 1 and result.equivalence is None


@pytest.mark.parametrize("first, second, options", [
    ([], [0.5], {}), ([0.5, np.nan], [0.5], {}), ([0.5], [0.5], {"margin": 0}), ([0.5], [0.5], {"confidence": 1}),
])  # fmt: skip
def test_impossible_samples_of_welch(first, second, options):
    with pytest.raises(ValueError, match=r"sample|margin|confidence"):
        statistics.welch(first, second, **options)
