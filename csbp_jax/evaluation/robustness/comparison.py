"""Accuracies of runs under perturbations, differences between settings, and the check for masked gradients."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from csbp_jax.evaluation.compare import Pairs
from csbp_jax.evaluation.robustness import battery
from csbp_jax.evaluation.robustness.measure import Measured, Outcome
from csbp_jax.reporting.statistics import Interval, student_of_shares, wilson
from csbp_jax.runs.contrast import Contrast, contrast

Scores = dict[str, NDArray[np.float64]]
"""``[severities, examples]`` by perturbation: 1 where an example is correct, or the share of draws in which it is."""


class Difference(NamedTuple):
    """Differences of an arm from its control, paired over seeds or over examples, by perturbation.

    over: "seeds", or "examples" where the two share fewer than two seeds. by_perturbation: rows of a
    :class:`csbp_jax.runs.Contrast` of mean accuracies over the severities, by the signed-rank test; "corruptions" is
    the mean over all perturbations of inputs, "attacks" the worst of both attacks.
    """

    arm: str
    control: str
    over: str
    by_perturbation: dict[str, Contrast]


def scores(measured: Measured) -> Scores:
    """Combine the variants of each perturbation: the mean over draws, the worst over surrogates."""
    return {name: _combined(name, outcome) for name, outcome in measured.outcomes.items()}


def _combined(name: str, outcome: Outcome) -> NDArray[np.float64]:
    if name in battery.PERTURBATIONS and battery.PERTURBATIONS[name].kind == "attack":
        return outcome.correct.all(axis=1).astype(float)
    return outcome.correct.mean(axis=1)


def from_clean(outcomes: Mapping[str, Outcome], name: str) -> NDArray[np.float64]:
    """Return the scores of a perturbation, ``[1 + severities, examples]``, after those without it."""
    of_name, clean = outcomes[name], outcomes["clean"]
    unperturbed = clean.correct[:, :, np.isin(clean.rows, of_name.rows)]
    return np.concatenate([_combined("clean", Outcome(unperturbed, ("",), of_name.rows)), _combined(name, of_name)])


def summaries(by_severity: Scores) -> dict[str, NDArray[np.float64]]:
    """Average the scores of each perturbation over its severities, ``[examples]``, with "corruptions" and "attacks"."""
    means = {name: values.mean(axis=0) for name, values in by_severity.items()}
    kinds = {name: battery.PERTURBATIONS[name].kind for name in means if name in battery.PERTURBATIONS}
    corruptions = [means[name] for name, kind in kinds.items() if kind in ("pictures", "events")]
    if len(corruptions) > 1:
        means["corruptions"] = np.mean(corruptions, axis=0)
    if {"pgd", "square"} <= set(kinds):
        means["attacks"] = np.minimum(by_severity["pgd"], by_severity["square"]).mean(axis=0)
    return means


def differences(
    runs: pd.DataFrame, pairs: Pairs, by_run: Mapping[str, Scores], margin: float | None
) -> list[Difference]:
    """Compare each arm with its control.

    Args:
      runs: the frame of a :class:`csbp_jax.runs.RunTable`, with ``run``.
      pairs: arms, each with its control.
      by_run: scores by ``run``, of the same examples.
      margin: largest difference without importance, in percentage points, for the verdicts.
    """
    compared = []
    for pair in pairs:
        of_pair = runs[runs["arm"].isin(pair)]
        shared = of_pair["seed"][of_pair.duplicated(["case", "seed"])]
        of_pair = of_pair[of_pair["seed"].isin(shared)] if len(shared) else of_pair
        of_pair = of_pair if len(shared) > 1 else of_pair.drop_duplicates("arm")
        means = {run: summaries(by_run[run]) for run in of_pair["run"]}
        names = [name for name in next(iter(means.values())) if all(name in of for of in means.values())]
        by_perturbation = {}
        for name in names:
            scored = of_pair.assign(accuracy=of_pair["run"].map({run: of[name] for run, of in means.items()}))
            if len(shared) > 1:
                scored["accuracy"] = scored["accuracy"].map(np.mean)
            else:
                scored = scored.explode("accuracy").assign(seed=lambda rows: rows.groupby("arm").cumcount())
            by_perturbation[name] = contrast(scored, [pair], "accuracy", test="signed-rank", margin=margin)
        compared.append(Difference(*pair, "seeds" if len(shared) > 1 else "examples", by_perturbation))
    return compared


def interval(rows: Sequence[NDArray[np.float64]]) -> Interval:
    """Return the mean accuracy of a setting, from the scores ``[examples]`` of its runs.

    The interval is over the runs (:func:`csbp_jax.reporting.statistics.student_of_shares`), or Wilson's over the
    examples of a single run, which does not cover the choice of draws.
    """
    if len(rows) > 1:
        return student_of_shares([float(row.mean()) for row in rows])
    mean, count = float(rows[0].mean()), len(rows[0])
    low, high = wilson(round(mean * count), count)
    return Interval(mean, min(low, mean), max(high, mean))


class MaskingCheck(NamedTuple):
    """Whether the white-box attack is believed at one strength: if it is the stronger of the two, or fools all.

    eps: in 1/255. white, black: accuracies under PGD (worst of its surrogates) and under the square attack.
    """

    eps: float
    white: float
    black: float

    @property
    def counts(self) -> bool:
        """Whether the number of PGD counts."""
        return self.white < self.black or self.white == 0


def masking_checks(by_severity: Scores) -> list[MaskingCheck]:
    """Compare PGD with the square attack at each strength; nothing if one of them is missing."""
    if not {"pgd", "square"} <= set(by_severity):
        return []
    eps = battery.PERTURBATIONS["pgd"].severities
    accuracies = zip(eps, by_severity["pgd"].mean(axis=1), by_severity["square"].mean(axis=1), strict=True)
    return [MaskingCheck(strength, float(white), float(black)) for strength, white, black in accuracies]
