"""The training of a run as a system of experiments: its curves, its accuracies after the last epoch, where it ran."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from benchmarks.process import machine
from csbp_jax import configs, data
from csbp_jax.config import Config, run_name, to_json
from csbp_jax.data.events import cifar10_events
from csbp_jax.runtime import files, preemption, sharding
from csbp_jax.training import build
from csbp_jax.training.checkpoint import checkpoint
from csbp_jax.training.compiled import compile_run
from experiments import study

BASE = configs.load("cifar10_events")
COMMAND = "python -m experiments.events"
CURVES = (
    "train_loss",
    "augmented_accuracy",
    "bad_steps",
    "validation_loss",
    "validation_accuracy",
    "spare_accuracy",
    "cpu_seconds",
)
"""What is measured of each epoch: task loss and accuracy of training batches, which are augmented; the largest number
of steps in a row that were not finite; the evaluation of validation and of the spare recordings; CPU time."""

Splits = Mapping[str, data.DataSource]


@dataclasses.dataclass
class Recordings:
    """Training on the recordings of cifar10_events; fields are those of a config.

    config, data_mark: what a folder of runs remembers, of the training and of the data.

    Args:
      data_dir: directory of prepared data sets.
      checkpoints: folder in which a run keeps its last epoch.

    Raises:
      ConfigError: the data are not prepared.
    """

    data_dir: dataclasses.InitVar[str]
    checkpoints: dataclasses.InitVar[pathlib.Path]
    config: dict[str, Any] = dataclasses.field(init=False)
    data_mark: str = dataclasses.field(init=False)

    def __post_init__(self, data_dir: str, checkpoints: pathlib.Path) -> None:
        self.config = to_json(BASE)
        self.splits = cifar10_events.load_all(BASE, pathlib.Path(data_dir))
        self.data_mark = study.data_mark(BASE, data_dir)
        self.folder = checkpoints

    def group(self, fields: Mapping[str, Any]) -> str:
        return str(fields["chaos.term"])

    def train(self, group: str, fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, NDArray[Any]]:
        del group
        runs = []
        for of_run, seed in zip(fields, seeds, strict=True):
            config = BASE.replace(**of_run, seed=seed)
            runs.append(train(config, self.splits, self.folder / f"{run_name(config)}-{seed}"))
        return {name: np.array([run[name] for run in runs]) for name in runs[0]}


def train(config: Config, splits: Splits, folder: pathlib.Path) -> dict[str, Any]:
    """Train, and return the measures of the last epoch and the curves of all.

    The state is saved in ``folder`` after each epoch, from which a run that was stopped goes on.

    Returns:
      accuracies of test, training, validation and spare recordings after the last epoch, in evaluation;
      ``best_spare_accuracy`` and its epoch; CURVES; and on which processors, with which versions and at which commits
      the run was trained.
    """
    splits_of_run = {name: source for name, source in splits.items() if name != "spare"}
    resolved = build.resolve(config, splits_of_run, 1)
    steps = len(splits["train"]) // config.batch_size
    run = compile_run(resolved, splits["train"], steps, mesh=sharding.data_parallel(1))
    state = run.init(jax.random.key(config.seed))
    curves = {name: np.zeros(config.epochs) for name in CURVES}
    check = preemption.current().raise_if_requested
    origins = add_origin(folder)
    with checkpoint.open_folder(folder / "checkpoints", identity={"config": to_json(config)}) as saves:
        state, curves = saves.restore((state, curves)) or (state, curves)
        first = int(state.step) // steps
        batches = run.batches(config.seed, first * steps)
        with contextlib.closing(batches):
            for epoch in range(first, config.epochs):
                start, metrics = time.process_time(), []
                for batch in itertools.islice(batches, steps):
                    check()
                    state, of_step = run.train_step(state, run.shard_batch(batch))
                    metrics.append({name: of_step[name] for name in ("task_loss", "accuracy", "bad_steps")})
                of_steps = jax.device_get(metrics)
                validation = run.evaluate(state, splits["validation"], check)
                values = {
                    "train_loss": np.mean([row["task_loss"] for row in of_steps]),
                    "augmented_accuracy": np.mean([row["accuracy"] for row in of_steps]),
                    "bad_steps": np.max([row["bad_steps"] for row in of_steps]),
                    "validation_loss": validation["loss"],
                    "validation_accuracy": validation["accuracy"],
                    "spare_accuracy": run.evaluate(state, splits["spare"], check)["accuracy"],
                    "cpu_seconds": time.process_time() - start,
                }
                for name in CURVES:
                    curves[name][epoch] = float(f"{values[name]:.5g}")
                saves.save(epoch, (state, curves))
    start = time.process_time()
    last = {split: run.evaluate(state, splits[split], check)["accuracy"] for split in ("train", "test")}
    best = int(np.argmax(curves["spare_accuracy"]))
    seconds = float(curves["cpu_seconds"].sum()) + time.process_time() - start
    return {
        "test_accuracy": last["test"],
        "train_accuracy": last["train"],
        "last_validation_accuracy": float(curves["validation_accuracy"][-1]),
        "last_spare_accuracy": float(curves["spare_accuracy"][-1]),
        "best_spare_accuracy": float(curves["spare_accuracy"][best]),
        "best_spare_epoch": best + 1,
        "cpu_seconds_of_run": round(seconds),
        **curves,
        **origins,
    }


def add_origin(folder: pathlib.Path) -> dict[str, str]:
    """Note in a run's folder where it is trained from now on, and return all of its notes.

    Returns:
      ``{processor, versions, commit}``, each joined by `` + `` where a run went on elsewhere.
    """
    origin = study.provenance(COMMAND, ("jax", "jaxlib", "flax", "optax", "numpy"))
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    here = {"processor": machine(), "versions": versions, "commit": origin.get("commit", "unknown")}
    file = folder / "origins.json"
    noted: list[dict[str, str]] = json.loads(file.read_text()) if file.exists() else []
    if here not in noted:
        noted.append(here)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(file, noted)
    return {name: " + ".join(dict.fromkeys(of[name] for of in noted)) for name in here}
