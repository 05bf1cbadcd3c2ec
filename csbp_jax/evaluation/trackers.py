"""Metrics of runs in an experiment tracker: Weights & Biases, trackio, which has its interface, or MLflow.

Which run of the tracker that is, and the step of its last rows, are stored in RUN/track, so that the same command
continues where it ended.
"""

import contextlib
import functools
import importlib
import os
import pathlib
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from csbp_jax.config import ConfigError, extras, flatten, one_line
from csbp_jax.evaluation import follow as following
from csbp_jax.evaluation import tensorboard
from csbp_jax.evaluation.follow import scalars
from csbp_jax.runs import Run
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import Row

if TYPE_CHECKING:
    from csbp_jax.training.callbacks import Trainer

Tracked = Literal["wandb", "mlflow", "trackio"]
"""Trackers."""
_MOST_ROWS = 500
"""Rows per call of a tracker: what a kill may repeat."""
_MOST_METRICS = 1000
"""Metrics per request that MLflow allows."""


class TrackedRun(NamedTuple):
    """Run of a tracker.

    id: by which the tracker knows it.
    resumed: whether it has the earlier rows.
    address: where a person finds it.
    log: adds rows to it.
    """

    id: str
    resumed: bool
    address: str
    log: Callable[[list[Row]], None]


