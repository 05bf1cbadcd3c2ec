"""Metrics of runs in an experiment tracker: Weights & Biases, MLflow or trackio.

A tracker has one module, whose ``open_run`` opens or resumes the tracker's run as a :class:`TrackedRun`. Which run that
is, and the number of its rows, are stored in RUN/track, so that the same command continues where it ended.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from csbp_jax.config import ConfigError, flatten_json
from csbp_jax.evaluation import follow as following
from csbp_jax.evaluation.trackers import mlflow, trackio, wandb
from csbp_jax.evaluation.trackers.run import SourceRun, TrackedRun
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json

Tracker = Literal["wandb", "mlflow", "trackio"]
OpenRun = Callable[[SourceRun], contextlib.AbstractContextManager[TrackedRun]]
_OPEN: dict[str, OpenRun] = {"wandb": wandb.open_run, "mlflow": mlflow.open_run, "trackio": trackio.open_run}
_MOST_ROWS = 500
"""Rows per call of a tracker: what a kill may repeat."""


def track(
    runs: Sequence[str | pathlib.Path], to: Tracker, project: str = "csbp_jax", follow: bool = False
) -> list[str]:
    """Log the config and every number of ``metrics.jsonl`` to a tracker, as ``KIND/NAME`` at its step.

    A row that the tracker has is not logged again, even if a resumed run trains that step again: the run's results are
    the same there.

    Args:
      runs: folders of the runs.
      to: "wandb", "mlflow" or "trackio", which is configured as by itself (environment variables, files).
      project: project of the tracker; MLflow's experiment.
      follow: keep adding new rows until all runs are finished.

    Returns:
      Where each run is found in the tracker.

    Raises:
      ConfigError: not a run's folder, one without metrics, the tracker's package is not installed, the tracker refuses
        the run, or another process follows it.
    """
    if to not in get_args(Tracker):
        raise ConfigError(f"--to: {to!r} is not possible; allowed are {', '.join(get_args(Tracker))}")
    addresses: dict[pathlib.Path, str] = {}
    folders = following.follow(runs, functools.partial(_writer, to, project, addresses), follow)
    return [addresses[folder] for folder in folders]


def _writer(to: Tracker, project: str, addresses: dict[pathlib.Path, str], folder: pathlib.Path) -> following.Writer:
    def refuse() -> None:
        raise ConfigError(f"{folder}: another process tracks this run (--to {to})") from None

    content = run_json.read_config(folder, run_json.REPAIR)
    file = folder / "track" / f"{to}.json"
    file.parent.mkdir(exist_ok=True)
    with files.locked(file.with_suffix(".lock"), on_wait=refuse):
        remedy = "delete it, and the run is tracked as a new one"
        new: dict[str, Any] = {"id": "", "rows": 0}
        state = run_json.read_json(file, _is_state, remedy) if file.exists() else new
        source = SourceRun(folder, project, flatten_json(content["config"]), state["id"], state["rows"])
        with _OPEN[to](source) as tracked:
            addresses[folder] = tracked.address
            logged = tracked.rows
            while True:
                rows = yield
                while logged < len(rows):
                    chunk = rows[logged : logged + _MOST_ROWS]
                    tracked.log(chunk)
                    logged += len(chunk)
                    seals.write_json(file, {"id": tracked.id, "rows": logged})


def _is_state(content: dict[str, Any]) -> bool:
    match content:
        case {"id": str(), "rows": int(rows)}:
            return rows >= 0
    return False
