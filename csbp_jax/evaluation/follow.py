"""Runs as experiment trackers read them: rows of metrics as they are written, until the runs are finished."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.runs import Run
from csbp_jax.runtime import preemption
from csbp_jax.runtime.files import as_paths
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import Row

FOLLOW_SECONDS = 5.0
"""Seconds between two reads of a run in training."""

Writer = Generator[None, list[Row], None]
"""``writer.send(rows)`` brings a tracker up to date with all rows of a run so far; ``writer.close()`` ends it."""


def follow(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    make_writer: Callable[[Run], Writer],
    until_finished: bool,
) -> list[Run]:
    """Pass the rows of each run to its writer, once or until all runs are finished, and return the runs.

    Args:
      runs: folders of the runs, or one.
      make_writer: from a run to its writer.
      until_finished: keep passing the rows, every :data:`FOLLOW_SECONDS`.

    Raises:
      ConfigError: not a run's folder, or one without metrics.
    """
    followed = [_read_run(folder) for folder in as_paths(runs)]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(contextlib.closing(make_writer(run))) for run in followed]
        for writer in writers:
            next(writer)
        finished = False
        while not finished:
            # Checked before reading, so that rows written before the result are read in this pass.
            finished = not until_finished or all(run.result for run in followed)
            for run, writer in zip(followed, writers, strict=True):
                preemption.current().raise_if_requested()
                writer.send(read_rows(run))
            time.sleep(0 if finished else FOLLOW_SECONDS)
    return followed


def _read_run(folder: pathlib.Path) -> Run:
    """Read a run that has metrics.

    Raises:
      ConfigError: it has none, or as :meth:`csbp_jax.runs.Run.read`.
    """
    file = folder / "metrics.jsonl"
    if not file.exists() or not file.stat().st_size:
        raise ConfigError(f"{folder}: has no metrics (metrics.jsonl); name a run's folder, such as runs/NAME")
    return Run.read(folder)


def read_rows(run: Run) -> list[Row]:
    """Read the rows of a run so far; that of a finished run's ``result.json`` is last, of kind ``result``."""
    result, rows = run.result, run.rows()
    return [*rows, row_of_result(result, rows[-1])] if result and rows else rows


def row_of_result(result: dict[str, Any], last: Row) -> Row:
    """Return the content of a ``result.json`` as a row, after the last row of ``metrics.jsonl``."""
    tested = {weights: result[weights] for weights in ("last", "chosen", "ema") if weights in result}
    return {"kind": "result", "step": last["step"], "seconds": last["seconds"]} | tested


def scalars(row: Row) -> dict[str, float]:
    """Return the numbers of a row as ``{"KIND/NAME": number}``, without its step and seconds."""
    return dict(_scalars(row["kind"], {k: v for k, v in row.items() if k not in ("step", "seconds")}))


def _scalars(tag: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(f"{tag}/{name}", value)
        elif isinstance(value, bool) or run_json.fits(value, float):
            yield f"{tag}/{name}", value
