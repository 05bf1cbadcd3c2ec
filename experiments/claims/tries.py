"""Accuracy against the number of tries: spent on plain backpropagation, or on the strength of a term.

Both start from the best of the first eight settings of plain backpropagation. Each further try is a setting drawn
without replacement from eight others: of rate and width for plain backpropagation, of strength and annealing for
a term. The setting with the best validation accuracy so far is used, which may be the one without the term.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.intervals import Interval
from experiments import study
from experiments.claims.generalisation import TUNING_SEEDS
from experiments.claims.settings import NAMES
from experiments.study import Content

FILES = (study.RESULTS / "claims/generalisation.json", study.RESULTS / "claims_events/events.json")
"""Studies whose tuning runs are read."""
FIRST = 8
TERMS = ("C", "D", "S")
FURTHER = (2, 4, 8)
DRAWS = 2000


class Tries(NamedTuple):
    """Results of settings: validation ``[settings, seeds]``, its loss, and test, each after the last epoch."""

    validation: NDArray[np.float64]
    loss: NDArray[np.float64]
    test: NDArray[np.float64]


def read(arm: Mapping[str, Any], condition: str) -> Tries:
    """The tuning runs of a condition; a loss that is not finite is infinite."""
    settings = arm["runs"][condition]
    results = [[settings[number][str(seed)] for seed in TUNING_SEEDS] for number in sorted(settings, key=int)]

    def values(name: str) -> NDArray[np.float64]:
        return np.array([[np.inf if r[name] is None else r[name] for r in row] for row in results])

    return Tries(values("validation"), values("validation_loss"), values("test"))


def expected_test(base: Tries, further: Tries, count: int) -> float:
    """Expected test accuracy of the best by validation of ``base`` and ``count`` of the further settings.

    Of n further settings, the r-th best (r from 0) of those better than the base is the best of ``count`` drawn ones
    with probability C(n - 1 - r, count - 1) / C(n, count).

    Args:
      base: a single setting.
    """
    validation, loss, test = (values.mean(axis=1) for values in further)
    n, ranks = len(test), list(zip(validation, -loss, strict=True))
    base_rank = (base.validation.mean(), -base.loss.mean())
    better = [i for i in sorted(range(n), key=ranks.__getitem__, reverse=True) if ranks[i] > base_rank]
    shares = [math.comb(n - 1 - r, count - 1) / math.comb(n, count) for r in range(len(better))]
    chosen = sum(share * test[i] for share, i in zip(shares, better, strict=True))
    return float(chosen + (1 - sum(shares)) * base.test.mean())


def rows_of(tries: Tries, rows: Any, seeds: Any = slice(None)) -> Tries:
    """Some settings and seeds."""
    return Tries(*(values[rows][:, seeds] for values in tries))


def compare(arm: Mapping[str, Any]) -> Content:
    """Compare further tries of plain backpropagation with those of each term, in points.

    Returns:
      ``{base, plain: {tries: accuracy}, TERM: {tries: {accuracy, mean, low, high}}}``. Intervals are 95 % of the
      bootstrap over further settings of either side, and over the tuning seeds, which both share.
    """
    plain = read(arm, "P")
    base, further = rows_of(plain, [arm["base"]]), rows_of(plain, slice(FIRST, None))
    result: Content = {
        "base": 100 * float(base.test.mean()),
        "plain": {str(count): 100 * expected_test(base, further, count) for count in FURTHER},
    }
    for name in TERMS:
        term = read(arm, name)
        result[name] = {
            str(count): {"accuracy": 100 * expected_test(base, term, count)}
            | _difference(base, term, further, count)._asdict()
            for count in FURTHER
        }
    return result


def _difference(base: Tries, term: Tries, plain: Tries, count: int) -> Interval:
    generator = np.random.default_rng(0)

    def of(term: Tries, plain: Tries, base: Tries) -> float:
        return 100 * (expected_test(base, term, count) - expected_test(base, plain, count))

    drawn = []
    for _ in range(DRAWS):
        seeds = generator.integers(len(TUNING_SEEDS), size=len(TUNING_SEEDS))
        rows = [generator.integers(len(side.test), size=len(side.test)) for side in (term, plain)]
        drawn.append(of(rows_of(term, rows[0], seeds), rows_of(plain, rows[1], seeds), rows_of(base, [0], seeds)))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(of(term, plain, base), float(low), float(high))


def table(compared: Mapping[str, Content]) -> str:
    """A row for each arm and number of further tries."""
    head = ["arm", "further tries", "before them (%)", "on plain backpropagation (%)"]
    head += [f"on {NAMES[name]}: minus plain, 95 % (points)" for name in TERMS]
    rows: list[Sequence[str]] = []
    for arm, result in compared.items():
        for count in map(str, FURTHER):
            cells = [result[name][count] for name in TERMS]
            texts = [f"{cell['mean']:+.2f} [{cell['low']:+.2f}, {cell['high']:+.2f}]" for cell in cells]
            rows.append([arm, count, f"{result['base']:.2f}", f"{result['plain'][count]:.2f}", *texts])
    return study.table(head, rows)
