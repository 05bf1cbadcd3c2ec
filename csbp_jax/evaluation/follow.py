"""Runs as experiment trackers read them: rows of metrics as they are written, until the runs are finished."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.runtime import preemption
from csbp_jax.runtime.files import as_paths
from csbp_jax.training import metrics_log, run_json
from csbp_jax.training.metrics_log import Row

FOLLOW_SECONDS = 5.0
"""Seconds between two reads of a run in training."""

Writer = Generator[None, list[Row], None]
"""``writer.send(rows)`` brings a tracker up to date with all rows of a run so far; ``writer.close()`` ends it."""


def follow(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    make_writer: Callable[[pathlib.Path], Writer],
    until_finished: bool,
) -> list[pathlib.Path]:
    """Pass the rows of each run to its writer, once or until all runs are finished, and return the runs' folders.

    Args:
      runs: folders of the runs, or one.
      make_writer: from a folder to its writer.
      until_finished: keep passing the rows, every :data:`FOLLOW_SECONDS`.

    Raises:
      ConfigError: not a run's folder, or one without metrics.
    """
    folders = as_paths(runs)
    for folder in folders:
        file = folder / "metrics.jsonl"
        if not file.exists() or not file.stat().st_size:
            raise ConfigError(f"{folder}: has no metrics (metrics.jsonl); name a run's folder, such as runs/NAME")
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(contextlib.closing(make_writer(folder))) for folder in folders]
        for writer in writers:
            next(writer)
        finished = False
        while not finished:
            # Checked before reading, so that rows written before the result are read in this pass.
            finished = not until_finished or all((folder / "result.json").exists() for folder in folders)
            for folder, writer in zip(folders, writers, strict=True):
                preemption.current().raise_if_requested()
                writer.send(read_rows(folder))
            time.sleep(0 if finished else FOLLOW_SECONDS)
    return folders


def read_rows(folder: pathlib.Path) -> list[Row]:
    """Read the rows of a run so far; that of a finished run's ``result.json`` is last, of kind ``result``."""
    result = run_json.read_result(folder) if (folder / "result.json").exists() else {}
    rows = metrics_log.read_rows(folder / "metrics.jsonl")
    if result and rows:
        last = {"kind": "result", "step": rows[-1]["step"], "seconds": rows[-1]["seconds"]}
        rows.append(last | {weights: result[weights] for weights in ("last", "chosen", "ema") if weights in result})
    return rows


def scalars(row: Row) -> dict[str, float]:
    """Return the numbers of a row as ``{"KIND/NAME": number}``, without its step and seconds."""
    return dict(_scalars(row["kind"], {k: v for k, v in row.items() if k not in ("step", "seconds")}))


def _scalars(tag: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(f"{tag}/{name}", value)
        elif isinstance(value, bool) or run_json.fits(value, float):
            yield f"{tag}/{name}", value


def wall_time(folder: pathlib.Path, row: Row) -> float:
    """Return the time of a row in seconds since 1970: the start of the run, plus its ``seconds``, without pauses.

    The start is when ``config.json`` was last written: once, at the start, unless someone edits or copies the file.
    """
    began: float = (folder / "config.json").stat().st_mtime
    return began + float(row["seconds"])
