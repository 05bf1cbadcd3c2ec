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
from typing import Any, Literal, NamedTuple

from csbp_jax.config import ConfigError, extras, flatten, one_line
from csbp_jax.evaluation import follow as following
from csbp_jax.evaluation import tensorboard
from csbp_jax.evaluation.follow import scalars
from csbp_jax.runs import Run
from csbp_jax.runtime import files, seals
from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import Row

Tracker = Literal["wandb", "mlflow", "trackio"]
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
    addresses: dict[pathlib.Path, str] = {}
    followed = following.follow(runs, functools.partial(_writer, to, project, addresses), follow)
    return [addresses[run.folder] for run in followed]


@contextlib.contextmanager
def alongside(
    folder: pathlib.Path, to: Tracker | Literal["tensorboard"], project: str = "csbp_jax"
) -> Iterator[Callable[[], None]]:
    """Track a run that trains in this process: yields a function that logs its new rows.

    If the tracker fails, this is said once, and the training goes on.

    Raises:
      ConfigError: as :func:`track`, before anything is logged.
    """
    failed, run = False, Run.read(folder)
    writer = tensorboard.writer({}, run) if to == "tensorboard" else _writer(to, project, {}, run)
    with contextlib.closing(writer):
        next(writer)

        def report() -> None:
            nonlocal failed
            try:
                if not failed:
                    writer.send(following.read_rows(run))
            except Exception as error:  # of the tracker's own kinds
                failed = True
                command = f"csbp_jax track {folder} --to {to}"
                reason = f"csbp_jax: --track {to}: {one_line(error)}"
                print(f"{reason}; training goes on, and {command} continues here", file=sys.stderr)

        yield report


def _writer(to: Tracker, project: str, addresses: dict[pathlib.Path, str], run: Run) -> following.Writer:
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


def _package(to: Tracker) -> Any:
    extras.need(to, f"--to {to}")
    return importlib.import_module(to)


@contextlib.contextmanager
def _wandb(to: Tracker, run: Run, project: str, known: str) -> Iterator[TrackedRun]:
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
def _mlflow(to: Tracker, run: Run, project: str, known: str) -> Iterator[TrackedRun]:
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
