"""The metrics of runs as TensorBoard events, in RUN/tensorboard."""

import pathlib
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.training import metrics_log

FOLLOW_SECONDS = 5.0
"""How often a run that trains is looked at."""


def write(runs: Sequence[str | pathlib.Path], follow: bool = False) -> list[pathlib.Path]:
    """Writes every number of ``metrics.jsonl`` as a scalar ``KIND/NAME`` at its step; in place of an earlier try.

    Its time is that of the run's beginning plus its ``seconds``, which do not count pauses.

    Args:
      runs: their folders.
      follow: go on with what is added, till all runs are finished.

    Returns:
      The folders of the events.

    Raises:
      ConfigError: no run's folder, one without metrics, or tensorboardX is not installed.
    """
    folders = [pathlib.Path(run) for run in runs]
    for folder in folders:
        if not metrics_log.read_rows(folder / "metrics.jsonl"):
            raise ConfigError(f"{folder}: has no metrics (metrics.jsonl); name a run's folder, such as runs/NAME")
    writers = [_writes(folder) for folder in folders]
    finished = False
    while not finished:
        # Looked for first: what is written before it is then read.
        finished = not follow or all((folder / "result.json").exists() for folder in folders)
        for written in writers:
            next(written)
        time.sleep(0 if finished else FOLLOW_SECONDS)
    for written in writers:
        written.close()
    return [folder / "tensorboard" for folder in folders]


def _writes(folder: pathlib.Path) -> Generator[None, None, None]:
    """Writes the rows there are, and at each ``next`` those added since."""
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise ConfigError("TensorBoard events: need the package tensorboardX; pip install tensorboardX") from None
    for old in (folder / "tensorboard").glob("events.out.tfevents.*"):
        old.unlink()
    began = (folder / "config.json").stat().st_mtime
    past: list[dict[str, Any]] = []
    written = files = 0
    # A second file within a second would have the name of the first.
    writer = SummaryWriter(str(folder / "tensorboard"), flush_secs=1, filename_suffix=f".{files:03}")
    try:
        while True:
            rows = metrics_log.read_rows(folder / "metrics.jsonl")
            if rows[:written] != past:  # a resumed run dropped what came after its checkpoint
                same = [a == b for a, b in zip(rows, past, strict=False)]
                written = same.index(False) if False in same else len(same)
                writer.close()
                files += 1
                more = {"flush_secs": 1, "filename_suffix": f".{files:03}", "purge_step": past[written]["step"]}
                writer = SummaryWriter(str(folder / "tensorboard"), **more)
            for row in rows[written:]:
                for tag, value in _scalars(row["kind"], row):
                    writer.add_scalar(tag, value, row["step"], began + row["seconds"])
            past, written = rows, len(rows)
            yield
    finally:
        writer.close()


def _scalars(tag: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(f"{tag}/{name}", value)
        elif isinstance(value, int | float) and name not in ("step", "seconds"):
            yield f"{tag}/{name}", value
