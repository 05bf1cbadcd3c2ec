"""``labels.csv`` in a user's folder: the file of each record, beside it, with its target.

file,rating,price          numbers, with ``loss.task`` labels (0 or 1) or value; the columns name them
a.npy,0.5,12
file,kind                  with ``loss.task`` class the name of a class, in one column
a.png,cat
"""

import csv
import math
import os
import pathlib
from collections.abc import Callable

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.recordings import Recording, collect_errors, natural_key
from csbp_jax.runtime import files

NAME = "labels.csv"
_FILE = "file"
_LARGEST = float(np.finfo(np.float32).max)


def read(
    paths: dict[str, pathlib.Path],
    root: pathlib.Path,
    config: Config,
    check_format: Callable[[pathlib.Path], object],
    skipped: dict[str, str],
) -> tuple[dict[str, list[Recording]], list[str]]:
    """Read the table of each split, and return its records, and the names of the classes, labels or values.

    Args:
      paths: of the tables.
      root: folder from which the names of records start.
      config: what targets are.
      check_format: raises a ConfigError for a file of another format.
      skipped: collects files that cannot be used.

    Raises:
      ConfigError: a table has no column of files or of targets, or others than another split; a file is not there, or
        named twice; or a target is not what it should be.
    """
    loss, first = config.loss, next(iter(paths.values()))
    if loss.per == "step":
        raise ConfigError(
            f"loss.per: step is not possible with {first}, which has a target for each file; write a function data, "
            "which gives those of every time step (docs/own.md)"
        )
    tables = {split: _table(path) for split, path in paths.items()}
    names = tables[next(iter(tables))][0]
    for split, (others, _) in tables.items():
        if others != names:
            raise ConfigError(f"{paths[split]}: has the targets {', '.join(others)}, but {first} {', '.join(names)}")
    if loss.task == "class":
        if len(names) > 1:
            raise ConfigError(
                f"{first}: has the targets {', '.join(names)}; with loss.task class, give one column, of class names; "
                "for numbers, set loss.task value or labels"
            )
        names = sorted({cells[0] for _, rows in tables.values() for _, _, cells in rows}, key=natural_key)
        if len(names) < 2:
            raise ConfigError(f"{first}: has one class, {names[0]!r}; it needs at least two")
    splits: dict[str, list[Recording]] = {split: [] for split in paths}
    for split, path in paths.items():
        lines: dict[pathlib.Path, int] = {}
        for line, name, cells in tables[split][1]:
            file, where = path.parent / name, f"{path}:{line}"
            with collect_errors(str(file), skipped):
                if not file.is_file():
                    raise ConfigError(f"{where}: there is no file {file}")
                target = pathlib.Path(os.path.realpath(file))  # where links lead
                if not target.is_relative_to(os.path.realpath(path.parent)):
                    raise ConfigError(f"{where}: {name} is outside {path.parent}; name files below it")
                if target in lines:
                    raise ConfigError(f"{where}: names {file} again, after line {lines[target]}; keep one line")
                check_format(file)
                lines[target] = line
                label = names.index(cells[0]) if loss.task == "class" else _numbers(names, loss.task, cells, where)
                splits[split].append(Recording(os.path.relpath(file, root), file, label))
        if not splits[split]:
            raise ConfigError(f"{path}: none of its files can be used")
    return splits, names


def _table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, str, list[str]]]]:
    """Return the names of a table's targets, and its rows: number of the line, file, targets."""
    with files.readable(path, "save it as comma-separated UTF-8 text"):
        text = files.read_bytes(path, files.LARGE).decode("utf-8-sig")
        lines = csv.reader(text.splitlines(), strict=True)
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if row]
    columns = rows[0][1] if rows else []
    if columns.count(_FILE) != 1 or len(columns) < 2 or len({*columns}) < len(columns) or "" in columns:
        raise ConfigError(
            f"{path}: has the columns {', '.join(columns) or 'none'}; its first line must name file, and one or more "
            "targets"
        )
    if len(rows) == 1:
        raise ConfigError(f"{path}: names no file; give a line for each, below its columns")
    for line, row in rows:
        if len(row) != len(columns) or "" in row:
            expected = ", ".join(columns)
            raise ConfigError(f"{path}:{line}: is {', '.join(row)}; expected is a value for each of {expected}")
    at = columns.index(_FILE)
    table = [(line, row.pop(at), row) for line, row in rows]
    return table[0][2], table[1:]


def _numbers(names: list[str], task: str, cells: list[str], where: str) -> tuple[float, ...]:
    """Return a row's numbers."""
    numbers = []
    for name, cell in zip(names, cells, strict=True):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        # As float32, in which training has it.
        if not abs(number) <= _LARGEST or (task == "labels" and number not in (0, 1)):
            expected = "0 or 1" if task == "labels" else "a finite number"
            raise ConfigError(f"{where}: {name} is {cell!r}; expected is {expected} (loss.task {task})")
        numbers.append(number)
    return tuple(numbers)
