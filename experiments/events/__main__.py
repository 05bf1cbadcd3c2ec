"""Run the plan of docs/results/events/plan.md: a small network that overfits recordings, at the released settings.

    python -m experiments.events [--data-dir data] [--out docs/results/events]
    python -m experiments.events --check     only the two runs that decide the number of epochs
    python -m experiments.events --repeat    the first runs of plain and CSBP once more, on another processor
    python -m experiments.events --page      the page, from the rows that there are

The data must have been prepared (make data DATASET=cifar10_events). Each run that is finished is a row of OUT/runs.csv,
with its curves in OUT/epochs.csv, and is not trained again, on another machine neither. The run that is trained keeps
its last epoch in ``runs/events``. Stop the command at any time (Ctrl-C, SIGTERM): the same command goes on.
"""

import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from benchmarks.process import machine
from csbp_jax import Experiment
from csbp_jax.config import ConfigError
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import reading
from csbp_jax.runtime import files
from experiments import study
from experiments.events import page
from experiments.events.plan import ARMS, CHECK_SEEDS, EPOCHS, GAP, SEEDS, fields_of
from experiments.events.training import CURVES, Recordings

QUIET = Console(quiet=True)


class Rows:
    """The rows of finished runs, and their curves, in the files of a folder.

    Raises:
      ConfigError: they are of other data than a mark says.
    """

    def __init__(self, out: pathlib.Path, data_mark: str):
        self.runs_file, self.curves_file, self.data_mark = out / "runs.csv", out / "epochs.csv", data_mark[:16]
        out.mkdir(parents=True, exist_ok=True)
        runs = page.read(self.runs_file)
        if runs is not None and set(runs["data"]) != {self.data_mark}:
            raise ConfigError(f"{self.runs_file}: its runs had other data; prepare those, or give another --out")

    def has(self, part: str, arm: str, seed: int, epochs: int) -> bool:
        """Return whether there is a row of a run; if it repeats one, whether there is one of this processor."""
        runs = page.read(self.runs_file)
        if runs is None:
            return False
        same = runs[(runs["part"] == part) & (runs["arm"] == arm) & (runs["seed"] == seed) & (runs["epochs"] == epochs)]
        if part == "repeat":
            same = same[same["processor"] == machine()]
        return len(same) > 0

    def add(self, part: str, arm: str, seed: int, epochs: int, measures: dict[str, Any], curves: pd.DataFrame) -> None:
        """Add a run, its curves first: a run that has a row is not trained again."""
        run = {"part": part, "arm": arm, "seed": seed, "epochs": epochs}
        named = [run | {"epoch": row["epoch"], **{name: row[name] for name in CURVES}} for _, row in curves.iterrows()]
        _append(self.curves_file, pd.DataFrame(named))
        fields = {"term": ARMS[arm].term, "z0": ARMS[arm].z0, "lr": ARMS[arm].lr}
        _append(self.runs_file, pd.DataFrame([run | fields | measures | {"data": self.data_mark}]))


def _append(file: pathlib.Path, new: pd.DataFrame) -> None:
    before = page.read(file)
    with files.replacing(file) as temporary:
        pd.concat([new] if before is None else [before, new]).to_csv(temporary, index=False)


def experiment(system: Recordings, arm: str, epochs: int, seed: int) -> Experiment:
    """An arm at a seed."""
    return Experiment(system, {arm: fields_of(arm, epochs)}, seeds=[seed])


def run(system: Recordings, rows: Rows, part: str, arm: str, seed: int, epochs: int, work: pathlib.Path) -> None:
    """Train a run of a part of the plan, unless it has a row already, and add its row."""
    if rows.has(part, arm, seed, epochs):
        return
    table = experiment(system, arm, epochs, seed).run(work, chunk=1, console=QUIET)
    measures = {name: table.frame.iloc[0][name] for name in table.measures}
    rows.add(part, arm, seed, epochs, measures, reading.read_csv(work / "epochs.csv"))
    shutil.rmtree(system.folder, ignore_errors=True)
    test, train = (100 * measures[name] for name in ("test_accuracy", "train_accuracy"))
    print(f"{part}, {arm}, seed {seed}: test {test:.2f} %, training {train:.2f} %", flush=True)


def decided_epochs(system: Recordings, rows: Rows, work: pathlib.Path) -> int | None:
    """Train the check, and return the epochs of the study; None if the network does not overfit with twice as many."""
    for epochs in (EPOCHS, 2 * EPOCHS):
        for seed in CHECK_SEEDS:
            run(system, rows, "check", "plain", seed, epochs, work)
        runs = page.read(rows.runs_file)
        assert runs is not None
        gap = page.gap(runs, epochs)
        print(f"check: {epochs} epochs, training minus validation accuracy {gap:.1f} points", flush=True)
        if gap >= GAP:
            return epochs
    return None


def in_order(seeds: int) -> Iterator[tuple[int, str]]:
    """Yield seed and arm of each run of the study: all arms of a seed before the next."""
    for seed in range(seeds):
        for arm, planned in ARMS.items():
            if seed < planned.seeds:
                yield seed, arm


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "events", data_dir=True, seeds=SEEDS)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true")
    only.add_argument("--repeat", action="store_true")
    only.add_argument("--page", action="store_true")
    options = parser.parse_args(arguments)
    if options.page:
        page.write(options.out)
        return
    work = study.WORK / ("events_repeat" if options.repeat else "events")
    with study.one_line_errors(parser):
        system = Recordings(options.data_dir, work / "checkpoints")
        rows = Rows(options.out, system.data_mark)
        epochs = decided_epochs(system, rows, work)
        if epochs is None:
            print(f"check: less than {GAP:g} points with {2 * EPOCHS} epochs, too; the study ends, as its plan says")
        elif options.repeat:
            for arm in ("plain", "CSBP"):
                run(system, rows, "repeat", arm, 0, epochs, work)
        elif not options.check:
            for seed, arm in in_order(options.seeds):
                run(system, rows, "study", arm, seed, epochs, work)
    page.write(options.out)


if __name__ == "__main__":
    study.run(main)
