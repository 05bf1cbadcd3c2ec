"""Metrics of runs in an experiment tracker: Weights & Biases, MLflow or trackio.

A tracker has one module, whose ``open_run`` opens or resumes the tracker's run as a :class:`TrackedRun`. Which run that
is, and the step of its last rows, are stored in RUN/track, so that the same command continues where it ended.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from csbp_jax.config import ConfigError, flatten
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
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    to: Tracker,
    project: str = "csbp_jax",
    follow: bool = False,
) -> list[str]:
    """Log the config and every number of ``metrics.jsonl`` to a tracker, as ``KIND/NAME`` at its step.

    Steps that the tracker has are not logged again when a resumed run repeats them, with the same numbers.

    Args:
      runs: folders of the runs, or one.
      to: "wandb", "mlflow" or "trackio", which is configured as by itself (environment variables, files).
      project: project of the tracker; MLflow's experiment.
      follow: keep adding new rows until all runs are finished.

    Returns:
      Where each run is found in the tracker.

    Raises:
      ConfigError: not a run's folder, one without metrics, the tracker's package is not installed, the tracker refuses
        the run, RUN/track is a link, or another process follows it.
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
    files.check_links(folder, "track")
    file = folder / "track" / f"{to}.json"
    file.parent.mkdir(exist_ok=True)
    with files.locked(file.with_suffix(".lock"), on_wait=refuse):
        state: dict[str, Any] = {"id": "", "step": -1, "kinds": []}
        if file.exists():
            state = run_json.read_json(file, _is_state, "delete it, and the run is tracked as a new one")
        with _OPEN[to](SourceRun(folder, project, flatten(content["config"]), state["id"])) as tracked:
            addresses[folder] = tracked.address
            step, kinds = (state["step"], state["kinds"]) if tracked.resumed else (-1, [])
            while True:
                rows = yield
                # By step, not by number: a resumed run may write rows again, and at other steps.
                new = [row for row in rows if row["step"] > step or (row["step"] == step and row["kind"] not in kinds)]
                for chunk in (new[i : i + _MOST_ROWS] for i in range(0, len(new), _MOST_ROWS)):
                    tracked.log(chunk)
                    last = chunk[-1]["step"]
                    kinds = [*(kinds if last == step else []), *(row["kind"] for row in chunk if row["step"] == last)]
                    step = last
                    seals.write_json(file, {"id": tracked.id, "step": step, "kinds": kinds})


def _is_state(content: dict[str, Any]) -> bool:
    match content:
        case {"id": str(), "step": int(), "kinds": list()}:
            return True
    return False
