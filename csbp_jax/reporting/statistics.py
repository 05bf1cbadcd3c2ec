"""Intervals of means, and tests of paired differences, in SciPy's terms."""

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import scipy  # not its submodules, which it imports at their first use: they take half a second
from numpy.typing import ArrayLike, NDArray

Test = Literal["t", "signed-rank", "mcnemar"]
"""Tests of :func:`paired`."""

AnyTest = Literal["t", "signed-rank", "mcnemar", "welch"]
"""Tests of :func:`paired`, and that of :func:`welch`."""

Verdict = Literal["equal", "better", "worse", "not decided"]

MIN_PAIRS, MIN_EQUAL_PAIRS = 3, 6
"""Fewest pairs that :func:`verdict` decides on, and fewest if all of their differences are equal."""

ROUNDING = 2.0**-30
"""Share of the largest measured value, about 1e-9, below which differences are taken for rounding.

As a power of two it has no difference of shares of examples in the middle between two of its multiples.
"""

Name = TypeVar("Name", bound=Hashable)


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, None if there is only one value."""

    mean: float
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """A test of paired differences.

    pairs: their number. difference: the mean, with its interval. sd: standard deviation of the differences, NaN of a
    single one, and 0 if all are equal up to rounding. p: two-sided. equivalence: p of two one-sided tests that the mean
    lies within a margin (Schuirmann 1987); None without a margin or with a single pair.
    """

    pairs: int
    difference: Interval
    sd: float
    p: float
    equivalence: float | None


def student(values: ArrayLike, confidence: float = 0.95, overlap: float = 0.0) -> Interval:
    """Compute a mean with Student's t interval, ``mean +- t s sqrt(1/n + overlap)``.

    Args:
      values: ``[n]``.
      confidence: of the interval.
      overlap: as of :func:`paired`.

    Raises:
      ValueError: there are no values, or the confidence or the overlap is not possible.
    """
    values = np.asarray(values, float)
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    _check_interval(confidence, overlap)
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None)
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * _error(values, overlap)
    return Interval(mean, mean - half, mean + half)


def _check_interval(confidence: float, overlap: float) -> None:
    """Raise ValueError for a confidence or an overlap that is not possible."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not possible; give a share between 0 and 1, such as 0.95")
    if not 0 <= overlap < math.inf:
        raise ValueError(f"overlap: {overlap} is not possible; give a number from 0 on, test over training examples")


