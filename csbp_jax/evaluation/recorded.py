"""Measures of a recorded series, read from a CSV file of any program or from the metrics of a run."""

import collections
import csv
import io
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, suggestion
from csbp_jax.dynamics import series as measures
from csbp_jax.dynamics.surrogates import nonlinearity_test
from csbp_jax.evaluation import follow
from csbp_jax.reporting import terminal
from csbp_jax.runtime import files

LEVEL, REGULAR, IRREGULAR = 0.05, 0.2, 0.8
"""Level of the surrogate test; the largest K of a regular series; the smallest K of an irregular one."""

DRIFT, SLOW, SHORT = 0.5, 5, 1000
"""The drift of a series that is not stationary; the decorrelation lag of a slow one; a length that is short."""

_DEFAULTS = ("loss", "train/task_loss", "train_loss")

Columns = dict[str, list[tuple[int, str | float]]]
"""Cells that are not empty, with their line, of each column."""


class Recorded(NamedTuple):
    """A series, and the full name of its column."""

    name: str
    values: NDArray[np.float64]


def read(path: str | pathlib.Path, column: str | None = None, skip: int = 0) -> Recorded:
    """Read a column of a CSV file, or the numbers of one name in a run's ``metrics.jsonl``, as ``train/task_loss``.

    Args:
      path: the file, or the folder of a run.
      column: its name, or the last part of it (after a slash) if only one column has it. Of a file whose first line is
        numbers, columns are called 1, 2 and so on. By default the only column, or one that is called loss,
        train/task_loss or train_loss. Empty cells are left out.
      skip: number of first values to leave out.

    Raises:
      ConfigError: there is no such file, run or column, or a cell is not a finite number.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        columns, path = _columns_of_run(path), path / "metrics.jsonl"
    elif path.suffix == ".jsonl":
        raise ConfigError(f"{path}: is not CSV; of a run's metrics, name the folder: {path.parent}")
    else:
        columns = _columns_of_csv(path)
    name = _find(path, columns, column)
    values = []
    for line, cell in columns[name][skip:]:
        try:
            values.append(float(cell))
        except ValueError:
            raise ConfigError(f"{path}:{line}: column {name} is {cell!r}, which is not a number") from None
        if not math.isfinite(values[-1]):
            raise ConfigError(
                f"{path}:{line}: column {name} is {cell}, which is not finite; leave it out by --skip, or end the file "
                "before it"
            )
    return Recorded(name, np.array(values))


def _columns_of_run(folder: pathlib.Path) -> Columns:
    columns: Columns = {}
    for line, row in enumerate(follow.read_rows(follow.read_run(folder)), start=1):
        for name, value in follow.scalars(row).items():
            columns.setdefault(name, []).append((line, value))
    return columns


def _columns_of_csv(file: pathlib.Path) -> Columns:
    content = files.read_bytes(file, files.LARGE)
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: is not a CSV file ({error})") from None
    rows = [(line, cells) for line, cells in lines if any(cells)]
    if not rows:
        raise ConfigError(f"{file}: is empty")
    names = rows[0][1]
    if all(map(_is_number, names)):
        names = [str(number) for number in range(1, len(names) + 1)]
    else:
        rows = rows[1:]
    if duplicates := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise ConfigError(f"{file}: two columns are called {duplicates[0]!r}; rename one")
    columns: Columns = {name: [] for name in names}
    for line, cells in rows:
        if len(cells) != len(names):
            raise ConfigError(f"{file}:{line}: has {len(cells)} cells, but the first line has {len(names)}")
        for name, cell in zip(names, cells, strict=True):
            if cell:
                columns[name].append((line, cell))
    return columns


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _find(path: pathlib.Path, columns: Columns, column: str | None) -> str:
    """Return the full name of a column."""
    if column is None:
        known = list(columns) if len(columns) == 1 else [name for name in _DEFAULTS if name in columns]
        if not known:
            raise ConfigError(f"{path}: name a column, --column NAME; there are {', '.join(columns)}")
        return known[0]
    if column in columns:
        return column
    matches = [name for name in columns if name.rpartition("/")[2] == column]
    if len(matches) == 1:
        return matches[0]
    hint = f"there are {', '.join(matches)}" if matches else suggestion(column, columns)
    raise ConfigError(f"{path}: there is {'more than one' if matches else 'no'} column {column!r}; {hint} (--column)")


def measure(values: NDArray[np.float64], seed: int = 0) -> dict[str, Any]:
    """Apply all measures of :mod:`csbp_jax.dynamics.series`, and the surrogate test.

    Returns:
      ``{n, zero_one, zero_one_regression, permutation_entropy, flatness, peak, drift, decorrelation_lag,
      surrogate_p, surrogate_values, surrogate_ps}``, the last two by statistic.

    Raises:
      ValueError: the series is too short, constant or not finite.
    """
    values = measures.checked(values, 5 * 24 + 3)  # for the permutation entropy, the longest of all
    zero_one = measures.zero_one_test(values, seed=seed)
    spectrum = measures.power_spectrum(values)
    surrogates = nonlinearity_test(values, seed=seed)
    return {
        "n": len(values),
        "zero_one": zero_one.correlation,
        "zero_one_regression": zero_one.regression,
        "permutation_entropy": measures.permutation_entropy(values),
        "flatness": spectrum.flatness,
        "peak": spectrum.peak,
        "drift": measures.drift(values),
        "decorrelation_lag": measures.decorrelation_lag(values),
        "surrogate_p": surrogates.p,
        "surrogate_values": surrogates.values,
        "surrogate_ps": surrogates.ps,
    }


def reading(measured: dict[str, Any], every: int = 1) -> tuple[str, str]:
    """Read the results of :func:`measure`: a word for the series, and what this word does not mean.

    ``every``: the series has every n-th value of its source, in which the ``--every`` that it advises is counted.

    The first of: "not stationary", the drift is above 0.5 in size; "irregular and nonlinear" or "irregular", K is at
    least 0.8, and the surrogate p at most 0.05 or not; "slow", the decorrelation lag is above 5; "regular", K is at
    most 0.2; else "undecided".
    """
    lag = measured["decorrelation_lag"]
    if abs(measured["drift"]) > DRIFT:
        return "not stationary", (
            "its halves have different means, which all measures take for structure; leave out a transient (--skip) or "
            "take differences (--difference)"
        )
    if measured["zero_one"] >= IRREGULAR:
        if measured["surrogate_p"] <= LEVEL:
            return "irregular and nonlinear", (
                "consistent with chaos, and also with noise in a nonlinear system: only an exponent of the map can "
                "tell these apart"
            )
        return "irregular", "linear noise explains it, so this is no evidence of chaos; nor does it exclude chaos"
    if lag > SLOW:
        return "slow", (
            f"it changes little from one value to the next, which lowers K whether it is regular or chaotic; try "
            f"--every {every * lag}"
        )
    if measured["zero_one"] <= REGULAR:
        return "regular", "a cycle, or a few frequencies, perhaps with a little noise; very weak chaos reads the same"
    return "undecided", "weak chaos, a cycle with noise, or too few values; record more"


def report(name: str, measured: dict[str, Any], every: int = 1, console: terminal.Console | None = None) -> None:
    """Print the results of :func:`measure` as a table, and their :func:`reading`; ``every`` as there."""
    console = console or terminal.make_console()
    ps = measured["surrogate_ps"]
    rows = [
        ["0-1 test, K (correlation)", f"{measured['zero_one']:.3f}", "near 0: regular; near 1: chaos, or noise"],
        ["0-1 test, K (regression)", f"{measured['zero_one_regression']:.3f}", "likewise, less sensitive"],
        ["permutation entropy", f"{measured['permutation_entropy']:.3f}", "0: monotone; 1: all orders equally often"],
        ["spectral flatness", f"{measured['flatness']:.3f}", "0: lines; 1: white"],
        ["highest peak of the spectrum", f"{measured['peak']:.4f}", "cycles per value, at most 0.5"],
        ["drift between the halves", f"{measured['drift']:+.2f}", "standard deviations; should be near 0"],
        ["decorrelation lag", str(measured["decorrelation_lag"]), f"values; above {SLOW}: slow or sampled too finely"],
        ["surrogate p", f"{measured['surrogate_p']:.3f}", f"at most {LEVEL}: not linear noise"],
        *([f"  by {statistic}", f"{p:.3f}", ""] for statistic, p in ps.items()),
    ]
    terminal.print_table(
        console, f"{name}, n = {measured['n']}", ["measure", "value", "meaning"], rows, last_text_columns=1
    )
    word, caveat = reading(measured, every)
    console.print(f"Reading: {word}: {caveat}.", soft_wrap=True)
    if measured["n"] < SHORT:
        console.print(
            f"The series is short: the error rates of docs/results/series are for {SHORT} values.", soft_wrap=True
        )
