"""The reading of runs as the frame of a table: from their folders, or from the table of an experiment."""

import ast
import contextlib
import glob
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from csbp_jax.config import Config, ConfigError, flatten, one_line
from csbp_jax.reporting.format import fields_text
from csbp_jax.runs.run import Run, differing_fields, plain
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json

COLUMNS = ("case", "arm", "draw", "try", "role", "seed")
"""First columns of every table."""

TABLE = "runs.csv"
"""File of the table of a finished experiment, in its folder."""

CURVES = "epochs.csv"
"""File of the measures of each epoch of an experiment's runs, in its folder."""

SETTINGS = "settings.json"
"""File of the fields of every try of every arm of an experiment, in its folder; sealed, as its blocks are."""

ALL_DIGITS: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
"""Options with which ``pandas.read_csv`` reads all digits of a number, as pandas 3 does by itself."""

Read = tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]
"""The frame of a :class:`csbp_jax.runs.RunTable`, its fields and its measures."""


def matches(runs: str | pathlib.Path | Sequence[str | pathlib.Path]) -> list[str]:
    """Return the folders of runs that are named, are in a folder that is named, or match a pattern.

    Raises:
      ConfigError: a pattern has no match, or a name is none that a file could have.
    """
    folders = []
    for path in map(str, [runs] if isinstance(runs, str | pathlib.Path) else runs):
        is_folder = pathlib.Path(path).is_dir()  # whose name may look like a pattern
        with files.readable(path, "name folders such as runs/NAME", ValueError, "is no name of a file"):
            names = [path] if is_folder else glob.glob(path)
            known = _runs(names) or _runs(glob.glob(f"{glob.escape(path)}/*"))
        if not known and glob.has_magic(path) and not is_folder:
            raise ConfigError(f"{path}: there is no run; name folders such as runs/NAME")
        folders += known or [path]
    return folders


def _runs(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if pathlib.Path(name, "config.json").exists())


def of_runs(runs: Sequence[Run]) -> Read:
    """Read runs, of which those without a result have no measures.

    Raises:
      ConfigError: no runs, one whose folder has a name that is not UTF-8, or two differ in nothing that can change a
        result.
    """
    if not runs:
        raise ConfigError("RUN: missing; name folders of runs, such as runs/NAME")
    cases: dict[str, list[Run]] = {}
    for run in runs:
        cases.setdefault(run.content.get("data", ""), []).append(run)
    differing = dict.fromkeys(name for case in cases.values() for name in differing_fields(case))
    fields = [name for name in differing if name != "seed"]
    # Settings of a single run each that differ in several fields.
    settings = {(run.content.get("data"), *(run.fields.get(name) for name in fields)) for run in runs}
    by_name = len(settings) == len({run.name for run in runs}) == len(runs) and len(fields) != 1
    rows = []
    for run in runs:
        problem = "its name is not UTF-8, and no table can hold it"
        with files.readable(run.folder, "rename the folder", UnicodeEncodeError, problem):
            str(run.folder).encode()
        of_run = {name: run.fields.get(name) for name in fields}
        data = f"{run.fields['data.name']} {run.content.get('data', '')[:6]}".rstrip()
        case = data if len(cases) > 1 else ""
        arm = run.name if by_name else fields_text(of_run) or "all"
        names = dict(zip(COLUMNS, (case, arm, 0, 0, "test", run.fields["seed"]), strict=True))
        rows.append(names | of_run | run.measures() | {"run": str(run.folder)})
    frame = with_fields(rows, fields)
    if (twice := frame.duplicated(["case", "arm", "seed"])).any():
        row = frame[twice].iloc[0]
        like = frame[(frame[["case", "arm", "seed"]] == row[["case", "arm", "seed"]]).all(axis=1)].iloc[0]
        raise ConfigError(
            f"{row['run']}: has the seed of {like['run']}, and differs in no field that can change a result; name "
            "one of them"
        )
    measures = dict.fromkeys(name for run in runs for name in run.measures())
    return frame[[*COLUMNS, *fields, *measures, "run"]], tuple(fields), tuple(measures)


def of_experiment(folder: pathlib.Path) -> Read:
    """Read the table of an experiment, and check it against the sealed results that it was written from.

    Raises:
      ConfigError: it cannot be read, or it differs from the sealed results.
    """
    file = folder / TABLE
    frame = read_csv(file)
    with _reading(file):
        sealed = _Sealed(folder)
        names = [name for name in frame.columns if name not in COLUMNS]
        measures = tuple(name for name in names if name in sealed.measures)
        if not measures:
            raise ValueError("it has no measures")
        frame[list(COLUMNS)], frame[list(measures)].astype(float)  # what all that follows reads
        fields = tuple(name for name in names if name not in (*measures, "run"))
        texts = pd.read_csv(file, usecols=list(fields), dtype=str, keep_default_na=False)
        for name in fields:
            frame[name] = _column([_value(name, text) for text in texts[name]])
        sealed.check(file, frame, fields)
    if (folder / CURVES).exists():
        curves = read_csv(folder / CURVES)
        with _reading(folder / CURVES):
            sealed.check(folder / CURVES, curves, ())
    return frame, fields, measures


