"""The code that :mod:`tools.analyses` checks: tests of plain arrays, and verdicts from their numbers.

To check other code, replace :data:`TESTS` and :data:`VERDICTS`. A test takes arrays and options, and returns numbers by
their names. A verdict takes the numbers of a family's rows by the names of their arrays, and all arrays. Families of
other tests and rules, whose studies are archived, are data that nothing checks.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks import time_page
from csbp_jax.reporting import statistics
from csbp_jax.reporting.statistics import holm, paired
from experiments import statistics as of_studies
from experiments.cbp import overshoot
from experiments.ergodic import pages as ergodic
from experiments.nmnist import __main__ as nmnist
from experiments.xor import escape, tuned

Array = NDArray[np.float64]
Numbers = dict[str, Any]
Compared = Mapping[tuple[str, ...], Numbers]
Arrays = Mapping[str, Array]


# --- tests --------------------------------------------------------------------------------------------------------


def mean(values: Array) -> Numbers:
    """Mean of the values that are numbers, with Student's t interval."""
    return statistics.student(values[np.isfinite(values)])._asdict()


def paired_t(a: Array, b: Array, **options: Any) -> Numbers:
    """Mean difference of the pairs that are numbers, with interval, p and p of equivalence; options of ``paired``."""
    differences = a - b
    return numbers(paired(differences[np.isfinite(differences)], **options))


def numbers(test: statistics.Paired) -> Numbers:
    difference, low, high = test.difference
    ends = {"difference": difference, "low": low, "high": high}
    return ends | {"n": test.pairs, "sd": test.sd, "p": test.p, "equivalence": test.equivalence}


def accuracies(a: Array, b: Array, margin: float) -> Numbers:
    """Mean difference of accuracies with its interval, p of the signed rank test, and the word; margin in points."""
    word = statistics.verdict(paired(a - b, margin=margin / 100))
    word_within = f"equal within {margin:g}" if word == "equal" else word
    return numbers(paired(a - b, "signed-rank")) | {"word": word_within}


def wilson(solved: Array, trials: int | None = None) -> Numbers:
    """Share with Wilson's interval, of bits or of a share of trials."""
    return of_studies.wilson(np.arange(trials) < np.round(solved * trials) if trials else solved > 0)


def mcnemar(a: Array, b: Array, margin: float | None = None) -> Numbers:
    """Difference of paired shares: McNemar's exact test, and equivalence with its interval of 90 %."""
    solved = {name: {"solved": of_studies.bits(bits)} for name, bits in (("a", a), ("b", b))}
    pair = of_studies.compare_solved(solved, "b")["a"]
    if not margin:
        return pair
    equal = of_studies.equivalence_of_shares(pair, margin)
    return pair | {"margin": margin, "low": equal["low"], "high": equal["high"], "equivalence": equal["p"]}


def ranked_above(values: Array, group: Array) -> Numbers:
    """Probability that a value of the group, as bits, is the larger one; the first bits count."""
    return of_studies.ranked_above(values, group[: len(values)] > 0) or {}


def fisher(count: float, share: float, trials: tuple[int, int]) -> Numbers:
    """Return p of Fisher's exact test of a count against a share, of ``trials[0]`` and ``trials[1]`` trials."""
    rows = [[solved, total - solved] for solved, total in zip((count, round(share * trials[1])), trials, strict=True)]
    return {"p": stats.fisher_exact(rows).pvalue}


def time_to(ours: Array, peer: Array, clock: str, confidence: float, by: str, threshold: float = 0) -> Numbers:
    """Geometric mean of the peer's times over ours, and the word on the target.

    Args:
      ours, peer: accuracy, wall time and CPU time at the ends of epochs, ``[seeds, epochs, 3]``.
      by: function of ``benchmarks.time_page`` that makes the time of a run, of the threshold if that is not 0.
    """

    def runs(arrays: Array) -> Numbers:
        names = ("epoch", "accuracy", "wall", "cpu")
        epochs = [[dict(zip(names, (i, *row), strict=True)) for i, row in enumerate(run)] for run in arrays]
        return {str(seed): {"epochs": of_seed} for seed, of_seed in enumerate(epochs)}

    content = {"runs": {"csbp_jax": runs(ours), "spikingjelly": runs(peer)}}
    of_run = functools.partial(getattr(time_page, by), *([threshold] if threshold else []))
    ratio = time_page.mean_ratio(time_page.ratios(content, of_run, clock), confidence)
    return dict(zip(("ratio", "low", "high"), ratio, strict=True)) | {"word": time_page._verdict(*ratio)}


