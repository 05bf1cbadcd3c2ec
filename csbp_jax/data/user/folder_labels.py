"""``labels.csv`` in a user's folder: the file of each record, beside it, with its target.

file,rating,price          numbers, with ``loss.task`` labels (0 or 1) or value; the columns name them
a.npy,0.5,12
file,kind                  with ``loss.task`` class the name of a class, in one column
a.png,cat
"""

import csv
import math
import pathlib
from collections.abc import Callable, Iterator

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.recordings import Recording, collect_errors, natural_key
from csbp_jax.runtime import files

NAME = "labels.csv"
_FILE = "file"


def read(
    paths: dict[str, pathlib.Path],
    root: pathlib.Path,
    config: Config,
    check_format: Callable[[pathlib.Path], object],
    skipped: dict[str, str] | None,
) -> tuple[dict[str, list[Recording]], list[str]]:
    """Read the table of each split, and return its records, and the names of the classes, labels or values.

    Args:
      paths: of the tables.
      root: folder from which the names of records start.
      config: what targets are.
      check_format: raises a ConfigError for a file of another format.
      skipped: collects files that cannot be used, unless it is None.

    Raises:
      ConfigError: a table has no column of files or targets, or others than another split; a file is not there or named
        twice; or a target is not what it should be.
    """
    if config.loss.per == "step":
        raise ConfigError(
            f"loss.per: step is not possible with {next(iter(paths.values()))}, which has a target for each file; give "
            "those of every time step by a function data (docs/own.md)"
        )
    tables = {split: list(_rows(path)) for split, path in paths.items()}
    columns = next(iter(tables.values()))[0][1]
    for split, table in tables.items():
        if table[0][1] != columns:
            raise ConfigError(
                f"{paths[split]}: has the columns {', '.join(table[0][1])}; others have {', '.join(columns)}"
            )
    targets = [column for column in columns if column != _FILE]
    if by_class := config.loss.task == "class":
        if len(targets) > 1:
            raise ConfigError(
                f"{next(iter(paths.values()))}: has the targets {', '.join(targets)}; with loss.task class, give one "
                "column, of class names; for numbers, set loss.task value or labels"
            )
        names = {row[columns.index(targets[0])] for table in tables.values() for _, row in table[1:]}
        targets = sorted(names, key=natural_key)
        if len(targets) < 2:
            raise ConfigError(f"{next(iter(paths.values()))}: has one class, {targets[0]!r}; it needs at least two")
    splits: dict[str, list[Recording]] = {}
    for split, path in paths.items():
        seen: dict[pathlib.Path, int] = {}
        splits[split] = []
        for line, row in tables[split][1:]:
            cells = dict(zip(columns, row, strict=True))
            file = path.parent / cells.pop(_FILE)
            with collect_errors(str(file), skipped):
                if not file.is_file():
                    raise ConfigError(f"{path}:{line}: there is no file {file}")
                if file in seen:
                    raise ConfigError(f"{path}:{line}: names {file} again, after line {seen[file]}; keep one line")
                seen[file] = line
                check_format(file)
                value = next(iter(cells.values()))
                label = targets.index(value) if by_class else _numbers(cells, config.loss.task, f"{path}:{line}")
                splits[split].append(Recording(str(file.relative_to(root)), file, label))
        if not splits[split]:
            raise ConfigError(f"{path}: none of its files can be used")
    return splits, targets


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table with the numbers of their lines, the columns first; empty lines are left out."""
    with files.readable(path, "save it as comma-separated UTF-8 text"):
        text = files.read_bytes(path, files.LARGE).decode("utf-8-sig")
        rows = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
        table = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if row]
    columns = table[0][1] if table else []
    if columns.count(_FILE) != 1 or len(columns) < 2 or len({*columns}) < len(columns) or "" in columns:
        raise ConfigError(
            f"{path}: has the columns {', '.join(columns) or 'none'}; its first line must name file, and one or more "
            "targets"
        )
    if len(table) == 1:
        raise ConfigError(f"{path}: names no file; give a line for each, below its columns")
    for line, row in table:
        if len(row) != len(columns) or "" in row:
            raise ConfigError(
                f"{path}:{line}: is {', '.join(row)}; expected is a value for each of {', '.join(columns)}"
            )
        yield line, row


def _numbers(cells: dict[str, str], task: str, where: str) -> tuple[float, ...]:
    """Return a row's numbers."""
    numbers = []
    for column, cell in cells.items():
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (task == "labels" and number not in (0, 1)):
            expected = "0 or 1" if task == "labels" else "a finite number"
            raise ConfigError(f"{where}: {column} is {cell!r}; expected is {expected} (loss.task {task})")
        numbers.append(number)
    return tuple(numbers)