def _error(values: NDArray[np.float64], overlap: float) -> float:
    """Standard error of a mean."""
    return float(np.std(values, ddof=1)) * math.sqrt(1 / len(values) + overlap)


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Compute the ends of Wilson's 95 % score interval of a share, which lie within [0, 1].

    >>> wilson(10, 10)
    (0.7224..., 1.0)

    Raises:
      ValueError: ``count`` is 0, or less than ``successes``.
    """
    low, high = scipy.stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def student_of_shares(shares: Sequence[float]) -> Interval:
    """Compute the mean of shares, such as accuracies, with a 95 % interval that stays in [0, 1].

    It is Student's t interval on the logit scale, ``expit(logit(mean) +- t s / (sqrt(n) mean (1 - mean)))``: close to
    :func:`student` where that is far from 0 and 1, and asymmetric elsewhere. Without spread, as where all shares are 1,
    it has no width.

    Raises:
      ValueError: there are no shares, or one is outside [0, 1].
    """
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError("shares are in [0, 1]")
    mean, low, high = student(shares)
    if low is None or high is None or low == high:
        return Interval(mean, low, high)
    half = (high - mean) / (mean * (1 - mean))
    low, high = (float(scipy.special.expit(scipy.special.logit(mean) + side * half)) for side in (-1, 1))
    return Interval(mean, low, high)


def mean_and_ends(values: ArrayLike, shares: bool = False) -> NDArray[np.float64]:
    """Compute a mean with the ends of its 95 % interval, ``[3]``, in which what is not known is NaN.

    Args:
      values: ``[n]``; of none, the mean is not known, and of a single value the ends.
      shares: whether they are shares (:func:`student_of_shares`, else :func:`student`).
    """
    values = np.asarray(values, float)
    if not len(values):
        return np.full(3, np.nan)
    return np.array(student_of_shares(values.tolist()) if shares else student(values), float)


def paired(
    differences: ArrayLike,
    test: Test = "t",
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    overlap: float = 0.0,
    largest: float | None = None,
) -> Paired:
    """Test that the mean of paired differences is 0.

    Args:
      differences: ``[n]``.
      test: "t" is Student's test (:func:`scipy.stats.ttest_rel`). "signed-rank" is Wilcoxon's
        (:func:`signed_rank`), with Student's interval and equivalence. "mcnemar" is McNemar's exact test, of
        differences of bits (-1, 0, 1), with interval and equivalence by the normal distribution of paired shares.
      margin: the largest mean difference without importance, for the equivalence.
      confidence: of the interval.
      overlap: numbers of test examples over training examples, of folds that share training data: the variance of the
        mean is ``(1/n + overlap) s^2`` (Nadeau and Bengio, Machine Learning 2003, section 3.3). Not for "mcnemar".
      largest: the largest absolute value that was measured in either arm; by default the largest absolute difference.
        Differences that are closer to each other, or to 0, than :data:`ROUNDING` times it count as equal: two
        accuracies that are equal in theory may differ in their last bits.

    Raises:
      ValueError: there are no differences, or one is not finite; no such test; the margin is not positive; the
        confidence or the overlap is not possible; or "mcnemar" gets other numbers.
    """
    values = np.asarray(differences, float)
    if test not in get_args(Test):
        raise ValueError(f"test: {test!r} is none of {', '.join(get_args(Test))}")
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a test needs at least one difference, and finite ones")
    if margin is not None and not margin > 0:
        raise ValueError("a margin is positive")
    _check_interval(confidence, overlap)
    n, mean = len(values), float(np.mean(values))
    rounding = _rounding(values, largest)
    all_equal = bool(np.ptp(values) <= rounding)
    sd = math.nan
    if n > 1:
        sd = 0.0 if all_equal else float(np.std(values, ddof=1))
    if test == "mcnemar":
        if not np.isin(values, (-1, 0, 1)).all():
            raise ValueError("test: mcnemar compares bits, and these measures are not all 0 or 1")
        more, less = int((values > 0).sum()), int((values < 0).sum())
        p = float(scipy.stats.binomtest(more, more + less).pvalue) if more + less else 1.0
        error = math.sqrt(more + less - (more - less) ** 2 / n) / n
        half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * error
        difference, tail = Interval(mean, mean - half, mean + half), scipy.stats.norm.sf
    else:
        difference, error = student(values, confidence, overlap), _error(values, overlap) if n > 1 else math.nan
        if test == "signed-rank":
            p = signed_rank(values, largest)
        elif all_equal:
            # That of a sign test, as another pair may differ from these.
            p = float(2.0 ** (1 - n)) if abs(mean) > rounding else 1.0
        else:
            p = float(2 * scipy.stats.t.sf(abs(mean) / error, n - 1))
        tail = functools.partial(scipy.stats.t.sf, df=n - 1)
    equivalence = None
    if margin is not None and n > 1:
        distance = margin - abs(mean)
        # Without spread, the mean is known.
        equivalence = float(tail(distance / error)) if error else float(distance <= 0)
    return Paired(n, difference, sd, p, equivalence)


def welch(
    first: ArrayLike,
    second: ArrayLike,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
    largest: float | None = None,
) -> Paired:
    """Test by Welch's t that two independent samples have the same mean (:func:`scipy.stats.ttest_ind`).

    The error of the difference is ``sqrt(s1^2/n1 + s2^2/n2)``, with the degrees of freedom of Welch (Biometrika 1947).

    Args:
      first: ``[n1]``.
      second: ``[n2]``.
      margin: as of :func:`paired`.
      confidence: of the interval.
      largest: the largest absolute value, for what counts as equal; by default that of both samples.

    Returns:
      The mean of ``first`` less that of ``second``. ``pairs`` is the size of the smaller sample, and ``sd`` is
      ``sqrt(s1^2 + s2^2)``, the standard deviation of the difference of two single values. Where both samples have no
      spread, p is that of a permutation test, for another value may differ.

    Raises:
      ValueError: a sample has no values, or one that is not finite; the margin is not positive; or the confidence is
        not possible.
    """
    one, two = np.asarray(first, float), np.asarray(second, float)
    if not len(one) or not len(two) or not np.isfinite([*one, *two]).all():
        raise ValueError("a test needs at least one value of each sample, and finite ones")
    if margin is not None and not margin > 0:
        raise ValueError("a margin is positive")
    _check_interval(confidence, 0.0)
    mean, fewest = float(np.mean(one) - np.mean(two)), min(len(one), len(two))
    if fewest == 1:
        return Paired(fewest, Interval(mean, None, None), math.nan, 1.0, None)
    rounding = _rounding(np.concatenate([one, two]), largest)
    if max(np.ptp(one), np.ptp(two)) <= rounding:
        p = min(1.0, 2 / math.comb(len(one) + len(two), len(one))) if abs(mean) > rounding else 1.0
        equivalence = None if margin is None else float(abs(mean) >= margin)  # without spread, the mean is known
        return Paired(fewest, Interval(mean, mean, mean), 0.0, p, equivalence)
    result = scipy.stats.ttest_ind(one, two, equal_var=False)
    low, high = result.confidence_interval(confidence)
    variances = np.var(one, ddof=1), np.var(two, ddof=1)
    error = math.sqrt(variances[0] / len(one) + variances[1] / len(two))
    equivalence = None
    if margin is not None:
        equivalence = float(scipy.stats.t.sf((margin - abs(mean)) / error, result.df))
    difference = Interval(mean, float(low), float(high))
    return Paired(fewest, difference, math.sqrt(sum(variances)), float(result.pvalue), equivalence)


def _rounding(differences: NDArray[np.float64], largest: float | None) -> float:
    """Return the size of a difference that may be one of rounding; ``largest`` is that of :func:`paired`."""
    if largest is None:
        largest = float(np.max(np.abs(differences), initial=0.0))
    return ROUNDING * largest


def signed_rank(differences: ArrayLike, largest: float | None = None) -> float:
    """Compute the two-sided p of Wilcoxon's signed-rank test; 1 if all differences are 0.

    Differences of 0 are left out. p of up to 13 others is exact, and cannot be below 0.05 if they are fewer than six.

    Args:
      differences: ``[n]``.
      largest: as of :func:`paired`.
    """
    values = np.asarray(differences, float)
    rounding = _rounding(values, largest)
    # Differences of accuracies that are equal in theory differ by rounding, and would not count as ties.
    rounded = np.round(values / rounding) if rounding else values
    # SciPy leaves zeros out too, but counts them where it decides whether there are few enough for an exact p.
    others = rounded[rounded != 0]
    return float(scipy.stats.wilcoxon(others).pvalue) if len(others) else 1.0


def verdict(result: Paired, p: float | None = None, equivalence: float | None = None) -> Verdict:
    """Decide between equal, better and worse, each at a level of 5 %.

    equal: within the margin, even if the difference is sure. better, worse: otherwise, p is below 0.05. not decided:
    neither, or there are fewer than :data:`MIN_PAIRS` differences, or fewer than :data:`MIN_EQUAL_PAIRS` that are all
    equal.

    Args:
      result: of :func:`paired`.
      p: the p of the difference, by default the result's own; a corrected one if the result is one of several.
      equivalence: the p of equality, likewise.
    """
    # Equal differences have no spread, but another pair may differ: a value that 60 % of all pairs have comes three
    # times in a row with p = 0.22, and six times with p = 0.047.
    if result.pairs < MIN_PAIRS or (result.pairs < MIN_EQUAL_PAIRS and result.sd == 0):
        return "not decided"
    if p is None:
        p = result.p
    if equivalence is None:
        equivalence = result.equivalence
    if equivalence is not None and equivalence < 0.05:
        return "equal"
    if p < 0.05:
        return "better" if result.difference.mean > 0 else "worse"
    return "not decided"


def holm(ps: Mapping[Name, float]) -> dict[Name, float]:
    """Correct ``{name: p}`` of several tests by Holm's step-down method.

    Raises:
      ValueError: a p is NaN.
    """
    if any(map(math.isnan, ps.values())):
        raise ValueError("holm: p is NaN; leave out tests that were not made")
    corrected, worst = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        corrected[name] = worst = max(worst, min(1.0, ps[name] * (len(ps) - rank)))
    return corrected


def pairs_to_decide(effect: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Compute about how many pairs a t test needs to find a mean difference with probability ``power``.

    ``((z(1 - alpha/2) + z(power)) sd / effect)^2 + z(1 - alpha/2)^2 / 2`` (Guenther, American Statistician 1981), with
    the quantiles z of the normal distribution.

    Args:
      effect: the mean difference.
      sd: of the paired differences.
      alpha: level, two-sided; for the first step of Holm's correction over k comparisons, that of one divided by k.
      power: the probability.
    """
    of_level, of_power = (float(scipy.stats.norm.ppf(share)) for share in (1 - alpha / 2, power))
    return max(MIN_PAIRS, math.ceil(((of_level + of_power) * sd / effect) ** 2 + of_level**2 / 2))
