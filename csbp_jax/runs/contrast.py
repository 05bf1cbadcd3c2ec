"""Differences between arms of a table of runs: interval, p, equivalence, and the pairs that would decide."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from csbp_jax import ranges
from csbp_jax.reporting import measures, statistics
from csbp_jax.reporting.measures import Measure
from csbp_jax.reporting.statistics import AnyTest
from csbp_jax.runs.shown import Shown

Over = Literal["seed", "draw", "case"]
"""What a pair is: a seed, a draw of settings (the mean over its seeds), or a case (the mean over all of its runs)."""

KEYS = ["case", "draw", "seed"]
"""Columns by which runs of two arms make a pair."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Contrast(Shown):
    """Differences of arms from others, each within a case.

    frame: a row for each difference, with these columns. ``case``, ``arm``, ``other``; ``pairs``, and ``left_out``, the
    runs of either arm without a pair (diverged, or of seeds that the other lacks). ``difference`` with ``low`` and
    ``high``, the ends of its interval, and ``sd`` of the pairs' differences. ``p``, and ``p_holm``, corrected over all
    differences of the case. ``equivalence``: p of two one-sided tests that the difference lies within the margin, and
    ``equivalence_holm``, corrected over the same differences. ``verdict``: "equal", "better", "worse" or "not decided",
    by ``p_holm`` and ``equivalence_holm`` at 5 % (:func:`csbp_jax.reporting.statistics.verdict`). ``to_decide``: about
    how many pairs find a difference of ``effect`` with a probability of 80 %. Without a pair ``verdict`` is "no
    values", if an arm has no finite one, or "no pairs". ``seed_share``: of pairs of draws, the share of their variance
    that more seeds a draw would remove.

    Of Welch's test, which makes no pairs, ``pairs`` is the number of seeds, or draws, of the arm that has fewer,
    ``left_out`` counts the runs without a finite measure, ``sd`` is that of the difference of two single values, and
    ``to_decide`` is a number for each arm.

    All numbers are in the unit of the measure; of a share, such as an accuracy or F1, in percentage points.

    shown: how the measure is named and written.
    differences: by the numbers of the rows, the difference of each pair; of Welch's test, none.
    notes: what comparisons with controls of the chaos term can tell (:mod:`csbp_jax.runs.telling`).
    """

    frame: pd.DataFrame
    measure: str
    over: Over
    test: AnyTest
    margin: float | None
    confidence: float
    differences: tuple[pd.Series, ...]
    shown: Measure
    notes: tuple[str, ...] = ()

    def __getitem__(self, other: str) -> "pd.Series[Any]":
        """Return the row of the difference from an arm.

        Raises:
          KeyError: there is no such row, or several, as of several cases.
        """
        rows = self.frame[self.frame["other"] == other]
        if len(rows) != 1:
            raise KeyError(f"{other}: {len(rows)} differences are from it; select from .frame")
        return rows.iloc[0]

    @property
    def unit(self) -> str:
        """Unit of the differences, with a blank before it."""
        return " points" * self.shown.share

    def heading(self) -> str:
        """Return what is compared, and how."""
        held = f", {len(self.frame)} differences" if len(self.frame) > 1 else ""
        name = _TESTS[self.test]
        rows = f"of unpaired {self.over}s" if self.test == "welch" else f"paired over {self.over}s"
        return f"{self.measure}, {rows}{held}: {100 * self.confidence:g} % intervals, {name}"

    def lines(self) -> Iterator[str]:
        """Yield a sentence for each difference: the answer first, then what it rests on."""
        for _, row in self.frame.iterrows():
            case = f"{row['case']}: " if row["case"] else ""
            yield f"{case}{row['arm']} - {row['other']}: {', '.join(self._answer(row))}"

    def _answer(self, row: "pd.Series[Any]") -> Iterator[str]:
        if not row["pairs"]:
            no_values = f"one has no finite {measures.words(self.measure)}"
            yield "no difference, as " + (no_values if row["verdict"] == "no values" else "no two have the same seed")
            return
        yield self._interval(row) + self.unit
        if row["pairs"] > 1:
            corrected = "" if row["p_holm"] == row["p"] else f" (Holm {row['p_holm']:.2g})"
            yield f"p {row['p']:.2g}{corrected}"
        yield self._verdict(row)
        unpaired = self.test == "welch"
        reason = "without a finite value" if unpaired else "as diverged or without a partner"
        left_out = f" (left out {reason}: {row['left_out']})" if row["left_out"] else ""
        arm = " in the smaller arm" if unpaired else ""
        yield f"{row['pairs']} {self.over}{'s' if row['pairs'] != 1 else ''}{arm}{left_out}"
        if row["pairs"] < 3:  # whose spread tells nothing of how many would do
            return
        if row["verdict"] == "not decided" and not math.isnan(row["to_decide"]):
            pairs = "pairs" if self.over == "seed" and not unpaired else f"{self.over}s{' an arm' * unpaired}"
            amount = self._amount(row["effect"])
            if row["to_decide"] > row["pairs"]:
                yield f"about {row['to_decide']:.0f} {pairs} would decide {amount}"
            elif self.margin is None:
                yield f"a difference of {amount} would probably have shown; whether it is equal needs a margin"
            else:
                yield f"a difference of {amount} would probably have shown"
        if row["seed_share"] == 1:
            yield "no spread beyond that of the seeds"
        elif not math.isnan(row["seed_share"]):
            yield f"{row['seed_share']:.0%} of the variance is seeds"

    def _interval(self, row: "pd.Series[Any]") -> str:
        digits = "+z.2f" if self.unit else "+z.3g"  # z: no -0.00
        mean, low, high = (f"{row[name]:{digits}}" for name in ("difference", "low", "high"))
        if not row["pairs"]:
            return ""
        if math.isnan(row["low"]):
            return mean
        return f"{mean} (all equal)" if row["sd"] == 0 else f"{mean} [{low}, {high}]"

    def _verdict(self, row: "pd.Series[Any]") -> str:
        return f"equal within {self._amount(self.margin or 0)}" if row["verdict"] == "equal" else str(row["verdict"])

    def _amount(self, number: float) -> str:
        text = f"{number:.3g}"
        return text + (self.unit.removesuffix("s") if text == "1" else self.unit)

    def cells(self) -> pd.DataFrame:
        """Return the table, all of it text."""
        rows = [
            {
                "case": row["case"],
                "difference": f"{row['arm']} - {row['other']}",
                f"{measures.words(self.measure)}{self.unit and ' (points)'}": self._interval(row),
                "p": f"{row['p']:.2g}" if row["pairs"] else "",
                "p, Holm": f"{row['p_holm']:.2g}" if row["pairs"] else "",
                "p of equivalence": f"{row['equivalence']:.2g}" if row["pairs"] else "",
                "p of equivalence, Holm": f"{row['equivalence_holm']:.2g}" if row["pairs"] else "",
                "verdict": self._verdict(row),
                "pairs": str(row["pairs"]),
                "to decide": f"{row['to_decide']:.0f} for {row['effect']:.3g}" if row["to_decide"] > 0 else "",
            }
            for _, row in self.frame.iterrows()
        ]
        empty = []
        if not any(self.frame["case"]):
            empty.append("case")
        if self.margin is None:
            empty += ["p of equivalence", "p of equivalence, Holm"]
        return pd.DataFrame(rows).drop(columns=empty, errors="ignore")  # without a difference there is no column

    def __repr__(self) -> str:
        return "\n".join([self.heading(), *self.lines(), *(f"note: {note}" for note in self.notes)])


