"""Statistics of single studies, as they store them, and their text in tables; others are those of the package."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from csbp_jax.reporting.statistics import holm, paired, student


def student_dict(values: ArrayLike) -> dict[str, float]:
    """``{mean, low, high}`` with the 95 % interval by Student's t; of one value, ``{mean}``."""
    return {name: value for name, value in student(values)._asdict().items() if value is not None}


def half_widths(rows: ArrayLike) -> NDArray[np.float64]:
    """Half the 95 % interval (Student's t) of the mean over the first axis, ``[columns]``; 0 for a single row."""
    values = np.asarray(rows)
    if len(values) == 1:
        return np.zeros(values.shape[1])
    return np.asarray(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def group_means(values: ArrayLike, groups: Sequence[int]) -> list[NDArray[Any]]:
    """Mean over the first axis of each group, in the order of the groups."""
    rows, labels = np.asarray(values), np.asarray(groups)
    return [np.mean(rows[labels == group], axis=0) for group in sorted(set(groups))]


def wilson(solved: NDArray[Any]) -> dict[str, float]:
    """``{share, low, high}``: the share of True and its 95 % Wilson interval."""
    low, high = stats.binomtest(int(solved.sum()), len(solved)).proportion_ci(method="wilson")
    return {"share": float(solved.mean()), "low": float(low), "high": float(high)}


def solved_starts(solved: ArrayLike) -> dict[str, Any]:
    """``{share, low, high, solved}``: :func:`wilson`, and the starts themselves as :func:`bits`."""
    values = np.asarray(solved, bool)
    return {**wilson(values), "solved": bits(values)}


def bits(solved: NDArray[Any]) -> str:
    """One character per start, 1 where it is solved."""
    return "".join("01"[int(bit)] for bit in solved)


def compare_solved(results: Mapping[str, Mapping[str, Any]], reference: str) -> dict[str, dict[str, float]]:
    """Compare every condition with the reference, start by start, by McNemar's exact test.

    Args:
      results: ``{condition: {"solved": bits}}``, all of the same starts.

    Returns:
      ``{condition: {difference, half, p, more, less, n, p_holm}}``, without the reference. ``half`` is half the
      difference's 95 % interval, by the normal distribution of paired shares; ``more`` and ``less`` count the starts
      that only the condition solves, and only the reference; ``p_holm`` is Holm's correction over the conditions.
    """
    solved = {name: np.array([bit == "1" for bit in result["solved"]], float) for name, result in results.items()}
    base, compared = solved.pop(reference), {}
    for name, values in solved.items():
        differences = values - base
        test = paired(differences, "mcnemar")
        counts = {"more": int((differences > 0).sum()), "less": int((differences < 0).sum()), "n": test.pairs}
        mean, low, high = test.difference
        assert low is not None and high is not None
        compared[name] = {"difference": mean, "half": (high - low) / 2, "p": test.p, **counts}
    return with_holm(compared)


def with_holm(tests: Mapping[Any, Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The tests of a family, each with Holm's correction of its ``p`` as ``p_holm``."""
    corrected = holm({name: test["p"] for name, test in tests.items()})
    return {name: {**test, "p_holm": corrected[name]} for name, test in tests.items()}


def equivalence_of_shares(pair: Mapping[str, float], margin: float) -> dict[str, float]:
    """Test that two paired shares differ by less than ``margin``, by two one-sided tests (TOST) at 5 % each.

    Args:
      pair: a difference of :func:`compare_solved`.

    Returns:
      ``{margin, low, high, p}``: the ends of the 90 % interval of the difference, and the larger p of the two tests.
      The shares are equal within the margin where p is below 0.05, that is, where the interval lies inside the margin.
    """
    counts = [int(pair[name]) for name in ("more", "less", "n")]
    differences = np.repeat([1, -1, 0], [*counts[:2], counts[2] - sum(counts[:2])])
    test = paired(differences, "mcnemar", margin=margin, confidence=0.9)
    _, low, high = test.difference
    assert low is not None and high is not None and test.equivalence is not None
    return {"margin": margin, "low": low, "high": high, "p": test.equivalence}


def ranked_above(values: NDArray[Any], group: NDArray[Any], draws: int = 2000) -> dict[str, float] | None:
    """Probability that a value of the group is larger than one outside it (area under the ROC curve).

    Ties count one half. ``{share, low, high}`` with the 95 % interval of ``draws`` bootstrap samples of either side;
    None if one of the sides is empty.
    """
    inside, outside = values[group], values[~group]
    if not len(inside) or not len(outside):
        return None

    def area(inside: NDArray[Any], outside: NDArray[Any]) -> float:
        return float(stats.mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))

    generator = np.random.default_rng(0)
    areas = [area(*(generator.choice(side, len(side)) for side in (inside, outside))) for _ in range(draws)]
    low, high = np.quantile(areas, (0.025, 0.975))
    return {"share": area(inside, outside), "low": float(low), "high": float(high)}


def best_weights(total: int, n: int) -> NDArray[np.float64]:
    """Weight of each of ``total`` ordered values in the expected largest of n, drawn without replacement, ``[total]``.

    The i-th smallest is the largest of n with probability C(i-1, n-1) / C(total, n).
    """
    return special.comb(np.arange(total), n - 1) / special.comb(total, n)


# --- text ---------------------------------------------------------------------------------------------------------


def mean_text(values: ArrayLike, digits: str = ".3g") -> str:
    """``mean [low, high]`` with the 95 % interval by Student's t; of one value, the mean."""
    mean, *ends = (f"{value:{digits}}" for value in student_dict(values).values())
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def percent_text(interval: Mapping[str, float | None], sign: str = "") -> str:
    """``mean [low, high]`` in percent; ``sign`` "+" writes the sign of positive numbers too."""
    mean, *ends = (f"{100 * value:{sign}.2f}" for value in interval.values() if value is not None)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def share_text(result: Mapping[str, float]) -> str:
    """``share [low, high]`` of :func:`wilson`, in percent."""
    return f"{100 * result['share']:.1f} [{100 * result['low']:.1f}, {100 * result['high']:.1f}]"


def points_text(pair: Mapping[str, float]) -> str:
    """A difference of :func:`compare_solved` with half its 95 % interval, in points."""
    return f"{100 * pair['difference']:+.1f} ± {100 * pair['half']:.1f}"
