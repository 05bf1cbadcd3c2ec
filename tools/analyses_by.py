"""The code that :mod:`tools.analyses` checks: tests of plain arrays, and verdicts from their numbers.

To check other code, replace :data:`TESTS` and :data:`VERDICTS`. A test takes arrays and options, and returns numbers by
their names. A verdict takes the numbers of a family's rows by the names of their arrays, and all arrays.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import time_page
from csbp_jax.reporting import intervals, pairs
from experiments import basins, statistics, together, twins
from experiments.cbp import overshoot
from experiments.claims import cost, landscape_report, report, robustness_report, tries
from experiments.claims.forest import analysis as forest
from experiments.ergodic import pages as ergodic
from experiments.learning_rates import __main__ as learning_rates
from experiments.nmnist import __main__ as nmnist
from experiments.statistics import holm
from experiments.xor import escape, tuned

Array = NDArray[np.float64]
Numbers = dict[str, Any]
Compared = Mapping[tuple[str, ...], Numbers]
Arrays = Mapping[str, Array]


# --- tests --------------------------------------------------------------------------------------------------------


def mean(values: Array) -> Numbers:
    """Mean of the values that are numbers, with Student's t interval."""
    return intervals.student(values[np.isfinite(values)].tolist())._asdict()


def paired_t(a: Array, b: Array, margin: float | None = None, confidence: float = 0.95) -> Numbers:
    """Mean difference of the pairs that are numbers, with interval, p and p of equivalence."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    by_pair = (a - b).tolist()
    difference, low, high = intervals.student(by_pair, confidence)
    numbers = {"difference": difference, "low": low, "high": high, "sd": float(np.std(a - b, ddof=1)), "n": len(a)}
    equivalence = intervals.tost(by_pair, margin) if margin else None
    return numbers | {"p": statistics.paired_t(a, b), "equivalence": equivalence}


def accuracies(a: Array, b: Array, margin: float) -> Numbers:
    """Mean difference of accuracies with its interval, p of the signed rank test, and the word; margin in points."""
    paired = pairs.paired_difference(dict(enumerate(a)), dict(enumerate(b)), margin)
    assert paired is not None
    (difference, low, high), p, word = paired.difference, paired.p, paired.verdict
    return {"difference": difference, "low": low, "high": high, "n": paired.pairs, "p": p, "word": word}


def wilson(solved: Array, trials: int | None = None) -> Numbers:
    """Share with Wilson's interval, of bits or of a share of trials."""
    return statistics.wilson(np.arange(trials) < np.round(solved * trials) if trials else solved > 0)


def mcnemar(a: Array, b: Array, margin: float | None = None) -> Numbers:
    """Difference of paired shares: McNemar's exact test, and equivalence with its interval of 90 %."""
    solved = {name: {"solved": statistics.bits(bits)} for name, bits in (("a", a), ("b", b))}
    pair = statistics.compare_solved(solved, "b")["a"]
    if not margin:
        return pair
    equal = statistics.equivalence_of_shares(pair, margin)
    return pair | {"margin": margin, "low": equal["low"], "high": equal["high"], "equivalence": equal["p"]}


def ranked_above(values: Array, group: Array) -> Numbers:
    """Probability that a value of the group, as bits, is the larger one; the first bits count."""
    return statistics.ranked_above(values, group[: len(values)] > 0) or {}


def ratio_of_times(a: Array, b: Array, bootstrap: bool) -> Numbers:
    """Ratio of times ``[processes, rounds]`` with intervals of 95 and 90 %, by the bootstrap or by Student's t."""
    processes = [{"wall": {"CSBP": x, "plain again": x, "plain": y}} for x, y in zip(a, b, strict=True)]
    return cost.ratio(processes, "wall", "CSBP") if bootstrap else cost.by_student(processes)["CSBP"]


def after_tries(term: Array, plain: Array, base: int, first: int, count: int) -> Numbers:
    """Expected test accuracy after further tries of a term, minus that after those of plain training, in points.

    Args:
      term, plain: validation accuracy, its loss and test accuracy, ``[settings, seeds, 3]``.
    """
    sides = [np.moveaxis(np.where(np.isnan(x), np.inf, x), -1, 0) for x in (plain[[base]], term, plain[first:])]
    of_base, of_term, of_plain = (tries.Tries(*side) for side in sides)
    after = {name: 100 * tries.expected_test(of_base, of, count) for name, of in (("a", of_term), ("b", of_plain))}
    return tries._difference(of_base, of_term, of_plain, count)._asdict() | after


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


