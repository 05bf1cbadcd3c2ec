"""Export of the metrics of runs as TensorBoard events, in RUN/tensorboard, or evaluation/RUN/tensorboard."""

import functools
import pathlib
import sys
from collections.abc import Sequence

from csbp_jax.config import extras
from csbp_jax.evaluation import follow as following
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.runs import Run
from csbp_jax.training.metrics_log import Row

PROGRESS_ROWS = 20_000
"""Rows between two lines of progress: some ten seconds."""


def write(runs: str | pathlib.Path | Sequence[str | pathlib.Path], follow: bool = False) -> list[pathlib.Path]:
    """Write every number of ``metrics.jsonl`` as a scalar ``KIND/NAME`` at its step, replacing earlier events.

    Its wall time is the start of the run, the time of its ``config.json``, plus its ``seconds``, which exclude pauses.

    Args:
      runs: folders of the runs, or one.
      follow: keep adding new rows until all runs are finished.

    Returns:
      Folders of the events.

    Raises:
      ConfigError: not a run's folder, one without metrics, or tensorboardX is not installed.
    """
    targets: dict[pathlib.Path, pathlib.Path] = {}
    return [targets[run.folder] for run in following.follow(runs, functools.partial(writer, targets), follow)]


def writer(targets: dict[pathlib.Path, pathlib.Path], run: Run) -> following.Writer:
    """Write the rows of a run so far, and each time those added since; note the folder of its events in ``targets``."""
    extras.need("tensorboard", "TensorBoard's events")
    from tensorboardX import SummaryWriter

    target = targets[run.folder] = output_folder(run.folder, "tensorboard") / "tensorboard"
    for old in target.glob("events.out.tfevents.*"):
        old.unlink()
    previous: list[Row] = []
    written = files = 0
    # A second file within a second would have the name of the first.
    events = SummaryWriter(str(target), flush_secs=1, filename_suffix=f".{files:03}")
    try:
        while True:
            rows = yield
            if rows[:written] != previous:  # a resumed run dropped what came after its checkpoint
                same = [a == b for a, b in zip(rows, previous, strict=False)]
                written = same.index(False) if False in same else len(same)
                events.close()
                files += 1
                options = {"flush_secs": 1, "filename_suffix": f".{files:03}", "purge_step": previous[written]["step"]}
                events = SummaryWriter(str(target), **options)
            for number, row in enumerate(rows[written:], start=written + 1):
                if number % PROGRESS_ROWS == 0:
                    print(f"{run.folder}: {number:,} of {len(rows):,} rows", file=sys.stderr, flush=True)
                for tag, value in following.scalars(row).items():
                    events.add_scalar(tag, value, row["step"], run.time_of(row))
            previous, written = rows, len(rows)
    finally:
        events.close()
