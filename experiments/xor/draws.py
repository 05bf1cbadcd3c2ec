"""Repeat the tuning of docs/results/xor/tuned over several draws of its settings, by its draws_plan.md.

    python -m experiments.xor.draws [--extrinsic] [--out docs/results/xor/tuned] [--draws 8] [--tuning 256]

``--extrinsic`` adds the arms of extrinsic_plan.md. Writes ``draws.json``, ``draws.md`` and the figure ``tries``.
Finished runs are in ``runs/xor_draws``, finished arms in ``draws.json``; none are repeated.
"""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax import RunTable
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime.files import write_text
from experiments import study
from experiments.statistics import best_weights, percent_text, student_dict
from experiments.study import Content
from experiments.xor.conditions import CHUNK, EXTRINSIC
from experiments.xor.tuned import experiment, tuning_shares

MODULE = "python -m experiments.xor.draws"
NAMES = ("CSBP", "plain backpropagation", "drift")
SEEDS = 1_000_000
"""The first seed of draw 0, and those of the others 10,000 apart; test starts follow tuning starts."""
TRIES, MARGIN = (4, 11, 24), 0.02
ENDS = ("mean", "low", "high")
SEEN = 4
"""Draws that were looked at before the plan."""


def results_of(table: RunTable, names: Sequence[str] = NAMES) -> Content:
    """``{draw: {condition: {tuning, share}}}``: shares of the tuning starts of each try, and of the test starts."""
    draws: Content = {}
    for draw, name in itertools.product(sorted(set(table.frame["draw"])), names):
        of_cell = table.where(draw=draw, arm=name)
        share = float(of_cell.where(role="test").frame["solved"].mean())
        draws.setdefault(str(draw), {})[name] = {"tuning": tuning_shares(of_cell), "share": share}
    return draws


def best_of_tries(shares: NDArray[Any], tries: int, samples: int = 10_000, names: Sequence[str] = NAMES) -> Content:
    """Expected best share of a number of tries, over settings drawn at random.

    Args:
      shares: of the tuning starts, ``[conditions, settings]``, as ``names``.
      samples: bootstrap samples of the settings, the same for all conditions.

    Returns:
      ``{"best": [conditions], "minus CONDITION": {mean, low, high}}``: the best of each, and the first minus the others
      with the 95 % interval of the samples.
    """
    weights = best_weights(shares.shape[1], tries)
    index = np.random.default_rng(0).integers(shares.shape[1], size=(samples, shares.shape[1]))
    best, sampled = np.sort(shares) @ weights, np.sort(shares[:, index]) @ weights
    result: Content = {"best": best.tolist()}
    for other, name in enumerate(names[1:], start=1):
        low, high = np.quantile(sampled[0] - sampled[other], (0.025, 0.975))
        result[f"minus {name}"] = {"mean": best[0] - best[other], "low": float(low), "high": float(high)}
    return result


def tuning_of(draws: Content, names: Sequence[str] = NAMES) -> NDArray[Any]:
    """Shares of the tuning starts at all settings of some draws, ``[conditions, settings]``, as ``names``."""
    return np.array([np.concatenate([of_draw[name]["tuning"] for of_draw in draws.values()]) for name in names])


def analyse(draws: Content) -> Content:
    """The plan's numbers, of all draws and of those before and from :data:`SEEN` on."""
    for names in [NAMES, *((name,) for name in EXTRINSIC if options.extrinsic)]:
        if not all(names[0] in content["draws"].get(str(number), {}) for number in range(options.draws)):
            folder = study.WORK / "xor_draws" / names[0].replace(" ", "_")
            planned = experiment(names, options.steps, options.tries, tuning, test, options.draws)
            for number, results in results_of(planned.run(folder, chunk=CHUNK), names).items():
                content["draws"].setdefault(number, {}).update(results)
            content |= {"analysis": analyse(content["draws"]), "extrinsic": extrinsic(content["draws"])}
            study.store(file, content, MODULE)
    write_text(options.out / "draws.md", page(content))
    draw(content["draws"], options.out)


if __name__ == "__main__":
    main()
