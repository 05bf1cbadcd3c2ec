"""The training loop, read from top to bottom: from a config to a run folder and a test accuracy."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import checkpoint, data, figures, learner, meter, report
from csbp_jax.config import Config, ConfigError, Diverged, check, run_name, to_json
from csbp_jax.program import begin, compile, resolve

_BAD_STEPS_STOP = 3


def train(
    config: Config,
    *,
    name: str | None = None,
    fresh: bool = False,
    root: str | pathlib.Path = "runs",
    data_dir: str | pathlib.Path = "data",
    console: report.Console | None = None,
) -> dict[str, Any]:
    """Trains, or goes on where a stopped run of the same config left off, and returns what ``result.json`` holds.

    Args:
      config: what to train.
      name: the run's folder under ``root``; by default the data set and a hash of the config.
      fresh: set an old run of this name aside and start anew.
      root: where runs are kept.
      data_dir: where prepared data sets are kept.
      console: where to show it; the terminal by default.

    Raises:
      ConfigError: a value is impossible, or the folder holds another config or a run on other data.
      Diverged: loss or gradient was not finite for three steps in a row.
    """
    console = report.Console(highlight=False, markup=False) if console is None else console
    if jax.process_count() > 1:
        raise ConfigError(f"this run has {jax.process_count()} processes, but only one is supported yet")
    parts = data.load(check(config), data_dir)
    identity = data.identity(config, data_dir)
    config = resolve(config, parts)
    steps_per_epoch = len(parts["train"]) // config.batch_size
    program = compile(config, parts["train"], steps_per_epoch)
    state = begin(config, program, functools.partial(console.print, soft_wrap=True))
    with _batches(config, parts) as batches:
        first = program.place(next(batches))
    # Traced before anything is written, so that a tap that does not exist leaves no folder behind.
    jax.eval_shape(program.gradient_norms, state, first)

    name = run_name(config) if name is None else name
    with report.open_run(pathlib.Path(root), to_json(config), name, fresh, console, identity) as run:
        if (run / "result.json").exists():
            console.print(f"{run} is finished; FRESH=1 (--fresh) starts it anew", soft_wrap=True)
            result = report.read_result(run)
        else:
            saved, rows = _resume(config, program, state, first, parts, run, steps_per_epoch, console)
            result = _finish(program, saved, parts, rows, steps_per_epoch)
            figures.draw(run, rows)
            report.write_json(run / "result.json", result)
        report.closing_table(console, run, result)
        return result


def _resume(config, program, state, first, parts, run, steps_per_epoch, console):
    """Trains from the newest checkpoint, or from the start, to the end."""
    with checkpoint.open_folder(run / "checkpoints") as checkpoints:
        # The weights of the epoch that validation chose travel with the state: one checkpoint holds both, or none.
        saved = {"state": state, "chosen": _choice(state, 0, {"accuracy": -1.0, "loss": 0.0})}
        saved = checkpoint.restore(checkpoints, saved) or saved
        done, steps = int(saved["state"].step), config.epochs * steps_per_epoch
        rows = report.rewind(run / "metrics.jsonl", done, steps_per_epoch)
        place = f"resumed after step {done}" if done else "a new run"
        console.print(f"{run}: {place}, {steps} steps in all", soft_wrap=True)
        with report.metrics_writer(run, rows) as write, report.progress(console, steps, done) as show:
            if not done:
                saved["state"] = state = meter.begin(program.flip_ratio, config, state, first)
                norms = jax.tree.map(float, program.gradient_norms(state, first))
                write({"kind": "start", "step": 0, "seconds": 0.0, "gradient_norms": norms})
                console.print(report.share(norms), soft_wrap=True)
            watch = _Watch(config, steps_per_epoch, done, rows[-1]["seconds"], write, show, console)
            with _batches(config, parts, done) as batches:
                return _fit(config, program, saved, map(program.place, batches), parts, watch, checkpoints), rows


def _batches(config, parts, start_step=0):
    readers = {"workers": config.data.workers, "threads": config.data.threads}
    batches = data.train_batches(parts["train"], config.batch_size, config.seed, start_step, **readers)
    return contextlib.closing(batches)


def _fit(config, program, saved, batches: Iterator, parts, watch: "_Watch", checkpoints):
    """All epochs that are left; ``saved`` is the state and the chosen weights."""
    state, chosen = saved["state"], saved["chosen"]
    train_step = _metered(program, config, watch) if config.flip_every else program.train_step
    for epoch in range(watch.step // watch.steps_per_epoch + 1, config.epochs + 1):
        state, running = train_step(state, next(batches))
        for _ in range(1, watch.steps_per_epoch):
            state, metrics = train_step(state, next(batches))
            # The metrics of the step before are read while this one runs.
            watch(running)
            running = metrics
        watch(running)
        validation = program.evaluate(state, parts["validation"])
        watch.end_epoch(epoch, validation)
        if (validation["accuracy"], -validation["loss"]) > (float(chosen["accuracy"]), -float(chosen["loss"])):
            chosen = _choice(state, epoch, validation)
        saved = {"state": state, "chosen": chosen}
        last = epoch == config.epochs
        if last or (epoch % config.checkpoint_every == 0 and not watch.bad_steps):
            checkpoint.save(checkpoints, epoch, saved)
            watch.checkpoint = f"epoch {epoch}"
    return saved


def _metered(program, config, watch: "_Watch"):
    """The training step, with the flip ratios told, and z steered, before each ``flip_every``-th."""
    steps = itertools.count(watch.step + 1)

    def train_step(state, batch):
        step = next(steps)
        if (step - 1) % config.flip_every == 0:
            if config.chaos.unit == "flip":
                state = meter.in_flips(program.flip_ratio, config, state, batch) or state
            ratios = {part: program.flip_ratio(part, state, batch) for part in meter.PARTS}
            watch.flips[step] = {part: ratio if math.isfinite(ratio) else None for part, ratio in ratios.items()}
        return program.train_step(state, batch)

    return train_step


def _choice(state: learner.State, epoch: int, validation: dict[str, float]) -> dict[str, Any]:
    """A copy of the weights (the step donates the state's own) and why they were chosen."""
    # Copied: the step donates the state's own.
    weights = jax.tree.map(jnp.copy, {"params": state.params, "batch_stats": state.batch_stats})
    reasons = {"epoch": epoch, "accuracy": validation["accuracy"], "loss": validation["loss"]}
    return {name: np.asarray(value) for name, value in reasons.items()} | weights


class _Watch:
    """Reads each step's metrics: shows them, writes them, and stops a run that diverges."""

    def __init__(self, config, steps_per_epoch, done, seconds, write, show, console):
        self.config, self.steps_per_epoch, self.step = config, steps_per_epoch, done
        self.write, self.show, self.console = write, show, console
        self.began = time.perf_counter() - seconds
        self.bad_steps, self.checkpoint = 0, f"epoch {done // steps_per_epoch}" if done else None
        self.flips: dict[int, dict[str, float | None]] = {}
        self.flip_ratio: dict[str, float | None] = {}  # the last one, shown till the next
        self.start_epoch()

    def start_epoch(self):
        self.epoch, self.epoch_began = [], time.perf_counter()

    def __call__(self, metrics: dict[str, Any]) -> None:
        metrics = jax.tree.map(float, jax.device_get(metrics))
        self.step += 1
        self.bad_steps = int(metrics.pop("bad_steps"))
        if self.step in self.flips:
            ratios = self.flips.pop(self.step)
            self.flip_ratio = {"flip_ratio": ratios["both"]}
            self.write({"kind": "flip", "step": self.step, "seconds": self.seconds, "flip_ratio": ratios})
        if self.bad_steps:
            self.write({"kind": "bad", "step": self.step, "seconds": self.seconds, "bad_steps": self.bad_steps})
            self.console.print(f"step {self.step}: loss or gradient is not finite; the step is skipped", soft_wrap=True)
            if self.bad_steps == _BAD_STEPS_STOP:
                good = f"the last good checkpoint is of {self.checkpoint}" if self.checkpoint else "no checkpoint yet"
                raise Diverged(
                    f"diverged: loss or gradient was not finite at steps {self.step - _BAD_STEPS_STOP + 1} to "
                    f"{self.step}; {good}. Try a smaller optimizer.lr or chaos.z0"
                )
            return
        self.epoch.append(metrics)
        if self.step % self.config.log_every == 0:
            row = self._row("train", metrics)
            self.write(row)
            self.show(self.step, report.line(row | self.flip_ratio, self.config.epochs))

    def end_epoch(self, epoch: int, validation: dict[str, float]) -> None:
        mean = jax.tree.map(lambda *values: sum(values) / len(values), *self.epoch) if self.epoch else {}
        row = self._row("epoch", mean) | {f"validation_{k}": v for k, v in validation.items()}
        self.write(row)
        if not report.live(self.console):
            self.console.print(report.line(row, self.config.epochs), soft_wrap=True)
        self.start_epoch()

    def _row(self, kind, metrics):
        speed = len(self.epoch) * self.config.batch_size / (time.perf_counter() - self.epoch_began)
        place = {"kind": kind, "step": self.step, "epoch": -(-self.step // self.steps_per_epoch)}
        return place | {"seconds": self.seconds, "examples_per_second": speed} | metrics

    @property
    def seconds(self):
        return time.perf_counter() - self.began


def _finish(program, saved, parts, rows, steps_per_epoch) -> dict[str, Any]:
    """Both test accuracies; never the best over test."""
    state, chosen = saved["state"], saved["chosen"]
    epochs = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    result = {"seconds": rows[-1]["seconds"], "gradient_norms": rows[0]["gradient_norms"]}
    chosen_state = dataclasses.replace(state, params=chosen["params"], batch_stats=chosen["batch_stats"])
    last_epoch = int(state.step) // steps_per_epoch
    for key, weights, epoch in (("last", state, last_epoch), ("chosen", chosen_state, int(chosen["epoch"]))):
        test = program.evaluate(weights, parts["test"])
        result[key] = {
            "epoch": epoch,
            "validation_accuracy": epochs[epoch]["validation_accuracy"],
            "test_accuracy": test["accuracy"],
            "test_loss": test["loss"],
            "test_count": test["count"],
        }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.asarray(leaf).tobytes())
    return result | {"params_sha256": digest.hexdigest()}