def track(
    runs: str | pathlib.Path | Sequence[str | pathlib.Path],
    to: Tracked,
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
    addresses: dict[pathlib.Path, str] = {}
    followed = following.follow(runs, functools.partial(_writer, to, project, addresses), follow)
    return [addresses[run.folder] for run in followed]


class Tracker:
    """Logs a run to a tracker while it trains: its new rows after each epoch, and its result at the end. A callback.

    If the tracker fails in training, this is said once, and the training goes on.
    """

    def __init__(self, to: Tracked | Literal["tensorboard"], project: str = "csbp_jax"):
        """Log to ``to``, under a project of the tracker.

        Raises:
          ConfigError: its package is not installed.
        """
        self.name = f"track-{to}"
        self._to, self._project = to, project
        self._is_started = False
        self._run: Run | None = None
        self._writer: following.Writer | None = None
        extras.need(to, f"--track {to}")

    def start(self, trainer: "Trainer") -> None:
        """Open the run in the tracker; of several processes, process 0 does.

        Raises:
          ConfigError: as :func:`track`, before anything is logged.
        """
        from csbp_jax.runtime import multihost  # late: tracking from outside a training needs no JAX

        self._is_started = True
        multihost.broadcast_from_host0(lambda: self._open(trainer.folder))

    def __call__(self, trainer: "Trainer", row: Row) -> None:
        """Log the rows of the epoch's steps, and that of the epoch, which ``metrics.jsonl`` does not have yet."""
        self._log(lambda rows: [*rows, seals.parse(seals.line(row).encode())])

    def end(self, trainer: "Trainer", result: dict[str, Any]) -> None:
        """Log the result."""
        if not self._is_started:  # the run was finished before
            self.start(trainer)
        self._log(lambda rows: [*rows, following.row_of_result(result, rows[-1])])

    def close(self) -> None:
        """Close the run in the tracker."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, folder: pathlib.Path) -> None:
        self._run = run = Run.read(folder)
        self._writer = (
            tensorboard.writer({}, run) if self._to == "tensorboard" else _writer(self._to, self._project, {}, run)
        )
        next(self._writer)

    def _log(self, with_last: Callable[[list[Row]], list[Row]]) -> None:
        """Log the rows of the run so far, to which ``with_last`` adds the last one."""
        if self._run is None or self._writer is None:
            return
        try:
            self._writer.send(with_last(self._run.rows()))
        except Exception as error:  # of the tracker's own kinds
            self._writer = None
            command = f"csbp_jax track {self._run.folder} --to {self._to}"
            reason = f"csbp_jax: --track {self._to}: {one_line(error)}"
            print(f"{reason}; training goes on, and {command} continues here", file=sys.stderr)


def _writer(to: Tracked, project: str, addresses: dict[pathlib.Path, str], run: Run) -> following.Writer:
    folder = run.folder

    def refuse() -> None:
        raise ConfigError(f"{folder}: another process tracks this run (--to {to})") from None

    files.check_links(folder, "track")
    file = folder / "track" / f"{to}.json"
    file.parent.mkdir(exist_ok=True)
    with files.locked(file.with_suffix(".lock"), on_wait=refuse):
        state: dict[str, Any] = {"id": "", "step": -1, "kinds": []}
        is_state = functools.partial(run_json.fits, form={"id": str, "step": int, "kinds": list})
        if file.exists():
            state = run_json.read_json(file, is_state, "delete it, and the run is tracked as a new one")
        open_run = _mlflow if to == "mlflow" else _wandb
        with open_run(to, run, project, state["id"]) as tracked:
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


def _package(to: Tracked) -> Any:
    extras.need(to, f"--to {to}")
    return importlib.import_module(to)


@contextlib.contextmanager
def _wandb(to: Tracked, run: Run, project: str, known: str) -> Iterator[TrackedRun]:
    """Open a run of W&B or of trackio, or resume the ``known`` one; a row is a row of its history, with ``seconds``.

    Offline, W&B cannot resume: the run is written again from its first row, to a new folder.
    """
    package, name, refusal = _package(to), run.name, ValueError
    # Without what describes this process and machine: they may not be those that train.
    if to == "wandb":
        refusal = package.Error
        options = {
            "id": known or secrets.token_hex(8),
            "dir": os.environ.get("WANDB_DIR", run.folder),
            "reinit": "create_new",
            "settings": package.Settings(console="off", disable_code=True, disable_git=True, x_disable_stats=True),
        }
    else:  # trackio knows runs by name
        name = known or f"{name}-{secrets.token_hex(4)}"
        options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    try:
        config = flatten(run.content["config"])
        tracked = package.init(project=project, name=name, config=config, resume="allow", **options)
    except refusal as error:
        raise ConfigError(f"--to {to}: {one_line(error)}") from None

    def log(rows: list[Row]) -> None:
        for row in rows:
            values = scalars(row) | {"seconds": row["seconds"]}
            if to == "wandb":
                tracked.log(values | {"step": row["step"]})
            else:
                tracked.log(values, step=row["step"])

    try:
        if to == "wandb":
            # W&B's own steps count rows: rows of several kinds share a training step.
            tracked.define_metric("*", step_metric="step")
            yield TrackedRun(tracked.id, tracked.resumed, tracked.url or str(tracked.settings.sync_dir), log)
        else:
            yield TrackedRun(name, bool(known), f"project {project}, run {name}", log)
    finally:
        tracked.finish()


@contextlib.contextmanager
def _mlflow(to: Tracked, run: Run, project: str, known: str) -> Iterator[TrackedRun]:
    """Open a run of MLflow, or resume the ``known`` one; fields of the config are its parameters."""
    mlflow = _package(to)
    entities = mlflow.entities

    def log(rows: list[Row]) -> None:
        metrics = [
            entities.Metric(name, value, round(1000 * run.time_of(row)), row["step"])
            for row in rows
            for name, value in scalars(row).items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])
        if rows[-1]["kind"] == "result":
            client.set_terminated(run_id)

    try:
        client, run_id = mlflow.MlflowClient(), known
        if not known:
            experiment = client.get_experiment_by_name(project)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(project)
            run_id = client.create_run(experiment_id, run_name=run.name).info.run_id
            params = [entities.Param(name, str(value)) for name, value in flatten(run.content["config"]).items()]
            client.log_batch(run_id, params=params)
        yield TrackedRun(run_id, bool(known), f"{mlflow.get_tracking_uri()} run {run_id}", log)
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(f"--to mlflow: {one_line(error)}") from None
