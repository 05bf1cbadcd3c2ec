"""The reading of anybody's runs from a CSV file, as the frame of a table."""

import csv
import io
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from csbp_jax.config import ConfigError, suggestion
from csbp_jax.runs.reading import COLUMNS
from csbp_jax.runtime import files

_MISSING = ("", "nan", "none", "na", "n/a", "null")
"""Cells of a run that has no such number, in lower case."""

_FLAGS = {"true": True, "false": False}


def read(file: pathlib.Path, *, arm: str, seed: str, draw: str | None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read a CSV file with a row for each run.

    Args:
      file: comma-separated UTF-8, with a first line of names.
      arm, seed, draw: columns, as of :meth:`csbp_jax.runs.RunTable.read_csv`.

    Returns:
      The frame of a :class:`csbp_jax.runs.RunTable`, and its measures: all other columns that hold numbers.

    Raises:
      ConfigError: the file is no such table, lacks a column, or has two runs that no column tells apart.
    """
    names, rows, lines = _cells(file)
    cells = {name: [row[number] for row in rows] for number, name in enumerate(names)}
    chosen = {"arm": arm, "seed": seed} | ({} if draw is None else {"draw": draw})
    for role, name in chosen.items():
        if name not in cells:
            raise ConfigError(f"{file}: has no column {name!r} for the {role}; {suggestion(name, names)}")
    if len(set(chosen.values())) < len(chosen):
        raise ConfigError(f"{file}: {', '.join(chosen.values())}: one column cannot be two of arm, seed and draw")
    for name in chosen.values():
        for cell, line in zip(cells[name], lines, strict=True):
            if not cell:
                raise ConfigError(f"{file}: line {line} has no {name}; fill in the cell")
    frame = pd.DataFrame({"case": "", "arm": cells[arm], "draw": 0, "try": 0, "role": "test"})
    frame["seed"] = _as_numbers(cells[seed])
    if set(COLUMNS) <= set(names):  # a table that this package has written
        frame["case"], frame["role"] = cells["case"], cells["role"]
        frame["draw"], frame["try"] = _as_numbers(cells["draw"]), _as_numbers(cells["try"])
    if draw is not None:
        frame["draw"] = _as_numbers(cells[draw])
    if (twice := frame.duplicated(list(COLUMNS))).any():
        second = int(twice.to_numpy().argmax())
        first = int((frame[list(COLUMNS)] == frame.loc[second, list(COLUMNS)]).all(axis=1).to_numpy().argmax())
        raise ConfigError(
            f"{file}: lines {lines[first]} and {lines[second]} are both of arm {frame['arm'][second]} and {seed} "
            f"{frame['seed'][second]}; name the column that tells them apart as draw, or keep one"
        )
    others = {name: _numbers(of) for name, of in cells.items() if name not in (*COLUMNS, *chosen.values())}
    if "diverged" in others and others["diverged"] is None:
        raise ConfigError(f"{file}: column diverged has other words than True and False; write these, or 1 and 0")
    measured = {name: numbers for name, numbers in others.items() if numbers is not None}
    return pd.concat([frame, pd.DataFrame(measured)], axis=1), tuple(measured)


def read_text(file: pathlib.Path, name: str) -> list[str]:
    """Return the cells of a column as they stand in the file."""
    names, rows, _ = _cells(file)
    return [row[names.index(name)] for row in rows]


def columns(file: pathlib.Path) -> list[str]:
    """Return the names of the columns of a file.

    Raises:
      ConfigError: the file is no table.
    """
    return _cells(file)[0]


def why_no_measure(file: pathlib.Path, name: str) -> str:
    """Say why a column is no measure of a table: there is none, or which cell is no number."""
    names, rows, lines = _cells(file)
    if name not in names:
        return f"has no column {name!r}; {suggestion(name, names)}"
    for row, line in zip(rows, lines, strict=True):
        cell = row[names.index(name)]
        if _number(cell) is None:
            return f"line {line} has {name} {cell!r}, which is no number; write one, or leave the cell empty"
    return f"column {name} has no number" if name not in COLUMNS else f"column {name} is that of a {name}"


def check_shares(file: str | pathlib.Path, frame: pd.DataFrame, shares: Sequence[str]) -> None:
    """Check that shares are from 0 to 1.

    Raises:
      ConfigError: one is not.
    """
    for name in shares:
        values = frame[name].astype(float)
        outside = values[(values < 0) | (values > 1)]
        if len(outside):
            raise ConfigError(
                f"{file}: column {name} has {outside.iloc[0]:g}, and a share is from 0 to 1; where the column is in "
                "percent or another unit, write --unit raw, and the margin in that unit (in Python: shares=())"
            )


def _cells(file: pathlib.Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the names, the cells of each row, without blanks around them, and the lines at which rows end."""
    remedy = "write a comma-separated table in UTF-8, with a first line of names"
    with files.readable(file, remedy, (UnicodeDecodeError, csv.Error), "is no CSV file"):
        text = files.read_bytes(file, files.LARGE).decode("utf-8-sig")
        names, *parsed = list(_parsed(text)) or [([], 0)]
    header, lines = names[0], [line for _, line in parsed]
    if len(header) < 2:
        separator = next((f"; its columns seem to be separated by {c!r}" for c in ";\t" if c in "".join(header)), "")
        raise ConfigError(f"{file}: has no two columns{separator}; {remedy}")
    if twice := [name for name in header if header.count(name) > 1]:
        raise ConfigError(f"{file}: has two columns {twice[0]!r}; rename one")
    if not parsed:
        raise ConfigError(f"{file}: has names, but no row; write a row for each run")
    for row, line in parsed:
        if len(row) != len(header):
            raise ConfigError(f"{file}: line {line} has {len(row)} cells, and the first line {len(header)} names")
    return header, [row for row, _ in parsed], lines


def _parsed(text: str) -> Iterator[tuple[list[str], int]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for row in reader:
        if row:  # not an empty line
            yield [cell.strip() for cell in row], reader.line_num


def _number(cell: str) -> float | None:
    """Return the number or flag in a cell, NaN if it is empty; None for another text."""
    lower = cell.lower()
    if lower in _MISSING:
        return math.nan
    if lower in _FLAGS:
        return float(_FLAGS[lower])
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(cells: Sequence[str]) -> "pd.Series[Any] | None":
    """Return a column of numbers, or of flags where all cells are; None for one with texts, or without a number."""
    if all(cell.lower() in _FLAGS for cell in cells):
        return pd.Series([_FLAGS[cell.lower()] for cell in cells])
    numbers = [_number(cell) for cell in cells]
    if None in numbers or all(number is not None and math.isnan(number) for number in numbers):
        return None
    return pd.Series(numbers, dtype=float)


def _as_numbers(cells: Sequence[str]) -> list[Any]:
    """Return names of seeds or draws as whole numbers where all are, so that 1 and 1.0 are the same."""
    numbers = [_number(cell) for cell in cells]
    if all(number is not None and math.isfinite(number) and number == int(number) for number in numbers):
        return [int(number) for number in numbers if number is not None]
    return list(cells)
