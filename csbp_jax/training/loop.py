"""The training loop, read from top to bottom: from a config to a run folder and a test accuracy."""

import contextlib
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from csbp_jax import data, learner
from csbp_jax.config import Config, ConfigError, check, to_json
from csbp_jax.reporting import plots, terminal
from csbp_jax.runtime import files, hardware, multihost, profiling
from csbp_jax.runtime.preemption import Stop, Stopped
from csbp_jax.training import build, flip_meter, metrics_log, run_dir, selection
from csbp_jax.training.checkpoint import checkpoint, location
from csbp_jax.training.compiled import Program, begin, compile, resolve
from csbp_jax.training.monitor import TrainingMonitor, empty_progress
from csbp_jax.training.plugins import Own, plugin_run_name


def train(
    config: Config,
    *,
    name: str | None = None,
    fresh: bool = False,
    root: str | pathlib.Path = "runs",
    data_dir: str | pathlib.Path = "data",
    console: terminal.Console | None = None,
    stop: Stop | None = None,
    own: Own = Own(),
    profile: str = "",
    checkpoints: str | None = None,
) -> dict[str, Any]:
    """Trains, or goes on where a stopped run of the same config left off, and returns what ``result.json`` holds.

    Args:
      config: what to train.
      name: the run's folder under ``root``; by default the data set and a hash of the config.
      fresh: set an old run of this name aside and start anew.
      root: where runs are kept.
      data_dir: where prepared data sets are kept.
      console: where to show it; the terminal by default.
      stop: what may tell it to stop, within an epoch too; see stop.py.
      own: parts of your own, in place of the config's. If they are not of a file, ``name`` must be given.
      profile: ``START:N``: a trace of N steps from step START on is left in the run's ``profile``.
      checkpoints: a folder or an address ``gs://BUCKET/FOLDER``, under which the run's name holds its checkpoints, with
        all that another machine needs to go on; by default they are in the run's folder.

    Raises:
      ConfigError: a value is impossible, or the folder holds another config or a run on other data.
      Diverged: loss or gradient was not finite for three steps in a row.
      Stopped: it was told to, and has saved all that it had done; the same call goes on.
    """
    stop = Stop() if stop is None else stop
    steps_traced = profiling.parse_trace_steps(profile) if profile else range(0)
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    if not multihost.is_host0():
        console = terminal.Console(quiet=True)
    if checkpoints is not None:
        location.parse(checkpoints)
    config, parts, identity = multihost.all_succeed(lambda: _prepared(config, own, data_dir))
    name = plugin_run_name(config, own) if name is None else name
    alike = [
        to_json(config),
        name,
        str(root),
        run_dir.fingerprint_digest(identity),
        own.about().get("sha256"),
        checkpoints,
    ]
    multihost.check_equal("options of train", alike)
    steps_per_epoch = len(parts["train"]) // config.batch_size
    program = compile(config, parts["train"], steps_per_epoch, own)
    state = begin(config, program, functools.partial(console.print, soft_wrap=True))
    with _batches(config, parts) as batches:
        first = program.place(next(batches))
    # Traced before anything is written, so that a tap that does not exist leaves no folder behind.
    _, metrics = multihost.all_succeed(lambda: jax.eval_shape(program.train_step, state, first))
    saved = unsaved(state, metrics) | {"chosen": selection.of(state, 0, selection.NONE_YET)}
    job = _Job(config, program, parts, steps_per_epoch, stop)

    classes = build.class_names(config, own, parts, data_dir)
    with contextlib.ExitStack() as held:

        def opened():
            there = location.checkpoint_dir(pathlib.Path(root, name), checkpoints, fresh)
            elsewhere = location.config_beside(there) if checkpoints else None
            if fresh and elsewhere:
                raise ConfigError(f"--fresh: {there} has checkpoints; move them away, or give another NAME (--name)")
            run = held.enter_context(
                run_dir.open_run(
                    pathlib.Path(root), to_json(config), name, fresh, console, identity, classes, own, elsewhere
                )
            )
            return str(run), str(there), run_dir.read_result(run) if (run / "result.json").exists() else None

        run, there, result = multihost.broadcast_from_host0(opened)
        run = pathlib.Path(run)
        if result is not None:
            console.print(f"{run} is finished; FRESH=1 (--fresh) starts it anew", soft_wrap=True)
        else:
            with stop.deferred():
                saved, rows = _resume(job, saved, first, run, there, console, steps_traced)
            stop.raise_if_requested()
            result = selection.tested(program, saved, parts["test"], rows, steps_per_epoch, stop.raise_if_requested)
            if config.patience:
                result["stopped_early"] = result["last"]["epoch"] < config.epochs
            multihost.broadcast_from_host0(lambda: _leave(run, rows, result))
        terminal.print_result(console, run, result, there)
        return result


def _prepared(config, own, data_dir):
    """The whole config, the parts of its data, and what tells whether these are the same."""
    if jax.process_count() > 1 and (config.flip_every or config.chaos.unit == "flip"):
        raise ConfigError("flip_every, chaos.unit: the flip ratio can be measured in one process only; set 0 and plain")
    parts, identity = build.load_data(check(config), own, data_dir)
    return resolve(config, parts), parts, identity


def _leave(run, rows, result):
    plots.draw_run(run, rows)
    files.write_json(run / "result.json", result)


class _Job(NamedTuple):
    """What a run computes, on what, and what may stop it."""

    config: Config
    program: Program
    parts: dict[str, Any]
    steps_per_epoch: int
    stop: Stop


