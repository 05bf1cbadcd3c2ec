"""Run the plan of docs/results/claims_forest/plan.md: does CSBP help each of nine methods of training?

    python -m experiments.claims.forest [--data digits_events cifar10] [--data-dir data] [--seeds 12]
        [--side N] [--labels N] [--epochs N] [--width 1] [--out docs/results/claims_forest]

A data set that is not in --data-dir is left out. Finished runs are read from ``forest.json`` and not trained again.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.config import ConfigError
from experiments import study
from experiments.claims import runs
from experiments.claims.forest import methods, pages
from experiments.claims.forest.methods import METHODS
from experiments.claims.forest.training import Setting, Trainer
from experiments.study import Content, finite_or_none

MODULE = "python -m experiments.claims.forest"
RATES = (0.01, 0.04, 0.16, 0.64)
FACTORS = (0.35, 0.6, 1.7, 2.8)
"""P's second four rates, in those of the best of its first four."""
FLIPS = (0.003, 0.01, 0.03, 0.1)


class Cell(NamedTuple):
    """A method on a data set: its results, where they are stored, and its trainer, made when a run is missing."""

    content: Content
    save: Any
    trainer: Any

    def fill(self, condition: str, keys: Sequence[str], seeds: Sequence[int], test: bool = False) -> None:
        """Train runs that have no result yet; a key is P's rate, or C's and D's strength in flips."""
        for key in keys:
            done = self.content["runs"].setdefault(condition, {}).setdefault(key, {})
            for seed in seeds:
                if str(seed) not in done:
                    result = self.trainer().train(self.setting(condition, key), seed, test)
                    done[str(seed)] = {name: finite_or_none(float(f"{v:.6g}")) for name, v in result.items()}
            self.save()

    def setting(self, condition: str, key: str) -> Setting:
        if condition == "P":
            return Setting(float(key))
        return Setting(float(self.content["base"]), float(key) / self.content["unit"], float(condition == "D"))

    def best(self, condition: str, keys: Sequence[str]) -> str:
        """The key with the best mean validation accuracy over the tuning seeds, then the smaller loss."""

        def rank(key: str) -> tuple[float, float]:
            results = [self.content["runs"][condition][key][str(seed)] for seed in self.content["tuning_seeds"]]
            losses = [np.inf if r["validation_loss"] is None else r["validation_loss"] for r in results]
            return float(np.mean([r["validation"] for r in results])), -float(np.mean(losses))

        return max(keys, key=rank)


def run_cell(cell: Cell) -> None:
    """Tune and test the three conditions of a method."""
    content, tuning = cell.content, cell.content["tuning_seeds"]
    rates = [f"{rate:g}" for rate in RATES]
    cell.fill("P", rates, tuning)
    content["base"] = cell.best("P", rates)
    if "unit" not in content:
        units = [cell.trainer().flip_ratio(float(content["base"]), seed) for seed in tuning]
        if not all(unit > 0 for unit in units):
            raise ConfigError(f"the flip ratio of the term is {units}, and must be above 0 to be the unit of strength")
        content["unit"] = float(f"{np.mean(units):.6g}")
    finer = [f"{factor * float(content['base']):.4g}" for factor in FACTORS]
    flips = [f"{strength:g}" for strength in FLIPS]
    tries = {"P": finer, "C": flips, "D": flips}
    for condition, keys in tries.items():
        cell.fill(condition, keys, tuning)
    chosen = {name: cell.best(name, [*rates, *finer] if name == "P" else flips) for name in tries}
    content["chosen"] = chosen
    for condition, key in chosen.items():
        cell.fill(condition, [key], content["seeds"], test=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "claims_forest", data_dir=True)
    parser.add_argument("--data", nargs="+", choices=methods.DATA_SETS, default=list(methods.DATA_SETS))
    parser.add_argument("--seeds", type=int, default=12)
    for name in ("side", "labels", "epochs"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--width", type=float, default=1.0)
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("--seeds: from 2 on")
    file = options.out / "forest.json"
    settings = {name: getattr(options, name) for name in ("seeds", "side", "labels", "epochs", "width")}
    content = study.resume(parser, file, settings, {"data": {}, "data_marks": {}, "provenance": {}})
    command = study.command_of(parser, MODULE, options)
    for name in options.data:
        try:
            task = methods.load_task(name, options)
        except ConfigError as error:
            print(f"{name} is left out: {error}")
            continue
        cells = content["data"].setdefault(name, {"cells": {}})["cells"]
        begin = functools.partial(study.begin, parser, file, content, name, task.data_mark, command)
        for number, (method, description) in enumerate(METHODS.items()):
            # Seeds of its own for each method, so that their effects are independent.
            seeds = [100 * number + seed for seed in range(options.seeds)]
            tuning = [10_000 + 100 * number + seed for seed in range(2)]
            stored = cells.setdefault(method, {"seeds": seeds, "tuning_seeds": tuning, "runs": {}})
            config = methods.with_method(task.config, description, options.width)
            trainer = functools.cache(functools.partial(_trainer, task, config, begin))
            with study.one_line_errors(parser):
                run_cell(Cell(stored, functools.partial(study.write_json, file, content), trainer))
            print(f"{name}, {method}: {stored['chosen']}", flush=True)
        pages.write(options.out, content)


def _trainer(task: runs.Task, config: Any, begin: Callable[[], None]) -> Trainer:
    begin()
    return Trainer(task._replace(config=config))


if __name__ == "__main__":
    study.run(main)