def stouffer(*arms: Array) -> Numbers:
    """Stouffer's z over data sets, from both arms of each in turn."""
    data_sets: Any = {str(i): {"csbp": arms[i], "bp": arms[i + 1]} for i in range(0, len(arms), 2)}
    return together.combine(data_sets)["stouffer"]


def independent_z(a: Array, error: Array, b: Array, other_error: Array) -> Numbers:
    """Difference of independent estimates, from their standard errors."""
    both = {"CSBP": (a, error), "plain": (b, other_error)}
    return basins.compare({k: {"alpha": {"alpha": float(x), "stderr": float(e)}} for k, (x, e) in both.items()})[0]


def mixed_model(a: Array, b: Array) -> Numbers:
    """Effect over methods from ``[methods, seeds]``, also with weights by precision."""
    numbers = forest.pooled(a - b)
    return numbers | {f"weighted {name}": value for name, value in numbers["weighted"].items()}


TESTS: dict[str, Callable[..., Numbers]] = {
    "mean": mean,
    "paired t": paired_t,
    "paired accuracies": accuracies,
    "signed rank": lambda a, b: {"p": intervals.signed_rank((a - b).tolist())},
    "paired t over folds": lambda a, b, sizes: nmnist.over_folds(a - b, sizes),
    "regression": lambda a, b, x, y: robustness_report.at_equal(a - b, x - y),
    "mixed model": mixed_model,
    "Stouffer": stouffer,
    "independent z": independent_z,
    "Wilson": wilson,
    "McNemar": mcnemar,
    "Fisher": lambda count, share, trials: {"p": statistics.fisher((int(count), round(share * trials[1])), trials)},
    "ranked above": ranked_above,
    "Kendall": statistics.kendall,
    "ratio of times, bootstrap": functools.partial(ratio_of_times, bootstrap=True),
    "ratio of times, t": functools.partial(ratio_of_times, bootstrap=False),
    "ratio, paired t": lambda a, b: learning_rates.ratio_of_times(b, a) or {},
    "time to an accuracy": time_to,
    "tries": after_tries,
    "coincidence": learning_rates.coincidence,
}
SLOW = ("ranked above", "Kendall", "ratio of times, bootstrap", "tries", "coincidence")
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


def of_sharpness(compared: Compared, _: Arrays) -> str:
    word = landscape_report.word
    return "; ".join(f"{name} {word(row, 'flatter', 'sharper')}" for name, row in primary(compared).items())


def of_barriers(compared: Compared, arrays: Arrays) -> str:
    family = {f"({a}) - ({b})": row for (a, b), row in zip(compared, rows_of(compared).values(), strict=True)}
    means = {name: mean(values) for name, values in arrays.items()}
    return landscape_report.basin_verdict({"family": family, "means": means})


def of_methods(_: Compared, arrays: Arrays) -> str:
    accuracy: dict[str, dict[str, Array]] = {}
    for name, values in arrays.items():
        method, condition = name.split()
        accuracy.setdefault(method, {})[condition] = values
    return forest.analyse(accuracy)["any method"]


def of_tuned(compared: Compared, _: Arrays) -> str:
    rows = rows_of(compared, 0)
    equal = {name: statistics.equivalence_of_shares(row, tuned.PRIMARY[name]) for name, row in rows.items()}
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


def of_twins(_: Compared, arrays: Arrays) -> str:
    rate, alpha, exponent = ([None if np.isnan(x) else x for x in arrays[k]] for k in ("rate", "alpha", "exponent"))
    words = twins.verdict({"exponent": exponent, "1e-7": {"rate": rate, "alpha": alpha}})
    return f"{words['exponential']}, {words['diffusive']}"


VERDICTS: dict[str, Callable[[Compared, Arrays], str]] = {
    "claims": lambda compared, _: report.verdict(primary(compared)),
    "any method": of_methods,
    "sharpness": of_sharpness,
    "basin": of_barriers,
    "losses": lambda compared, _: landscape_report.loss_verdict(rows_of(compared), rows_of(compared)),
    "cost": lambda compared, _: cost.verdict({"quiet": True, "wall": rows_of(compared, 0)}),
    "tuned": of_tuned,
    "escape": of_escape,
    "overshooting": of_overshooting,
    "folds": of_folds,
    "visits": of_visits,
    "random-like": of_series,
    "twins": of_twins,
}
