"""Runs in Weights & Biases; WANDB_MODE, WANDB_DIR, WANDB_ENTITY and so on hold as ever."""

import contextlib
import os
import secrets
from collections.abc import Iterator

from csbp_jax.config import ConfigError, one_line
from csbp_jax.evaluation.follow import scalars
from csbp_jax.evaluation.trackers.run import SourceRun, TrackedRun
from csbp_jax.training.metrics_log import Row


@contextlib.contextmanager
def open_run(run: SourceRun) -> Iterator[TrackedRun]:
    """Open or resume the run of W&B; each row is one row of its history, with ``step`` and ``seconds``.

    Offline, W&B cannot resume: the run is written again from its first row, to a new folder.

    Raises:
      ConfigError: wandb is not installed, or refuses the run.
    """
    try:
        import wandb
    except ModuleNotFoundError:
        raise ConfigError("--to wandb: needs the package wandb; pip install wandb") from None
    # Without what describes this process: it is not the one that trains.
    settings = wandb.Settings(console="off", disable_code=True, disable_git=True, x_disable_stats=True)
    try:
        tracked = wandb.init(
            project=run.project,
            name=run.folder.resolve().name,
            id=run.id or secrets.token_hex(8),
            config=run.config,
            dir=os.environ.get("WANDB_DIR", run.folder),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
    except wandb.errors.Error as error:
        raise ConfigError(f"--to wandb: {one_line(error)}") from None
    # W&B's own steps count rows: rows of several kinds share a training step.
    tracked.define_metric("*", step_metric="step")

    def log(rows: list[Row]) -> None:
        for row in rows:
            tracked.log(scalars(row) | {"step": row["step"], "seconds": row["seconds"]})

    try:
        yield TrackedRun(tracked.id, tracked.resumed, tracked.url or str(tracked.settings.sync_dir), log)
    finally:
        tracked.finish()
