"""The code that :mod:`tools.analyses` checks: tests of plain arrays, and verdicts from their numbers.

To check other code, replace :data:`TESTS` and :data:`VERDICTS`. A test takes arrays and options, and returns numbers by
their names; a verdict takes the numbers of all rows of a family by the names of their arrays, and the arrays.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting import intervals
from experiments import statistics
from experiments.statistics import holm

Array = NDArray[np.float64]
Numbers = dict[str, Any]
Compared = Mapping[tuple[str, ...], Numbers]
Arrays = Mapping[str, Array]


def study(name: str) -> Any:
    """A module of ``experiments``, imported by the first test that needs it."""
    return importlib.import_module(f"experiments.{name}")


# --- tests --------------------------------------------------------------------------------------------------------


def mean(values: Array, confidence: float = 0.95) -> Numbers:
    """Mean of the values that are numbers, with Student's t interval."""
    return intervals.student(values[np.isfinite(values)].tolist(), confidence)._asdict()


def paired_t(a: Array, b: Array, margin: float | None = None, confidence: float = 0.95) -> Numbers:
    """Mean difference of the pairs that are numbers, with interval, p and p of equivalence."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    pairs = (a - b).tolist()
    difference, low, high = intervals.student(pairs, confidence)
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "n": len(pairs),
        "sd": float(np.std(pairs, ddof=1)),
        "p": statistics.paired_t(a, b),
        "equivalence": intervals.tost(pairs, margin) if margin else None,
    }


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


def ranked(values: Array, group: Array) -> Numbers:
    """Probability that a value of the group, as bits, is the larger one; the first bits count."""
    return statistics.ranked_above(values, group[: len(values)] > 0) or {}


def ratio_of_times(a: Array, b: Array, bootstrap: bool) -> Numbers:
    """Ratio of times ``[processes, rounds]`` with intervals of 95 and 90 %, by the bootstrap or by Student's t."""
    cost = study("claims.cost")
    pairs = [{"wall": {"CSBP": x, "plain again": x, "plain": y}} for x, y in zip(a, b, strict=True)]
    return cost.ratio(pairs, "wall", "CSBP") if bootstrap else cost.by_student(pairs)["CSBP"]


def tries(term: Array, plain: Array, base: int, first: int, count: int) -> Numbers:
    """Expected test accuracy after further tries of a term, minus that after those of plain training, in points.

    Args:
      term, plain: validation accuracy, its loss and test accuracy, ``[settings, seeds, 3]``.
    """
    module = study("claims.tries")
    sides = [np.moveaxis(np.where(np.isnan(x), np.inf, x), -1, 0) for x in (plain[[base]], term, plain[first:])]
    of_base, of_term, of_plain = (module.Tries(*side) for side in sides)
    after = {name: 100 * module.expected_test(of_base, of, count) for name, of in (("a", of_term), ("b", of_plain))}
    return module._difference(of_base, of_term, of_plain, count)._asdict() | after


def time_to(
    ours: Array, peer: Array, clock: str, confidence: float, by: str, threshold: float | None = None
) -> Numbers:
    """Geometric mean of the peer's times over ours, and the word on the target.

    Args:
      ours, peer: accuracy, wall time and CPU time at the ends of epochs, ``[seeds, epochs, 3]``.
      by: function of ``benchmarks.time_page`` that makes the time of a run.
    """
    page = importlib.import_module("benchmarks.time_page")
    names = ("epoch", "accuracy", "wall", "cpu")
    content = {
        library: {
            i: {"epochs": [dict(zip(names, (j, *row), strict=True)) for j, row in enumerate(run)]}
            for i, run in enumerate(runs)
        }
        for library, runs in (("csbp_jax", ours), ("spikingjelly", peer))
    }
    of_run = functools.partial(getattr(page, by), *([threshold] if threshold else []))
    ratio = page.mean_ratio(page.ratios({"runs": content}, of_run, clock), confidence)
    return dict(zip(("ratio", "low", "high"), ratio, strict=True)) | {"word": page._verdict(*ratio)}


def combined(*arms: Array) -> Numbers:
    """Stouffer's z over data sets, from both arms of each in turn."""
    pairs = {str(i): {"csbp": arms[i], "bp": arms[i + 1]} for i in range(0, len(arms), 2)}
    return study("together").combine(pairs)["stouffer"]


def independent_z(a: Array, error: Array, b: Array, other_error: Array) -> Numbers:
    """Difference of independent estimates, from their standard errors."""
    both = {"CSBP": (a, error), "plain": (b, other_error)}
    conditions = {name: {"alpha": {"alpha": float(x), "stderr": float(e)}} for name, (x, e) in both.items()}
    return study("basins").compare(conditions)[0]


def mixed_model(a: Array, b: Array) -> Numbers:
    """Effect over methods from ``[methods, seeds]``, also with weights by precision."""
    numbers = study("claims.forest.analysis").pooled(a - b)
    return numbers | {f"weighted {name}": value for name, value in numbers["weighted"].items()}


TESTS: dict[str, Callable[..., Numbers]] = {
    "mean": mean,
    "paired t": paired_t,
    "signed rank": lambda a, b: {"p": intervals.signed_rank((a - b).tolist())},
    "paired t over folds": lambda a, b, sizes: study("nmnist.__main__").over_folds(a - b, sizes),
    "regression": lambda a, b, x, y: study("claims.robustness_report").at_equal(a - b, x - y),
    "mixed model": mixed_model,
    "Stouffer": combined,
    "independent z": independent_z,
    "Wilson": wilson,
    "McNemar": mcnemar,
    "Fisher": lambda count, share, trials: {"p": statistics.fisher((int(count), round(share * trials[1])), trials)},
    "ranked above": ranked,
    "Kendall": statistics.kendall,
    "ratio of times, bootstrap": functools.partial(ratio_of_times, bootstrap=True),
    "ratio of times, t": functools.partial(ratio_of_times, bootstrap=False),
    "ratio, paired t": lambda a, b: study("learning_rates.__main__").ratio_of_times(b, a) or {},
    "time to an accuracy": time_to,
    "tries": tries,
    "coincidence": lambda times, exponents: study("learning_rates.__main__").coincidence(times, exponents),
}
SLOW = ("ranked above", "Kendall", "ratio of times, bootstrap", "tries")
"""Tests that draw thousands of samples."""