TESTS: dict[str, Callable[..., Numbers]] = {
    "mean": mean,
    "paired t": paired_t,
    "paired accuracies": accuracies,
    "signed rank": lambda a, b: {"p": statistics.signed_rank(a - b)},
    "paired t over folds": lambda a, b, sizes: nmnist.over_folds(a - b, sizes),
    "Wilson": wilson,
    "McNemar": mcnemar,
    "Fisher": fisher,
    "ranked above": ranked_above,
    "time to an accuracy": time_to,
}
SLOW = ("ranked above",)
"""Tests that draw thousands of samples."""


# --- verdicts -----------------------------------------------------------------------------------------------------


def rows_of(compared: Compared, index: int | None = None) -> dict[str, Numbers]:
    """Numbers under the names of the studies, by ``a-b`` or by the name of the first or second array."""
    others = {"mean": "difference", "p_holm": "holm", "tost": "equivalence"}
    rows = {}
    for names, row in compared.items():
        named = {other: row[name] for other, name in others.items() if name in row}
        rows["-".join(names) if index is None else names[index]] = row | named
    return rows


def primary(compared: Compared) -> dict[str, Numbers]:
    """The rows with Holm's correction."""
    return {name: row for name, row in rows_of(compared).items() if "holm" in row}


def of_tuned(compared: Compared, _: Arrays) -> str:
    rows = rows_of(compared, 0)
    equal = {name: of_studies.equivalence_of_shares(row, tuned.PRIMARY[name]) for name, row in rows.items()}
    return tuned.verdict({name: row | equal[name] for name, row in rows.items()})


def of_escape(compared: Compared, _: Arrays) -> str:
    rows = rows_of(compared, 1)
    return escape.verdict({name: row | {"equal": {"p": row["equivalence"]}} for name, row in rows.items()})


def of_overshooting(compared: Compared, arrays: Arrays) -> str:
    """Words on all tasks; arrays are of a condition ``on`` a task, and medians those of ``rise of`` it."""
    tasks: dict[str, dict[str, Numbers]] = {}
    for name, row in rows_of(compared, 1).items():
        condition, task = name.split(" on ")
        tasks.setdefault(task, {})[condition] = row
    medians = {name: float(np.median(values)) for name, values in arrays.items() if name.startswith("rise of ")}
    kinds = (overshoot.CBP, overshoot.PERIOD_2)
    of_task = {task: {kind: medians[f"rise of {kind} on {task}"] for kind in kinds} for task in tasks}
    return "; ".join(f"{task}: {overshoot.verdict(rows, of_task[task])}" for task, rows in tasks.items())


def of_folds(compared: Compared, arrays: Arrays) -> str:
    """Words by the folds and by their recordings, which are arrays too."""
    rows, bits = rows_of(compared, 1), {name: arrays[f"recordings, {name}"] for name in ("CSBP", *nmnist.CONTRASTS)}
    compared_bits = {other: mcnemar(bits["CSBP"], bits[other], nmnist.MARGIN) for other in rows}
    corrected = holm({other: row["p"] for other, row in compared_bits.items()})
    seeds = {other: [row | {"p_holm": corrected[other]}] for other, row in compared_bits.items()}
    return "; ".join(nmnist.verdict(row | {"mcnemar": seeds[other]}) for other, row in rows.items())


def of_visits(compared: Compared, _: Arrays) -> str:
    systems: dict[str, dict[str, Numbers]] = {}
    for (chaos, noise), row in zip(compared, rows_of(compared).values(), strict=True):
        systems.setdefault(chaos, {})[noise] = row
    return ergodic.claim_verdict([ergodic.verdict_visits(of_system) for of_system in systems.values()])


def of_series(_: Compared, arrays: Arrays) -> str:
    series = [[{"random_like": value} for value in bits] for bits in arrays.values()]
    return ergodic.claim_verdict([ergodic.verdict_random(of_system) for of_system in series])


VERDICTS: dict[str, Callable[[Compared, Arrays], str]] = {
    "tuned": of_tuned,
    "escape": of_escape,
    "overshooting": of_overshooting,
    "folds": of_folds,
    "visits": of_visits,
    "random-like": of_series,
}
