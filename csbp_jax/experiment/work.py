"""The training of a plan's runs: what a folder lacks, choices among tries, and the table of what is finished."""

import collections
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas

from csbp_jax import __version__
from csbp_jax.config import Config, ConfigError
from csbp_jax.experiment import memory, saves
from csbp_jax.experiment.chunk import Called
from csbp_jax.experiment.plan import Cell, Plan
from csbp_jax.experiment.store import Block, Store, name_of
from csbp_jax.reporting import terminal
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import RunTable
from csbp_jax.runs.reading import COLUMNS, CURVES, SETTINGS, TABLE, table_digest, with_fields
from csbp_jax.runtime import files, preemption, seals
from csbp_jax.training.callbacks import Callback, Callbacks
from csbp_jax.training.health import failed_layers

Show = Callable[[int, str, bool], None]
"""Progress callback of :func:`csbp_jax.reporting.terminal.logged_progress`."""

WEIGHTS = "weights"
"""Folder of the weights of runs, each in one of its own."""
SHARDS, CHUNKS = "shards", "chunks"
"""Folder of the shards' own folders, and that of the unfinished chunks in each of these."""
RATES = "rates."
"""Prefix of the curves of layers' firing rates."""


def folder_of_shard(folder: pathlib.Path, shard: tuple[int, int]) -> pathlib.Path:
    """Return the folder that the process of a shard alone writes to, within that of the experiment."""
    return folder / SHARDS / f"{shard[0]}-of-{shard[1]}"


