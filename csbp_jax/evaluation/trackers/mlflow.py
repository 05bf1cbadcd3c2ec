"""Runs in MLflow, in the store that MLFLOW_TRACKING_URI names."""

import contextlib
from collections.abc import Iterator

from csbp_jax.config import ConfigError, one_line
from csbp_jax.evaluation.follow import scalars, wall_time
from csbp_jax.evaluation.trackers.run import SourceRun, TrackedRun
from csbp_jax.training.metrics_log import Row

_MOST_METRICS = 1000
"""Metrics per request that MLflow allows."""


@contextlib.contextmanager
def open_run(run: SourceRun) -> Iterator[TrackedRun]:
    """Open or resume the run of MLflow; the config's fields are its parameters, and a number keeps its wall time.

    Raises:
      ConfigError: mlflow is not installed, or refuses the run.
    """
    # Its name in pip is mlflow or, without its server, mlflow-skinny.
    try:
        import mlflow
    except ModuleNotFoundError:
        raise ConfigError("--to mlflow: needs the package mlflow; pip install mlflow") from None
    entities = mlflow.entities

    def log(rows: list[Row]) -> None:
        metrics = [
            entities.Metric(name, value, round(1000 * wall_time(run.folder, row)), row["step"])
            for row in rows
            for name, value in scalars(row).items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])
        if rows[-1]["kind"] == "result":
            client.set_terminated(run_id)

    try:
        client = mlflow.MlflowClient()
        run_id = run.id
        if not run_id:
            experiment = client.get_experiment_by_name(run.project)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(run.project)
            run_id = client.create_run(experiment_id, run_name=run.folder.resolve().name).info.run_id
            params = [entities.Param(name, str(value)) for name, value in run.config.items()]
            client.log_batch(run_id, params=params)
        yield TrackedRun(run_id, bool(run.id), f"{mlflow.get_tracking_uri()} run {run_id}", log)
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(f"--to mlflow: {one_line(error)}") from None