def shared_of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the fields that are the same in all runs."""
    first, *others = (run.fields for run in runs)
    return {name: value for name, value in first.items() if all(of.get(name) == value for of in others)}


def shared_of_experiment(folder: pathlib.Path) -> dict[str, Any]:
    """Return the fields of an experiment's base, of which its table has those that differ; none of another system."""
    file = folder / "config.json"
    config = run_json.read_config(folder, run_json.REPAIR).get("config") if file.exists() else None
    return {name: plain(value) for name, value in flatten(config).items()} if config else {}


class _Sealed:
    """The results of an experiment in its sealed files: the tries of its arms, and the measures of its runs."""

    def __init__(self, folder: pathlib.Path):
        settings = seals.parse(files.read_bytes(folder / SETTINGS, files.LARGE))
        self._tables: dict[str, str] = settings.get("tables", {})  # experiments of earlier versions have none
        self._tries = {(cell["case"], cell["arm"], cell["draw"]): cell["tries"] for cell in settings["cells"]}
        self._runs: dict[tuple[str, int], dict[str, Any]] = {}
        self.measures: set[str] = set()
        for block in sorted((folder / "blocks").glob("*.json")):
            content = seals.parse(files.read_bytes(block, files.LARGE))
            self.measures |= set(content["measures"])
            setting = _setting(content["fields"])
            for number, seed in enumerate(content["seeds"]):
                of_run = {name: values[number] for name, values in content["measures"].items()}
                self._runs[setting, seed] = of_run

    def check(self, file: pathlib.Path, frame: pd.DataFrame, fields: Sequence[str]) -> None:
        """Check a table of runs, or of their epochs, which has a column ``epoch``.

        Args:
          file: which was read.
          frame: its content.
          fields: columns of it whose values are those of fields of the config.

        Raises:
          ConfigError: a row differs from the run's sealed results, or rows were added or removed.
        """
        measures = [name for name in frame.columns if name in self.measures]
        for number, row in enumerate(frame.to_dict("records"), start=2):  # the first line has the names
            tries = self._tries.get((row["case"], row["arm"], row["draw"]), [])
            of_try = tries[row["try"]] if 0 <= row["try"] < len(tries) else None
            of_run = None if of_try is None else self._runs.get((_setting(of_try), row["seed"]))
            if of_try is None or of_run is None:
                raise _changed(file, f"line {number} is of a run that the experiment did not train")
            for name in fields:
                if name in of_try and plain(row[name]) != plain(of_try[name]):
                    raise _changed(file, f"line {number} has {name} {row[name]}, the run had {plain(of_try[name])}")
            for name in measures:
                value = of_run.get(name)
                if isinstance(value, list):
                    epoch = row.get("epoch", 0)
                    value = value[epoch - 1] if 0 < epoch <= len(value) else None
                read, trained = float(row[name]), np.nan if value is None else float(value)
                if not np.isclose(read, trained, rtol=1e-9, atol=0, equal_nan=True):
                    raise _changed(file, f"line {number} has {name} {read:g}, the sealed results have {trained:g}")
        expected = self._tables.get(file.name)
        if expected is not None and table_digest(file) != expected:
            raise _changed(file, "lines or columns were added, removed or edited")


def table_digest(file: pathlib.Path) -> str:
    """Return the SHA-256 of a table, whatever the ends of its lines."""
    return seals.digest(file.read_text().splitlines())


def _setting(fields: dict[str, Any]) -> str:
    """Return a text by which equal fields are found, as the names of blocks are made."""
    return json.dumps({name: plain(value) for name, value in fields.items()}, sort_keys=True)


def _changed(file: pathlib.Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{file}: was changed after the experiment wrote it: {problem}; repeat the command of the experiment, which "
        "writes it again"
    )


def read_csv(file: pathlib.Path) -> pd.DataFrame:
    """Read a table of an experiment, whose names are text.

    Raises:
      ConfigError: it cannot be read, or has no rows, or ends within one.
    """
    files.check(file)
    with _reading(file):
        if not file.read_bytes().endswith(b"\n"):
            raise ValueError("it ends within a row")
        types: Any = {"case": str, "arm": str}
        frame = pd.read_csv(file, dtype=types, keep_default_na=False, na_values=[""], **ALL_DIGITS)
        if frame.empty:
            raise ValueError("it has no rows")
        frame["case"] = frame["case"].fillna("")
    return frame


@contextlib.contextmanager
def _reading(file: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except ConfigError:  # a ValueError that names a file already
        raise
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        raise ConfigError(
            f"{file}: cannot be read ({type(error).__name__}: {one_line(error)}); repeat the command of the "
            "experiment, which writes it again"
        ) from None


def with_fields(rows: Sequence[dict[str, Any]], fields: Iterable[str]) -> pd.DataFrame:
    """Return rows as a frame whose fields keep None, of which pandas makes NaN between numbers."""
    frame = pd.DataFrame(rows)
    for name in fields if rows else ():
        frame[name] = _column([row.get(name) for row in rows])
    return frame


def _column(values: list[Any]) -> "pd.Series[Any]":
    return pd.Series(values, dtype=object if None in values else None)


_DEFAULTS = flatten(Config())


def _value(name: str, text: str) -> Any:
    """Return the value of a field from its cell, which is empty for None and for an empty text."""
    if isinstance(_DEFAULTS.get(name), str):
        return text
    try:
        return ast.literal_eval(text) if text else None
    except (SyntaxError, ValueError):
        return text