class Work:
    """One process's work on a folder.

    Args:
      plan: what is trained.
      choose: the measure by whose mean a try is chosen; by default the system's, or the first that it returns.
      folder: of the experiment.
      console: where progress is shown.
      weights: save the weights of each run.
      callbacks: called after each epoch of runs that train together.

    Raises:
      ConfigError: a result is damaged.
      TypeError, ValueError: as :class:`csbp_jax.training.callbacks.Callbacks`.
    """

    def __init__(
        self,
        plan: Plan,
        choose: str,
        folder: pathlib.Path,
        console: Console,
        weights: bool = False,
        callbacks: Sequence[Callback] = (),
    ):
        self.plan, self.folder, self.console, self.weights = plan, folder, console, weights
        self._called = Called(callbacks, Callbacks(callbacks, Config()).states_as_given(), None, folder, self._say)
        self.choose = choose or plan.system.choose
        if default := plan.system.choose:
            allowed = [default, default.replace("last_", "chosen_"), default.replace("last_", "ema_")]
            if self.choose not in allowed:
                raise ConfigError(f"choose: {choose} is not possible; allowed are {', '.join(allowed)}")
        self.store = Store(folder, self._say)
        # Of a shard: the work done by this process, in epochs; the runs that have ended; and all of its runs.
        self._done = self._ended = self._runs = 0
        self._of_shard = folder
        self._compiled: Any = None  # the group whose program is compiled: that of the last chunk

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def add(self, known: pandas.DataFrame) -> None:
        """Store the rows of a table as finished runs of the settings whose fields they have.

        Raises:
          ConfigError: it has no seeds or no measures.
        """
        described = {setting: self.plan.system.describe(fields) for setting, fields in self.plan.settings.items()}
        fields = [name for name in map(str, known) if any(name in of for of in described.values())]
        numbers = known.select_dtypes(["number", "bool"]).drop(columns=[*COLUMNS, *fields], errors="ignore")
        if "seed" not in known or numbers.columns.empty:
            raise ConfigError("known: a table of runs has a column seed and columns of measures, as runs.csv does")
        count = 0
        for setting, values in described.items():
            same = [np.full(len(known), True), *(_equal(known[name], values.get(name)) for name in fields)]
            rows = numbers.set_axis(known["seed"])[np.all(same, axis=0)]
            rows = rows[~rows.index.duplicated()]
            block = self.store.missing(Block(setting, tuple(map(int, rows.index))))
            if block.seeds:
                measures = {str(name): values for name, values in rows.loc[list(block.seeds)].items()}
                self.store.write(block, self.plan.settings[setting], measures, {})
            count += len(rows)
        self.console.print(f"{count} of {len(known)} known runs are of these settings, and are not trained again")

    def merge(self, folder: pathlib.Path) -> None:
        """Take over the finished runs of another folder of the same experiment.

        Raises:
          ConfigError: a result there is damaged, or had other data or devices.
        """
        count = self.store.take(folder)
        self.console.print(f"{count} finished runs are merged from {folder}", soft_wrap=True)

    def run(self, shard: tuple[int, int]) -> RunTable:
        """Train the runs of a shard that have no result yet, return the finished ones, and write them if all are.

        Raises:
          ConfigError: finished runs had other data, or devices where some of their setting are missing; or memory is
            used up.
        """
        for note in self.plan.notes():
            self.console.print(note, soft_wrap=True)
        self._of_shard = folder_of_shard(self.folder, shard)
        units = self.plan.units()[shard[0] :: shard[1]]
        blocks = dict.fromkeys(block for unit in units for block in self._blocks(unit))
        missing = list(map(self.store.missing, blocks))
        incomplete = {block.key for block in missing if block.seeds}
        for setting, group in self.plan.groups.items():
            how = self.plan.system.how(group)
            # Where nothing is left to train, any machine with the data shows the results.
            of_data = {name: value for name, value in how.items() if name == "data"}
            self.store.check_how(setting, how if setting in incomplete else of_data)
        self._runs, left = (sum(len(block.seeds) for block in of) for of in (blocks, missing))
        self._ended = self._runs - left
        total = sum(self.plan.system.work(self.plan.settings[block.key]) * len(block.seeds) for block in missing)
        with terminal.logged_progress(self.console, max(total, 1)) as show, files.closed_after(self.store.close):
            for unit in units:
                for chunk in self.plan.chunks(_tuning(unit)) if isinstance(unit, Cell) else [unit]:
                    self._train(chunk, show)
                if isinstance(unit, Cell):
                    chosen = self.chosen(unit)
                    assert chosen is not None  # all of its tries have trained
                    for chunk in self.plan.chunks([Block(unit.tries[chosen], unit.seeds)]):
                        self._train(chunk, show)
        self.store.refresh()
        if line := self._failed_layers():
            self.console.print(line, soft_wrap=True)
        for line in self._at_the_edge():
            self.console.print(line, soft_wrap=True)
        table, curves = self._tables()
        if any(self.store.missing(block).seeds for unit in self.plan.units() for block in self._blocks(unit)):
            self.console.print(
                f"shard {shard[0]} of {shard[1]} is finished, and others are not yet; where they have disks of their "
                "own, --merge FOLDER (merge=) takes over their runs",
                soft_wrap=True,
            )
        else:
            self._write(table.frame, curves)
            for chunks in (self.folder / SHARDS).glob(f"*/{CHUNKS}"):  # such as of a number of shards that was given up
                shutil.rmtree(chunks, ignore_errors=True)
        return table

    def _blocks(self, unit: Cell | Sequence[Block]) -> Sequence[Block]:
        """Return the blocks of a unit; until a try is chosen, the first stands for it."""
        if not isinstance(unit, Cell):
            return unit
        return [*_tuning(unit), Block(unit.tries[self.chosen(unit) or 0], unit.seeds)]

    def _train(self, chunk: Sequence[Block], show: Show) -> None:
        """Train the missing runs of a chunk, with copies of the last up to the size of the chunks of its group."""
        system, settings = self.plan.system, self.plan.settings
        self.store.refresh()  # another shard may have trained the same runs
        blocks = [block for block in map(self.store.missing, chunk) if block.seeds]
        if not blocks:
            return
        group = self.plan.groups[blocks[0].key]
        how = system.how(group)
        fields = [settings[block.key] for block in blocks for _ in block.seeds]
        seeds = [seed for block in blocks for seed in block.seeds]
        copies = self.plan.sizes[group] - len(seeds)
        count, work, done = len(seeds), system.work(fields[0]), self._done  # a group has the epochs in common

        first, last = self._ended + 1, self._ended + count
        label = f"{f'runs {first} to' if count > 1 else 'run'} {last} of {self._runs}"

        is_compiled, self._compiled = group == self._compiled, group

        def show_work(part: int) -> None:
            text = label + (f", epoch {part} of {work}" if work > 1 else "")
            # Between two chunks lie tests, which may have been compiled; the first epoch compiles the rest.
            show(done + part * count, text, part > (0 if is_compiled else 1))

        show_work(0)
        runs = [self._weights(block.key, seed) for block in blocks for seed in block.seeds] if self.weights else []
        content = {
            "runs": [[block.key, seed] for block in blocks for seed in block.seeds],
            "size": self.plan.sizes[group],
            "how": how,
            "versions": [__version__, jax.__version__],
        }
        with (
            memory.used_up_in_one_line(),
            saves.opened(self._of_shard / CHUNKS, content, self._say) as of,
        ):
            trained = system.train(
                group,
                # So that all chunks of a group have one size, and share a compilation; of copies no weights are saved.
                fields=[*fields, *[fields[-1]] * copies],
                seeds=[*seeds, *[seeds[-1]] * copies],
                show=show_work,
                folders=[self.folder / name for name in runs],
                saves=of,
                called=dataclasses.replace(self._called, count=count),
            )
        measures = {name: np.asarray(v)[:count] for name, v in trained.items()}
        self._done, self._ended = done + count * work, last
        start = 0
        for block in blocks:
            part = {name: values[start : start + len(block.seeds)] for name, values in measures.items()}
            self.store.write(block, settings[block.key], part, how)
            start += len(block.seeds)
        if not self.store.waits:
            of.remove()
        preemption.current().raise_if_requested()

    def _weights(self, setting: str, seed: int) -> str:
        """Return the folder of a run's weights, within that of the experiment."""
        return f"{WEIGHTS}/{name_of(setting, seed)}"

    def chosen(self, cell: Cell) -> int | None:
        """Return the number of the try with the largest mean of ``choose``; None while tuning is not finished.

        Tries of which fewer runs diverged come first, and the first of equals. Without ``choose``, the measure is the
        first that the system returns, as its results are stored in that order.
        """
        if len(cell.tries) == 1:
            return 0
        ranks = []
        for block in _tuning(cell):
            runs = list(self.store.finished(block).values())
            if len(runs) < len(block.seeds):
                return None
            name = self.choose or next(iter(runs[0]))
            if not all(isinstance(run.get(name), int | float) for run in runs):
                numbers = [name for name, value in runs[0].items() if isinstance(value, int | float)]
                raise ConfigError(f"choose: {name} is no measure of a whole run; those are {', '.join(numbers)}")
            values = np.array([run[name] for run in runs], float)
            finite = values[np.isfinite(values)]
            ranks.append((len(finite) - len(values), float(finite.mean()) if len(finite) else -np.inf))
        return max(range(len(ranks)), key=ranks.__getitem__)

    def _failed_layers(self) -> str:
        """Return a line that counts the finished runs in which a layer never or always fired over an epoch."""
        names: dict[str, None] = {}
        count = runs = 0
        for setting, fields in self.plan.settings.items():
            most = self.plan.system.most_spikes(fields)
            for measures in self.store.runs(setting):
                rates = {name.removeprefix(RATES): v for name, v in measures.items() if name.startswith(RATES)}
                epochs = [dict(zip(rates, values, strict=True)) for values in zip(*rates.values(), strict=True)]
                failed = [
                    name for of_epoch in epochs for layers in failed_layers(of_epoch, most).values() for name in layers
                ]
                names |= dict.fromkeys(failed)
                count, runs = count + bool(failed), runs + 1
        text = f"note: {count} of {runs} runs have a layer that never or always fires over an epoch"
        return f"{text} ({', '.join(names)}); rates are in epochs.csv" if names else ""

    def _at_the_edge(self) -> Iterator[str]:
        """Yield a line for each field of which the smallest or the largest value that was tried has been chosen.

        Of fields with numbers, at least three different ones; 0, which means off, is no edge.
        """
        edges: dict[tuple[str, str], list[str]] = {}
        choices: collections.Counter[str] = collections.Counter()
        for cell in self.plan.cells:
            chosen = self.chosen(cell)
            if chosen is None or len(cell.tries) == 1:
                continue
            choices[cell.arm] += 1
            tries = [self.plan.system.describe(self.plan.settings[setting]) for setting in cell.tries]
            for field, value in tries[chosen].items():
                values: set[Any] = {of_try.get(field) for of_try in tries}
                are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
                if not are_numbers or len(values) < 3 or value == 0:
                    continue
                for edge, of_values in (("smallest", min(values)), ("largest", max(values))):
                    if value == of_values:
                        edges.setdefault((field, edge), []).append(cell.arm)
        for (field, edge), arms in edges.items():
            beyond = "smaller" if edge == "smallest" else "larger"
            counts = collections.Counter(arms)
            texts = [
                arm if choices[arm] == 1 else f"{arm} in {n} of {choices[arm]} choices" for arm, n in counts.items()
            ]
            yield f"note: {field}: the {edge} value that was tried is chosen for {', '.join(texts)}; try {beyond} ones"

    def _tables(self) -> tuple[RunTable, pandas.DataFrame]:
        """Return the finished runs, and their curves: a row for each epoch."""
        described = {setting: self.plan.system.describe(fields) for setting, fields in self.plan.settings.items()}
        names = list(dict.fromkeys(name for fields in described.values() for name in fields))
        differing = [n for n in names if len({repr(fields.get(n)) for fields in described.values()}) > 1]
        rows, curves = [], []
        for setting, row, measures in (run for cell in self.plan.cells for run in self._finished(cell)):
            row |= {name: described[setting].get(name) for name in differing}
            folder = self._weights(setting, row["seed"])
            run = {"run": folder} if (self.folder / folder / "config.json").exists() else {}
            rows.append(row | {k: v for k, v in measures.items() if not isinstance(v, list)} | run)
            curves += [row | of_epoch for of_epoch in _epochs(measures)]
        frame = with_fields(rows, differing) if rows else pandas.DataFrame(columns=[*COLUMNS, *differing])
        measured = tuple(column for column in frame.columns if column not in (*COLUMNS, *differing, "run"))
        base = self.plan.system.describe({})
        shared = {name: value for name, value in base.items() if name not in differing}
        return RunTable(frame, tuple(differing), measured, self.folder, shared), pandas.DataFrame(curves)

    def _finished(self, cell: Cell) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield ``(setting, columns, measures)`` of the finished runs of a cell, those of its tuning first."""
        chosen = self.chosen(cell)
        roles = [("tune", number, cell.tuning_seeds) for number in range(len(cell.tries)) if len(cell.tries) > 1]
        roles += [("test", chosen, cell.seeds)] if chosen is not None else []
        for role, number, seeds in roles:
            for seed, measures in self.store.finished(Block(cell.tries[number], seeds)).items():
                columns = cell.case, cell.arm, cell.draw, number, role, seed
                yield cell.tries[number], dict(zip(COLUMNS, columns, strict=True)), measures

    def _write(self, runs: pandas.DataFrame, curves: pandas.DataFrame) -> None:
        """Write ``runs.csv``, ``epochs.csv`` and ``settings.json``."""
        for name, content in ((TABLE, runs), (CURVES, curves)):
            if len(content):
                with files.replacing(self.folder / name, shared=True) as temporary:
                    content.to_csv(temporary, index=False)
        cells = [
            {"case": c.case, "arm": c.arm, "draw": c.draw, "tries": [self.plan.settings[s] for s in c.tries]}
            for c in self.plan.cells
        ]
        written = [name for name in (TABLE, CURVES) if (self.folder / name).exists()]
        tables = {name: table_digest(self.folder / name) for name in written}
        with files.replacing(self.folder / SETTINGS, shared=True) as temporary:
            temporary.write_text(json.dumps(seals.seal({"cells": cells, "tables": tables})))


def _epochs(measures: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row of each epoch of a run's curves, but for those after it had stopped, of which it has no measures."""
    curves = {name: values for name, values in measures.items() if isinstance(values, list)}
    for epoch in range(max(map(len, curves.values()), default=0)):
        row = {name: values[epoch] for name, values in curves.items() if epoch < len(values)}
        if not all(np.isnan(value).all() for value in row.values()):
            yield {"epoch": epoch + 1, **row}


def _equal(cells: pandas.Series, value: Any) -> Any:
    """Whether each cell of a column is a field's value, as a file has it: None is empty, and a tuple is text."""
    if value is None:
        return cells.isna()
    if pandas.api.types.is_numeric_dtype(cells) and not isinstance(value, str | tuple):
        return np.isclose(cells.astype(float), value, rtol=1e-12, atol=0)  # a number that is read may be rounded
    return cells.astype(str) == str(value)


def _tuning(cell: Cell) -> list[Block]:
    return [Block(setting, cell.tuning_seeds) for setting in cell.tries]
