"""Runs in trackio, in the folder that TRACKIO_DIR names, or on the server or Space that trackio is set to."""

import contextlib
import secrets
from collections.abc import Iterator

from csbp_jax.config import ConfigError, one_line
from csbp_jax.evaluation.follow import scalars
from csbp_jax.evaluation.trackers.run import SourceRun, TrackedRun
from csbp_jax.training.metrics_log import Row


@contextlib.contextmanager
def open_run(run: SourceRun) -> Iterator[TrackedRun]:
    """Open or resume the run of trackio, which knows runs by name: the folder's, and a random suffix.

    Raises:
      ConfigError: trackio is not installed, or refuses the project's name.
    """
    try:
        import trackio
    except ModuleNotFoundError:
        raise ConfigError("--to trackio: needs the package trackio; pip install trackio") from None
    name = run.id or f"{run.folder.resolve().name}-{secrets.token_hex(4)}"
    # Without the load of this machine: it may not be the one that trains.
    options = {"resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    try:
        tracked = trackio.init(project=run.project, name=name, config=run.config, **options)
    except ValueError as error:
        raise ConfigError(f"--to trackio: {one_line(error)}") from None

    def log(rows: list[Row]) -> None:
        for row in rows:
            tracked.log(scalars(row) | {"seconds": row["seconds"]}, step=row["step"])

    try:
        yield TrackedRun(name, bool(run.id), f"project {run.project}, run {name}", log)
    finally:
        tracked.finish()
