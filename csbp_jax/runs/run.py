"""The folder of a run: its config, what was measured of it, and the fields that can change that."""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from csbp_jax.config import ConfigError, Mark, fields_marked, flatten
from csbp_jax.reporting.measures import names
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import Row, follow_rows

WeightsOf = Literal["last", "chosen", "ema"]
"""Weights of a run: of the last epoch, of the epoch chosen by validation, or their moving average (EMA) at the last."""

EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation", "ema": "moving average"}
"""Kinds of weights whose measures a run reports, keys of ``result.json``, with their labels."""


def tested_columns(tested: Collection[str]) -> list[str]:
    """Return the measures of each kind of weights, the one that is compared first.

    >>> tested_columns(["test_accuracy", "test_loss"])
    ['test_accuracy', 'validation_accuracy', 'test_loss', 'epoch']
    """
    return [f"{split}_{name}" for name in names(tested) for split in ("test", "validation")] + ["test_loss", "epoch"]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run, finished or not; ``content`` is that of its ``config.json``."""

    folder: pathlib.Path
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: str | pathlib.Path) -> "Run":
        """Read the config of a run.

        Raises:
          ConfigError: not a run's folder, or its config cannot be read.
        """
        folder = pathlib.Path(folder)
        of_experiment = f"whose arms are compared by csbp_jax report {folder}, once it is finished"
        return cls(folder, run_json.read_run(folder, of_experiment))

    @property
    def result(self) -> dict[str, Any] | None:
        """Content of ``result.json``, None as long as the run is not finished; a ConfigError if it cannot be read."""
        return run_json.read_result(self.folder) if (self.folder / "result.json").exists() else None

    def rows(self) -> list[Row]:
        """Return the rows of ``metrics.jsonl`` so far, of which each call reads those that were added since the last.

        Raises:
          ConfigError: one is damaged.
        """
        return next(self._rows)

    @functools.cached_property
    def _rows(self) -> Iterator[list[Row]]:
        return follow_rows(self.folder / "metrics.jsonl")

    def time_of(self, row: Row) -> float:
        """Return the time of a row in seconds since 1970: the start of the run, plus its ``seconds``, without pauses.

        The start is when ``config.json`` was last written: once, at the start, unless someone edits or copies the file.
        """
        return (self.folder / "config.json").stat().st_mtime + float(row["seconds"])

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.resolve().name

    @functools.cached_property
    def fields(self) -> dict[str, Any]:
        """The config flattened, ``{"chaos.z0": 3.0}``; with ``own``, the names of the user's own code and a hash."""
        own = self.content.get("own", {})
        code = {"own": " ".join([*own["parts"], own.get("sha256", "")[:8]]).rstrip()} if own else {}
        return {name: plain(value) for name, value in flatten(self.content["config"]).items()} | code

    def measures(self) -> dict[str, Any]:
        """Return ``{"last_test_accuracy": 0.93, ...}`` of each kind of weights; nothing of an unfinished run."""
        result = self.result or {}
        return {
            f"{kind}_{name}": result[kind][name]
            for name in tested_columns(result.get("last", {}))
            for kind in EPOCHS
            if kind in result and name in result[kind]
        }


def plain(value: Any) -> Any:
    """Return a value with tuples for JSON's lists, numbers for NumPy's, and a number for a tuple of one.

    >>> plain([3.0]), plain([3.0, 0.0])
    (3.0, (3.0, 0.0))
    """
    if isinstance(value, list | tuple):
        items = tuple(map(plain, value))
        return items[0] if len(items) == 1 else items
    return value.item() if hasattr(value, "item") else value


def read_finished(folders: Sequence[str | pathlib.Path]) -> list[Run]:
    """Read finished runs.

    Raises:
      ConfigError: see :meth:`Run.read`, or a run is not finished.
    """
    runs = [Run.read(folder) for folder in folders]
    for run in runs:
        if run.result is None:
            raise ConfigError(
                f"{run.folder}: is not finished; repeat the command that started it to resume it or, if it diverged, "
                "leave it out and say so"
            )
    return runs


def differing_fields(runs: Sequence[Run]) -> list[str]:
    """List the fields in which runs differ, in their order, but for those that change no result.

    A field that a run does not have counts as None.
    """
    without_effect = fields_marked(Mark.NO_EFFECT)
    names = dict.fromkeys(name for run in runs for name in run.fields if name not in without_effect)
    return [name for name in names if any(run.fields.get(name) != runs[0].fields.get(name) for run in runs)]