# --- verdicts -----------------------------------------------------------------------------------------------------


def by_name(compared: Compared, index: int | None = None) -> dict[str, Numbers]:
    """Numbers under the names of the studies, by ``a-b`` or by one of both names."""
    others = {"mean": "difference", "p_holm": "holm", "tost": "equivalence"}
    return {
        "-".join(names) if index is None else names[index]: row
        | {new: row.get(old, row.get(new)) for new, old in others.items()}
        for names, row in compared.items()
    }


def claims(compared: Compared, _: Arrays) -> str:
    return study("claims.report").verdict({k: row for k, row in by_name(compared).items() if "holm" in row})


def sharpness(compared: Compared, _: Arrays) -> str:
    word = study("claims.landscape_report").word
    return "; ".join(f"{k} {word(row, 'flatter', 'sharper')}" for k, row in by_name(compared).items() if "holm" in row)


def basin(compared: Compared, arrays: Arrays) -> str:
    family = {f"({a}) - ({b})": row for (a, b), row in zip(compared, by_name(compared).values(), strict=True)}
    means = {name: mean(values) for name, values in arrays.items()}
    return study("claims.landscape_report").basin_verdict({"family": family, "means": means})


def losses(compared: Compared, _: Arrays) -> str:
    return study("claims.landscape_report").loss_verdict(by_name(compared), by_name(compared))


def any_method(_: Compared, arrays: Arrays) -> str:
    accuracy: dict[str, dict[str, Array]] = {}
    for name, values in arrays.items():
        method, condition = name.split()
        accuracy.setdefault(method, {})[condition] = values
    return study("claims.forest.analysis").analyse(accuracy)["any method"]


def escape(compared: Compared, _: Arrays) -> str:
    rows = {name: row | {"equal": {"p": row["equivalence"]}} for name, row in by_name(compared, 1).items()}
    return study("xor.escape").verdict(rows)


def tuned(compared: Compared, _: Arrays) -> str:
    module, rows = study("xor.tuned"), by_name(compared, 0)
    equal = {name: statistics.equivalence_of_shares(row, module.PRIMARY[name]) for name, row in rows.items()}
    return module.verdict({name: row | equal[name] for name, row in rows.items()})


def overshooting(compared: Compared, arrays: Arrays) -> str:
    """Words on all tasks; arrays are of a condition ``on`` a task, and medians those of ``rise of`` it."""
    tasks: dict[str, dict[str, Numbers]] = {}
    for name, row in by_name(compared, 1).items():
        condition, task = name.split(" on ")
        tasks.setdefault(task, {})[condition] = row
    words = []
    for task, rows in tasks.items():
        medians = {k: float(np.median(arrays[f"rise of {k} on {task}"])) for k in ("CBP", "held in period 2")}
        words.append(f"{task}: {study('cbp.overshoot').verdict(rows, medians)}")
    return "; ".join(words)


def folds(compared: Compared, arrays: Arrays) -> str:
    """Words by the folds and by their recordings, which are arrays too."""
    module, rows = study("nmnist.__main__"), by_name(compared, 1)
    pairs = {
        other: mcnemar(arrays["recordings, CSBP"], arrays[f"recordings, {other}"], module.MARGIN) for other in rows
    }
    corrected = holm({other: pair["p"] for other, pair in pairs.items()})
    words = []
    for other, pair in pairs.items():
        words.append(module.verdict(rows[other] | {"mcnemar": [pair | {"p_holm": corrected[other]}]}))
    return "; ".join(words)


def visits(compared: Compared, _: Arrays) -> str:
    pages, systems = study("ergodic.pages"), dict[str, dict[str, Numbers]]()
    for (chaos, noise), row in zip(compared, by_name(compared).values(), strict=True):
        systems.setdefault(chaos, {})[noise] = row
    return pages.claim_verdict([pages.verdict_visits(pairs) for pairs in systems.values()])


def random_like(_: Compared, arrays: Arrays) -> str:
    pages, series = study("ergodic.pages"), ([{"random_like": value} for value in bits] for bits in arrays.values())
    return pages.claim_verdict([pages.verdict_random(of_system) for of_system in series])


def twins(_: Compared, arrays: Arrays) -> str:
    rate, alpha, exponent = ([None if np.isnan(x) else x for x in arrays[k]] for k in ("rate", "alpha", "exponent"))
    words = study("twins").verdict({"exponent": exponent, "1e-7": {"rate": rate, "alpha": alpha}})
    return f"{words['exponential']}, {words['diffusive']}"


VERDICTS: dict[str, Callable[[Compared, Arrays], str]] = {
    "claims": claims,
    "any method": any_method,
    "sharpness": sharpness,
    "basin": basin,
    "losses": losses,
    "cost": lambda compared, _: study("claims.cost").verdict({"quiet": True, "wall": by_name(compared, 0)}),
    "tuned": tuned,
    "escape": escape,
    "overshooting": overshooting,
    "folds": folds,
    "visits": visits,
    "random-like": random_like,
    "twins": twins,
}