_TESTS = {"t": "t test", "signed-rank": "signed-rank test", "mcnemar": "McNemar's test", "welch": "Welch's test"}


def contrast(
    runs: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    measure: str,
    *,
    over: Over = "seed",
    test: AnyTest = "t",
    margin: float | None = None,
    confidence: float = 0.95,
    overlap: float = 0.0,
    shown: Measure | None = None,
) -> Contrast:
    """Compare pairs of arms.

    Args:
      runs: a row for each run, with columns ``case``, ``arm``, ``draw``, ``seed`` and ``measure``. A run whose measure
        is not finite makes no pair.
      pairs: arms, and those that they are compared with.
      measure, over, test, margin, confidence, overlap: as of :meth:`csbp_jax.runs.RunTable.contrast`.
      shown: how the measure is written; by default by its name.

    Raises:
      ValueError: an arm has two runs of the same case, draw and seed; an option is not possible, or not with Welch's
        test; or an accuracy or another share is above 1.
      TypeError: the margin is a text.
    """
    if margin is not None:
        ranges.require("contrast", ranges.ABOVE_0, margin=margin)
    if over not in get_args(Over):
        raise ValueError(f"over: {over!r} is none of {', '.join(get_args(Over))}")
    if test == "welch" and (over == "case" or overlap):
        raise ValueError("test: welch compares seeds or draws that make no pairs; with cases or overlap use another")
    needed = runs[runs["arm"].isin({arm for pair in pairs for arm in pair})]
    _check_single(needed)
    values = needed.set_index([*KEYS, "arm"])[measure].astype(float).unstack("arm").where(np.isfinite)
    shown = shown or measures.of(measure)
    if shown.share and (values > 1 + statistics.ROUNDING).any(axis=None):
        raise ValueError(f"{measure}: is a share, and at most 1, but some values are larger; divide percentages by 100")
    scale = shown.scale
    values = values * scale

    cases = list(dict.fromkeys(needed["case"]))
    families = [("", cases)] if over == "case" else [(case, [case]) for case in cases]
    rows, differences = [], []
    for name, in_case in families:
        of_case = values[values.index.get_level_values("case").isin(in_case)]
        count = needed["arm"][needed["case"].isin(in_case)].value_counts()
        compared = [
            compare(of_case, pair, over, test, margin=margin, confidence=confidence, overlap=overlap)
            for pair in pairs
            if pair[0] in count and pair[1] in count
        ]
        results = {difference.pair: difference.result for difference in compared if difference.result}
        p_holm = statistics.holm({pair: result.p for pair, result in results.items()})
        equivalences = {pair: result.equivalence for pair, result in results.items()}
        equivalence_holm = statistics.holm({pair: p for pair, p in equivalences.items() if p is not None})
        for difference in compared:
            arm, other = difference.pair
            row = {"case": name, "arm": arm, "other": other, "seed_share": difference.seed_share}
            row["left_out"] = int(count[arm] + count[other]) - difference.used
            if difference.result:
                corrected = p_holm[difference.pair], equivalence_holm.get(difference.pair, math.nan)
                row |= _numbers(difference.result, corrected, scale, margin, len(results), overlap)
            else:
                has_values = of_case[[arm, other]].notna().any().all()
                row |= {"pairs": 0, "verdict": "no pairs" if has_values else "no values"}
            rows.append(row)
            differences.append(difference.values)
    return Contrast(
        pd.DataFrame(rows, columns=list(_COLUMNS)), measure, over, test, margin, confidence, tuple(differences), shown
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of one arm from another, within a case or over all of them.

    pair: the arm, and the other. values: a difference for each seed, draw or case; none of Welch's test. used: how many
    runs of both arms are compared. result: of the test; None if there is nothing to test. seed_share: as of
    :class:`Contrast`.
    """

    pair: tuple[str, str]
    values: "pd.Series[Any]"
    used: int
    result: statistics.Paired | None
    seed_share: float


def compare(
    values: pd.DataFrame, pair: tuple[str, str], over: Over, test: AnyTest, *, margin: float | None, **options: float
) -> Difference:
    """Compare an arm with another, without a correction for other comparisons.

    Args:
      values: of one measure; a row for each case, draw and seed (:data:`KEYS`), a column for each arm, and NaN where a
        run is missing or its measure is not finite.
      pair: two of the arms.
      over, test, margin: as of :meth:`csbp_jax.runs.RunTable.contrast`.
      options: ``confidence`` and ``overlap``, likewise.
    """
    if test == "welch":
        return _compare_unpaired(values, pair, over, margin, options["confidence"])
    arms = values[list(pair)].dropna()
    by_run = arms[pair[0]] - arms[pair[1]]
    differences = by_run if over == "seed" else by_run.groupby(level=over).mean()
    result = None
    if len(differences):
        largest = float(np.max(np.abs(arms.to_numpy(float))))
        result = statistics.paired(differences, test, margin=margin, largest=largest, **options)
    seed_share = _seed_share(by_run) if over == "draw" else math.nan
    return Difference(pair, differences, 2 * len(by_run), result, seed_share)


def _compare_unpaired(
    values: pd.DataFrame, pair: tuple[str, str], over: Over, margin: float | None, confidence: float
) -> Difference:
    """Compare two arms whose runs make no pairs, by Welch's test; arguments as of :func:`compare`."""
    runs = [values[arm].dropna() for arm in pair]
    samples = runs if over == "seed" else [of_arm.groupby(level=over).mean() for of_arm in runs]
    result = None
    if all(len(sample) for sample in samples):
        result = statistics.welch(samples[0], samples[1], margin=margin, confidence=confidence)
    used = sum(len(of_arm) for of_arm in runs) if result else 0
    return Difference(pair, pd.Series(dtype=float), used, result, math.nan)


def _check_single(runs: pd.DataFrame) -> None:
    if (twice := runs.duplicated([*KEYS, "arm"])).any():
        row = runs[twice].iloc[0]
        raise ValueError(
            f"arm {row['arm']} has several runs of seed {row['seed']}, which make no pair; select a setting of it "
            "(RunTable.where)"
        )


_COLUMNS = (
    *("case", "arm", "other", "pairs", "left_out", "difference", "low", "high", "sd", "p", "p_holm"),
    *("equivalence", "equivalence_holm", "verdict", "to_decide", "effect", "seed_share"),
)


def _numbers(
    result: statistics.Paired,
    corrected: tuple[float, float],
    scale: float,
    margin: float | None,
    tests: int,
    overlap: float,
) -> dict[str, Any]:
    """Return the numbers of a row; ``corrected`` holds its two p, of the difference and of equality, by Holm."""
    mean, low, high = (math.nan if end is None else end for end in result.difference)
    effect = margin or (1.0 if scale > 1 else abs(mean))
    # More folds of the same data are no new pairs.
    known = effect and result.sd > 0 and not overlap
    return {
        "pairs": result.pairs,
        "difference": mean,
        "low": low,
        "high": high,
        "sd": result.sd,
        "p": result.p,
        "p_holm": corrected[0],
        "equivalence": math.nan if result.equivalence is None else result.equivalence,
        "equivalence_holm": corrected[1],
        "verdict": statistics.verdict(result, *corrected),
        "to_decide": statistics.pairs_to_decide(effect, result.sd, 0.05 / tests) if known else math.nan,
        "effect": effect,
    }


def _seed_share(by_pair: "pd.Series[Any]") -> float:
    """Share of the variance of the draws' means that comes from their seeds; NaN if no draw has two seeds."""
    draws = by_pair.groupby(level="draw")
    of_seeds, of_means = (draws.var() / draws.count()).mean(), draws.mean().var()
    rounding = statistics.ROUNDING * by_pair.abs().max()
    return float(np.clip(of_seeds / of_means, 0, 1)) if of_means > rounding**2 else math.nan