def _resume(job, saved, first, run, there, console, steps_traced):
    """Trains from the newest checkpoint, or from the start, to the end."""
    config, program, steps_per_epoch = job.config, job.program, job.steps_per_epoch
    beside = [] if there == str(run / "checkpoints") else [run / "config.json", run / "metrics.jsonl"]
    with checkpoint.open_folder(there, functools.partial(console.print, soft_wrap=True), beside) as checkpoints:
        if beside:
            multihost.broadcast_from_host0(lambda: location.record_location(run, there))
        saved = checkpoints.restore(saved) or saved
        done, steps = int(saved["state"].step), config.epochs * steps_per_epoch
        progress = saved.pop("progress")
        ended = int(progress["epochs"])
        rows = multihost.broadcast_from_host0(
            lambda: metrics_log.rewind(run / "metrics.jsonl", done, ended, steps_per_epoch)
        )
        place = f"resumed after step {done}" if done else "a new run"
        console.print(f"{run}: {place}, {steps} steps in all", soft_wrap=True)
        file = run / "metrics.jsonl" if multihost.is_host0() else pathlib.Path(os.devnull)
        with metrics_log.writer(file, rows) as (write, sync), terminal.progress(console, steps, done) as show:
            if not done:
                saved["state"] = state = flip_meter.begin(program.flip_ratio, config, saved["state"], first)
                norms = jax.tree.map(float, program.gradient_norms(state, first))
                write({"kind": "start", "step": 0, "seconds": 0.0, "gradient_norms": norms} | _kind())
                console.print(terminal.gradient_share(norms), soft_wrap=True)
            watch = TrainingMonitor(config, steps_per_epoch, done, progress, rows[-1]["seconds"], write, show, console)
            watch.newest_step = checkpoints.newest_step
            if peak := hardware.peak_flops():
                watch.utilisation = hardware.flops(program.train_step, saved["state"], first) / peak

            def save():
                place = (watch.step, watch.epochs)
                if watch.step and (watch.saved != place or checkpoints.failed()):
                    content = saved | {"progress": watch.progress()}
                    checkpoints.save(watch.step, content, before=sync if multihost.is_host0() else lambda: None)
                    watch.saved = place

            tracing = profiling.profiled(
                program.train_step, done, steps_traced if multihost.is_host0() else range(0), run / "profile"
            )
            with _batches(config, job.parts, done) as batches, tracing as train_step:
                job = job._replace(program=program._replace(train_step=train_step))
                _fit(job, saved, map(program.place, batches), watch, save)
            return saved, rows


def _kind():
    """On what a run began."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "peak_operations": hardware.peak_flops(),
    }


def _batches(config, parts, start_step=0):
    readers = {"workers": config.data.workers, "threads": config.data.threads} | multihost.host_slice()
    batches = data.train_batches(parts["train"], config.batch_size, config.seed, start_step, **readers)
    return contextlib.closing(batches)


def _fit(job: _Job, saved, batches: Iterator, watch: TrainingMonitor, save):
    """All epochs that are left; ``saved``, the state and the chosen weights, goes along with them."""
    config, program, validation_part, stop = job.config, job.program, job.parts["validation"], job.stop
    train_step = _metered(program, config, watch) if config.flip_every else program.train_step
    try:
        for epoch in range(watch.epochs + 1, config.epochs + 1):
            if _out_of_patience(config, saved, watch.epochs):
                break
            for _ in range(watch.left):
                if stop.code is not None:
                    break
                saved["state"], metrics = train_step(saved["state"], watch.next(batches))
                watch(metrics)
            watch.catch_up()
            stop.raise_if_requested()
            validation = program.evaluate(saved["state"], validation_part, stop.raise_if_requested)
            averages = {}
            if config.optimizer.ema:
                averages = program.evaluate(
                    learner.with_ema_weights(saved["state"]), validation_part, stop.raise_if_requested
                )
            watch.end_epoch(validation, averages)
            if selection.rank(validation) > selection.rank(saved["chosen"]):
                saved["chosen"] = selection.of(saved["state"], epoch, validation)
            last = epoch == config.epochs or _out_of_patience(config, saved, epoch)
            if last or (epoch % config.checkpoint_every == 0 and not watch.bad_steps):
                save()
    except Stopped as stopped:
        save()
        raise Stopped(stopped.code, watch.step) from None


def _out_of_patience(config, saved, epochs):
    """Whether so many ended epochs are enough; told from what a checkpoint holds alone, so alike after a resume."""
    return bool(config.patience) and epochs - int(saved["chosen"]["epoch"]) >= config.patience


def _metered(program, config, watch: TrainingMonitor):
    """The training step, with the flip ratios told, and z steered, before each ``flip_every``-th."""
    steps = itertools.count(watch.step + 1)

    def train_step(state, batch):
        step = next(steps)
        if (step - 1) % config.flip_every == 0:
            if config.chaos.unit == "flip":
                state = flip_meter.z0_in_flips(program.flip_ratio, config, state, batch) or state
            ratios = {part: program.flip_ratio(part, state, batch) for part in flip_meter.PARTS}
            watch.flips[step] = {part: ratio if math.isfinite(ratio) else None for part, ratio in ratios.items()}
        return program.train_step(state, batch)

    return train_step


def unsaved(state: learner.State, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds, of a run that begins; of a state and of a step's metrics the shapes suffice.

    One checkpoint holds all that a run goes on with, or none does: the state, the weights of the epoch that validation
    chose, and what has been measured of an epoch that has not ended.
    """
    chosen = selection.reasons(0, selection.NONE_YET) | {"params": state.params, "batch_stats": state.batch_stats}
    return {"state": state, "chosen": chosen, "progress": empty_progress(metrics)}
