"""Export of the metrics of runs as TensorBoard events, in RUN/tensorboard."""

import pathlib
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.training import metrics_log

FOLLOW_SECONDS = 5.0
"""Seconds between two reads of a run in training."""


def write(runs: Sequence[str | pathlib.Path], follow: bool = False) -> list[pathlib.Path]:
    """Write every number of ``metrics.jsonl`` as a scalar ``KIND/NAME`` at its step, replacing earlier events.

    Its wall time is the start of the run plus its ``seconds``, which exclude pauses.

    Args:
      runs: folders of the runs.
      follow: keep adding new rows until all runs are finished.

    Returns:
      Folders of the events.

    Raises:
      ConfigError: not a run's folder, one without metrics, or tensorboardX is not installed.
    """
    folders = [pathlib.Path(run) for run in runs]
    for folder in folders:
        if not metrics_log.read_rows(folder / "metrics.jsonl"):
            raise ConfigError(f"{folder}: has no metrics (metrics.jsonl); name a run's folder, such as runs/NAME")
    writers = [_writer(folder) for folder in folders]
    finished = False
    while not finished:
        # Checked before reading, so that rows written before the result are read in this pass.
        finished = not follow or all((folder / "result.json").exists() for folder in folders)
        for writer in writers:
            next(writer)
        time.sleep(0 if finished else FOLLOW_SECONDS)
    for writer in writers:
        writer.close()
    return [folder / "tensorboard" for folder in folders]


def _writer(folder: pathlib.Path) -> Generator[None, None, None]:
    """Write the rows of a run so far, and at each ``next`` those added since."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise ConfigError("TensorBoard events: need the package tensorboardX; pip install tensorboardX") from None
    for old in (folder / "tensorboard").glob("events.out.tfevents.*"):
        old.unlink()
    began = (folder / "config.json").stat().st_mtime
    previous: list[dict[str, Any]] = []
    written = files = 0
    # A second file within a second would have the name of the first.
    writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=1, filename_suffix=f".{files:03}")
    try:
        while True:
            rows = metrics_log.read_rows(folder / "metrics.jsonl")
            if rows[:written] != previous:  # a resumed run dropped what came after its checkpoint
                same = [a == b for a, b in zip(rows, previous, strict=False)]
                written = same.index(False) if False in same else len(same)
                writer.close()
                files += 1
                options = {"flush_secs": 1, "filename_suffix": f".{files:03}", "purge_step": previous[written]["step"]}
                writer = SummaryWriter(str(folder / "tensorboard"), **options)
            for row in rows[written:]:
                for tag, value in _scalars(row["kind"], row):
                    writer.add_scalar(tag, value, row["step"], began + row["seconds"])
            previous, written = rows, len(rows)
            yield
    finally:
        writer.close()


def _scalars(tag: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(f"{tag}/{name}", value)
        elif isinstance(value, int | float) and name not in ("step", "seconds"):
            yield f"{tag}/{name}", value
