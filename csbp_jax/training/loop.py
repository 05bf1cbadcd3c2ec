"""The training loop: from a config to a run folder and a test accuracy."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from csbp_jax import configs, data, learner, weights
from csbp_jax.config import Config, ConfigError, Diverged, check, to_json
from csbp_jax.learner import Batch, State
from csbp_jax.reporting import plots, terminal
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime import files, hardware, multihost, profiling, seals
from csbp_jax.runtime.preemption import Stop, Stopped, current
from csbp_jax.training import build, metrics_log, run_dir, run_json, selection
from csbp_jax.training.checkpoint import checkpoint, location
from csbp_jax.training.compiled import CompiledRun, Splits, compile_run, initial_state, resolve
from csbp_jax.training.monitor import Outputs, TrainingMonitor, empty_progress
from csbp_jax.training.plugins import Own, plugin_run_name


def train(
    config: Config | str,
    *,
    name: str | None = None,
    fresh: bool = False,
    root: str | pathlib.Path = "runs",
    data_dir: str | pathlib.Path = "data",
    console: Console | None = None,
    stop: Stop | None = None,
    own: Own = Own(),
    profile: str = "",
    checkpoints: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train, or resume a stopped run of the same config, and return the content of ``result.json``.

    ``csbp_jax.train("digits", epochs=1, **{"chaos.z0": 0})`` trains a preset with two other values.

    Args:
      config: what to train, or the name of a preset.
      name: the run's folder under ``root``; by default the data set and a hash of the config.
      fresh: rename an old run of this name and start from scratch.
      root: directory of all runs.
      data_dir: directory of prepared data sets.
      console: where progress is shown; the terminal by default.
      stop: what may request a stop, within an epoch too; by default signals, within ``preemption.on_signals``.
      own: parts of your own, in place of the config's. If they are not from a file, ``name`` must be given.
      profile: ``START:N`` writes a trace of N steps from step START on to the run's folder ``profile``.
      checkpoints: a directory or an address ``gs://BUCKET/DIRECTORY``, under which the run's name holds its
        checkpoints, with all that another machine needs to resume; by default they are in the run's folder.
      fields: other values of the config, as of :meth:`csbp_jax.config.Config.replace`.

    Raises:
      ConfigError: there is no such preset or field, a value is impossible, or the folder holds another config or a run
        on other data.
      Diverged: loss or gradient was not finite for three steps in a row, or the task loss was too large
        (``config.loss_limit``).
      Stopped: a stop was requested, and all progress is saved; the same call resumes.
    """
    requested = (configs.load(config) if isinstance(config, str) else config).replace(**fields)
    stop = current() if stop is None else stop
    console = make_console() if console is None else console
    if not multihost.is_host0():
        console = Console(quiet=True)

    def parse_options() -> range:
        if checkpoints is not None:
            location.parse(checkpoints)
        return profiling.parse_trace_steps(profile) if profile else range(0)

    # One host alone may lack gcsfs.
    steps_traced = multihost.all_succeed(parse_options)
    # Process 0 first, for caches of data that many processes would make at once.
    config, splits, fingerprint = multihost.host0_first(lambda: _load(requested, own, data_dir))
    name = plugin_run_name(config, own) if name is None else name
    digest = run_dir.fingerprint_digest(fingerprint)
    options = [to_json(config), name, str(root), digest, own.metadata().get("sha256"), checkpoints]
    multihost.check_equal("options of train", options)
    if jax.default_backend() == "cpu" and (small := configs.small_preset(config)):
        # Before the minutes that compiling takes there.
        text = f"{config.model.name} is a network of the literature, meant for accelerators; on a CPU, DATASET={small}"
        console.print(f"{text} trains a small one", soft_wrap=True)

    run = compile_run(config, splits["train"], len(splits["train"]) // config.batch_size, own)
    state = initial_state(run, functools.partial(console.print, soft_wrap=True))
    with contextlib.closing(run.batches(config.seed, readers=data.Readers())) as batches:
        # Each process reads rows of its own, which it alone may fail to read.
        first_batch = run.shard_batch(multihost.all_succeed(lambda: next(batches)))
    # Traced before anything is written, so that a tap that does not exist leaves no folder behind.
    _, metrics = multihost.all_succeed(functools.partial(jax.eval_shape, run.train_step, state, first_batch))
    saved = checkpoint_content(state, metrics) | {"chosen": selection.select(state, 0, selection.NO_EPOCH)}
    del state  # `saved` alone holds its arrays, so that a resume frees them
    classes = build.class_names(config, splits, data_dir)

    with contextlib.ExitStack() as stack:

        def open_run() -> tuple[str, str, dict[str, Any], dict[str, Any] | None]:
            store = location.checkpoint_dir(pathlib.Path(root, name), checkpoints, fresh)
            elsewhere = location.config_beside(store) if checkpoints else None
            if fresh and elsewhere:
                raise ConfigError(f"--fresh: {store} has checkpoints; move them away, or give another NAME (--name)")
            content = run_dir.open_run(
                pathlib.Path(root), to_json(config), name, fresh, console, fingerprint, classes, own, elsewhere
            )
            folder = stack.enter_context(content)
            identity = run_json.identity(run_json.read_config(folder))
            result = run_json.read_result(folder) if _is_finished(folder, str(store), config, console) else None
            return str(folder), str(store), identity, result

        folder_name, store, identity, result = multihost.broadcast_from_host0(open_run)
        folder = pathlib.Path(folder_name)
        in_place = (
            run_dir.in_place(folder)
            if multihost.is_host0()
            else contextlib.nullcontext[Callable[[], None]](lambda: None)
        )
        check_in_place = stack.enter_context(in_place)
        if result is not None:
            trained = result["last"]["epoch"]
            of_epochs = f" after {trained} epochs, not {config.epochs}" if trained != config.epochs else ""
            console.print(f"{folder} is finished{of_epochs}; FRESH=1 (--fresh) starts from scratch", soft_wrap=True)
        else:
            job = _Job(run, splits, stop, folder, store, identity, console, steps_traced, check_in_place)
            with stop.deferred():
                saved, rows = _train_epochs(job, saved, first_batch)
            stop.raise_if_requested()
            result = selection.test_results(run, saved, splits["test"], rows, stop.raise_if_requested)
            if config.patience:
                result["stopped_early"] = result["last"]["epoch"] < config.epochs

            def write_results() -> None:
                check_in_place()
                plots.draw_run(folder, rows)
                seals.write_json(folder / "result.json", result)

            multihost.broadcast_from_host0(write_results)
        terminal.print_result(console, folder, result, store)
        return result


def _is_finished(folder: pathlib.Path, store: str, config: Config, console: Console) -> bool:
    """Return whether a run has a result, and rename one that is no longer its last.

    That is so if the newest checkpoint is damaged but not the one before: the run repeats its last epochs, as readers
    of it advise. And if ``epochs`` was raised since: the run goes on.

    Raises:
      ConfigError: the result cannot be read.
      CheckpointError: the run would have to go on, but no checkpoint is intact.
    """
    if not (folder / "result.json").exists():
        return False
    if damage := checkpoint.damaged_before_intact(store):
        reason = f"a checkpoint is damaged ({damage})"
    else:
        result = run_json.read_result(folder)
        trained = result["last"]["epoch"]
        if trained >= config.epochs or _out_of_patience(config, result, trained):
            return True
        checkpoint.check_intact(store)
        reason = f"after {trained} of now {config.epochs} epochs"
    old = files.set_aside(folder / "result.json")
    console.print(f"{folder}: was finished, but {reason}; its result is kept as {old.name}", soft_wrap=True)
    return False


def _load(config: Config, own: Own, data_dir: str | pathlib.Path) -> tuple[Config, Splits, str]:
    """Return the resolved config, the splits of its data, and their fingerprint."""
    check(config)
    if config.weights and not own.model:
        weights.verify(config)
    splits, fingerprint = build.load_data(config, own, data_dir)
    return resolve(config, splits), splits, fingerprint


@dataclasses.dataclass(frozen=True)
class _Job:
    """The constants of a run: its functions, data, directories, the request to stop, and a check before it saves."""

    run: CompiledRun
    splits: Splits
    stop: Stop
    folder: pathlib.Path
    store: str
    identity: dict[str, Any]
    console: Console
    steps_traced: range
    check_in_place: Callable[[], None]


def _train_epochs(job: _Job, saved: dict[str, Any], first_batch: Batch) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train from the newest checkpoint, or from the start, to the last epoch; return its checkpoint and all rows."""
    run, config, steps_per_epoch = job.run, job.run.config, job.run.steps_per_epoch
    host0, total_steps = multihost.is_host0(), run.total_steps
    log_file = job.folder / "metrics.jsonl"
    beside = [] if job.store == str(job.folder / "checkpoints") else [job.folder / "config.json", log_file]
    show_line = functools.partial(job.console.print, soft_wrap=True)

    with contextlib.ExitStack() as stack:
        # Restore.
        store = stack.enter_context(
            checkpoint.open_folder(job.store, show_line, beside, job.identity, job.check_in_place)
        )
        if beside:
            multihost.broadcast_from_host0(lambda: location.record_location(job.folder, job.store))
        saved.update(store.restore(saved) or {})  # in place: the caller, too, holds the dict, and so the first arrays
        start, progress = int(saved["state"].step), saved.pop("progress")
        if start > total_steps:
            raise ConfigError(
                f"epochs: {config.epochs} is not possible, the newest checkpoint of {job.folder} is of epoch "
                f"{-(-start // steps_per_epoch)}; allowed is from this epoch on, or give another NAME (--name)"
            )

        def rows_up_to_start() -> list[dict[str, Any]]:
            if not start and (old := metrics_log.set_aside(log_file)):
                show_line(f"{job.folder}: has metrics but no checkpoint; they are kept as {old.name}")
            return metrics_log.rewind(log_file, start, int(progress["epochs"]), steps_per_epoch)

        rows = multihost.broadcast_from_host0(rows_up_to_start)
        devices, beginning = _devices(_hardware_row()), f"resumed after step {start}" if start else "a new run"
        show_line(f"{job.folder}: {beginning}, {total_steps} steps in all, on {devices}")
        if rows and "device" in rows[0] and (former := _devices(rows[0])) != devices:
            show_line(f"{job.folder}: began on {former}; other devices round in other ways, so results may differ")
        write, sync = stack.enter_context(metrics_log.writer(log_file if host0 else pathlib.Path(os.devnull), rows))
        show = stack.enter_context(terminal.progress(job.console, total_steps, start))

        # Start.
        if not start:
            # Without a term there is nothing to compare, and the program takes seconds to compile.
            norms = (
                jax.tree.map(float, run.gradient_norms(saved["state"], first_batch))
                if any(config.chaos.z0)
                else {"chaos": 0.0}
            )
            write({"kind": "start", "step": 0, "seconds": 0.0, "gradient_norms": norms} | _hardware_row())
            show_line(terminal.gradient_share(norms))
        peak = hardware.peak_flops()
        monitor = TrainingMonitor(
            config,
            steps_per_epoch,
            progress,
            (start, rows),
            Outputs(write, show, job.console),
            hardware.flops(run.train_step, saved["state"], first_batch) / peak if peak else 0.0,
        )
        host_batches = stack.enter_context(contextlib.closing(run.batches(config.seed, start)))
        batches = map(run.shard_batch, host_batches)
        steps_left, traced = range(start + 1, total_steps + 1), job.steps_traced if host0 else range(0)
        train_step = stack.enter_context(
            profiling.profiled(run.train_step, steps_left, traced, job.folder / "profile", show_line)
        )
        last_saved = (start, monitor.epochs)

        def save() -> None:
            nonlocal last_saved
            position = (monitor.step, monitor.epochs)
            if monitor.step and (position != last_saved or store.failed()):
                content = saved | {"progress": monitor.progress()}
                store.save(monitor.step, content, before=sync if host0 else lambda: None)
                last_saved = position

        # Train.
        step = start
        try:
            for epoch in range(monitor.epochs + 1, config.epochs + 1):
                if _out_of_patience(config, saved, monitor.epochs):
                    break
                for _ in range(monitor.steps_left):
                    if job.stop.code is not None:
                        break
                    step += 1
                    batch = monitor.timed_next(batches)
                    saved["state"], metrics = train_step(saved["state"], batch)
                    monitor(metrics)
                monitor.catch_up()
                job.stop.raise_if_requested()

                validation = run.evaluate(saved["state"], job.splits["validation"], job.stop.raise_if_requested)
                ema_validation = {}
                if config.optimizer.ema:
                    averaged = learner.with_ema_weights(saved["state"])
                    ema_validation = run.evaluate(averaged, job.splits["validation"], job.stop.raise_if_requested)
                monitor.end_epoch(validation, ema_validation)
                saved["chosen"] = selection.update(saved["chosen"], saved["state"], epoch, validation)
                last = epoch == config.epochs or _out_of_patience(config, saved, epoch)
                if last or (epoch % config.checkpoint_every == 0 and monitor.failing_since is None):
                    save()
        except Stopped as stopped:
            save()
            raise Stopped(stopped.code, monitor.step) from None
        except Diverged as error:
            newest = store.newest_step(before=monitor.failing_since)
            good = "no checkpoint yet" if newest is None else f"the last good checkpoint is of step {newest}"
            raise Diverged(f"diverged: {error}; {good}. Try a smaller optimizer.lr or chaos.z0") from None
        return saved, rows


def _hardware_row() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "peak_operations": hardware.peak_flops(),
    }


def _devices(hardware_row: dict[str, Any]) -> str:
    return f"{hardware_row['devices']} x {hardware_row['device']}"


def _out_of_patience(config: Config, saved: dict[str, Any], epochs: int) -> bool:
    """Return whether the epochs so far are enough; decided by what a checkpoint holds, so a resume decides the same."""
    return bool(config.patience) and epochs - int(saved["chosen"]["epoch"]) >= config.patience


def checkpoint_content(state: State, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint at the start of a run; shapes of the state and of a step's metrics suffice.

    One checkpoint holds all that a run resumes from, or none does: the state, the weights of the best validation epoch,
    and what has been measured of an unfinished epoch.
    """
    selected = selection.summary(0, selection.NO_EPOCH) | learner.weights_of(state)
    return {"state": state, "chosen": selected, "progress": empty_progress(metrics)}
