"""The training of one run: its start or resume, the loop over its epochs, its files and checkpoints, and its finish."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from csbp_jax import weights
from csbp_jax.config import Config, ConfigError, Diverged
from csbp_jax.learner import Batch, State
from csbp_jax.reporting import terminal
from csbp_jax.reporting.terminal import Console
from csbp_jax.runtime import files, hardware, multihost, profiling, seals
from csbp_jax.runtime.preemption import Stop
from csbp_jax.training import epochs, metrics_log, results
from csbp_jax.training.build import Splits
from csbp_jax.training.callbacks import Callbacks, Trainer
from csbp_jax.training.checkpoint import checkpoint
from csbp_jax.training.compiled import CompiledRun, initial_state
from csbp_jax.training.epochs import Meter, Session
from csbp_jax.training.feeds import Stream
from csbp_jax.training.health import health_of
from csbp_jax.training.lifts import Alone
from csbp_jax.training.log import Log
from csbp_jax.training.metrics_log import Row


@dataclasses.dataclass(frozen=True)
class Job:
    """The constants of a training, checked before anything is written.

    Attributes:
      run: its functions.
      splits: its data.
      plan: of the file with initial weights.
      first_batch: of the training.
      metrics: shapes of those of a step.
      steps_traced: those of ``--profile``.
      stop: may request a stop.
      folder: of the run.
      store: directory or address of the checkpoints.
      identity: what tells the run from others.
      console: where progress is shown.
      callbacks: are called after each epoch.
      check_in_place: raises an error if the folder is no longer where it was; called before anything is saved.
      go_on: changes the files of a run that goes on; called in process 0, once its checkpoint has been restored.
    """

    run: CompiledRun
    splits: Splits
    plan: weights.Plan | None
    first_batch: Batch
    metrics: dict[str, Any]
    steps_traced: range
    _: dataclasses.KW_ONLY
    stop: Stop
    folder: pathlib.Path
    store: str
    identity: dict[str, Any]
    console: Console
    callbacks: Callbacks
    check_in_place: Callable[[], None]
    go_on: Callable[[], None]

    @property
    def log_file(self) -> pathlib.Path:
        """The file of all that is measured."""
        return self.folder / "metrics.jsonl"

    def show(self, line: str) -> None:
        """Print a line, however wide the terminal is."""
        self.console.print(line, soft_wrap=True)

    def trainer(self) -> Trainer:
        """Return the training as its callbacks see it, without a state."""
        return Trainer(Alone(self.run), self.splits, self.folder, self.show, self.stop.raise_if_requested)


class Checkpointing:
    """Saves of a run (:class:`csbp_jax.training.epochs.Saves`).

    Args:
      store: where sessions are saved.
      config: of the run; says after which epochs.
      log: tells whether the training is failing.
      check: called in process 0 before each save; an error that it raises ends the run.
      before: called in all processes before each save; if it fails, the save has failed.
      saved: the position of the last session that was saved.
    """

    def __init__(
        self,
        store: checkpoint.Checkpoints,
        config: Config,
        log: Log,
        check: Callable[[], None],
        before: Callable[[], None],
        saved: tuple[int, int],
    ):
        self.store, self.config, self.log = store, config, log
        self.check, self.before, self.saved = check, before, saved

    def after_epoch(self, session: Session) -> None:
        """Save the session if it is time to, or if it is the last one."""
        # Two checkpoints are kept: those of a failing stretch would push out the last good one. The last epoch is
        # saved even so: of a finished run there is no epoch to train again.
        _, ended = session.position
        is_due = ended % self.config.checkpoint_every == 0 and self.log.failing_since is None
        if is_due or session.is_over(self.config):
            self.before_stop(session)

    def before_stop(self, session: Session) -> None:
        """Save a session, unless it is saved already, or has no step yet: a run begins again without a checkpoint."""
        # With epochs: a stop during validation saves the step of the epoch's end, before that epoch has ended.
        step, _ = position = session.position
        if step and (position != self.saved or self.store.failed()):
            multihost.broadcast_from_host0(self.check)
            self.store.save(step, session, self.before)
            self.saved = position


def train(job: Job, trainer: Trainer) -> Session:
    """Train from the newest checkpoint, or from the start, to the last epoch.

    Raises:
      Stopped: a stop was requested, and all progress is saved.
      Diverged: as :class:`csbp_jax.training.log.Log`.
    """
    run, config, stop, host0 = job.run, job.run.config, job.stop, multihost.is_host0()
    with contextlib.ExitStack() as stack:
        # Restore the newest checkpoint, or begin. The callbacks start before any file of the run changes.
        apart = job.store != str(job.folder / "checkpoints")
        copied = [job.folder / "config.json", job.log_file] if apart else []
        opened = checkpoint.open_folder(job.store, job.show, copied, job.identity, job.check_in_place)
        store = stack.enter_context(opened)
        restored = _restored(job, store)
        is_resumed = restored is not None
        session = restored or _initial(job)
        del restored  # it would keep its weights in memory
        trainer.at(session.state)
        job.callbacks.start(trainer, session.callbacks, is_resumed)
        session = dataclasses.replace(session, callbacks=job.callbacks.states())
        rows = _continue_files(job, store, session) if is_resumed else _begin_files(job)
        if apart:
            multihost.broadcast_from_host0(lambda: files.write_text(job.folder / "checkpoints", f"{job.store}\n"))
        step, _ = session.position
        _announce(job, step, rows)

        # Open what a step reads and writes.
        log = stack.enter_context(metrics_log.opened(job.log_file if host0 else pathlib.Path(os.devnull)))
        bar = stack.enter_context(terminal.progress(job.console, run.total_steps, step))
        if not step:
            rows = [_row_of_start(job, session.state)]
            log.write(rows[0])
            job.show(terminal.gradient_share(rows[0]["gradient_norms"]))
            if line := terminal.unfaded(config.chaos, config.epochs, run.total_steps):
                job.show(line)
        peak = hardware.peak_flops()
        # Batches of several lengths differ in their operations.
        seconds = run.flops(session.state, job.first_batch) / peak if peak and run.buckets.lengths is None else 0.0
        steps_left, traced = range(step + 1, run.total_steps + 1), job.steps_traced if host0 else range(0)
        train_step = stack.enter_context(
            profiling.profiled(run.train_step, steps_left, traced, job.folder / "profile", job.show)
        )
        stream = Stream(train_step, run.batches(config.seed, step), run.shard_batch)
        feed = stack.enter_context(contextlib.closing(stream))
        health = health_of(rows, config.loss_limit, run.steps_per_epoch)
        record = Log(
            config,
            run.steps_per_epoch,
            health,
            rows,
            feed,
            write=log.write,
            show=bar,
            print=job.show,
            seconds_per_step_at_peak=seconds,
        )
        stack.enter_context(_last_good_checkpoint_named(store, record))

        def check() -> None:
            job.check_in_place()
            log.check_in_place()

        before_save = log.sync if host0 else lambda: None
        return epochs.train(
            Alone(run),
            feed,
            session,
            validation=job.splits["validation"],
            trainer=trainer,
            callbacks=job.callbacks,
            meter=Meter(session, job.metrics, health, record),
            record=record,
            saves=Checkpointing(store, config, record, check, before_save, session.position),
            stop=stop,
        )


def finish(job: Job, trainer: Trainer, session: Session) -> dict[str, Any]:
    """Test each kind of weights, tell the callbacks, and write and return the content of ``result.json``.

    Raises:
      ConfigError: rows of ``metrics.jsonl`` are missing.
      Diverged: no epoch could be chosen by validation.
    """

    def read_rows() -> list[Row]:
        job.check_in_place()
        rows = metrics_log.read_rows(job.log_file)
        metrics_log.check_complete(job.log_file, rows, *session.position, job.run.steps_per_epoch)
        return rows

    config, rows = job.run.config, multihost.broadcast_from_host0(read_rows)
    if not int(session.chosen["epoch"]):
        raise Diverged("diverged: no epoch has a finite validation loss. Try a smaller optimizer.lr or chaos.z0")
    result = results.test_results(job.run, session, job.splits["test"], rows, job.stop.raise_if_requested)
    if config.patience:
        result["stopped_early"] = result["last"]["epoch"] < config.epochs
    if session.is_stopped:
        result["stopped"] = [row for row in rows if row["kind"] == "epoch"][-1].get("stopped", "")
    # Before the result is written, so that a run with a result has all that a callback leaves.
    multihost.broadcast_from_host0(job.check_in_place)
    trainer.at(session.state)
    job.callbacks.end(trainer, result)

    def write_result() -> None:
        job.check_in_place()
        seals.write_json(job.folder / "result.json", result)

    multihost.broadcast_from_host0(write_result)
    return result


def _restored(job: Job, store: checkpoint.Checkpoints) -> Session | None:
    """Restore the newest checkpoint; None if there is none. No file changes.

    Raises:
      ConfigError: the run has trained for more epochs than its config has.
    """
    run = job.run
    fresh = Session.fresh(run.state_shapes, job.metrics)
    like = {"state": fresh.state, "chosen": fresh.chosen, "progress": fresh.progress}
    parts = store.restore(like, optional=["progress"], as_stored=["callbacks"])
    if parts is None:
        return None
    # Fields that an older version did not store are as at the start, but a sum that it lacks is not 0.
    stored = fresh.progress | {"sums": {}} | parts["progress"]
    session = Session(parts["state"], parts["chosen"], stored, parts["callbacks"])
    step, _ = session.position
    if step > run.total_steps:
        raise ConfigError(
            f"epochs: {run.config.epochs} is not possible, the newest checkpoint of {job.folder} is of epoch "
            f"{-(-step // run.steps_per_epoch)}; allowed is from this epoch on, or give another NAME (--name)"
        )
    return session


def _initial(job: Job) -> Session:
    """Return the session of the start of a run."""
    return Session.fresh(initial_state(job.run, job.plan, job.show), job.metrics).with_own_weights()


def _continue_files(job: Job, store: checkpoint.Checkpoints, session: Session) -> list[Row]:
    """Cut the files of a run back to its checkpoint, and return the rows of metrics up to it.

    After a kill in between, the same command decides the same again: the result is set aside before a damaged
    checkpoint is.

    Raises:
      ConfigError: rows are missing.
    """

    def change_files() -> list[Row]:
        store.restore_run_files()
        rows = metrics_log.rewind(job.log_file, *session.position, job.run.steps_per_epoch)
        job.go_on()
        return rows

    rows = multihost.broadcast_from_host0(change_files)
    store.set_damaged_aside()
    return rows


def _begin_files(job: Job) -> list[Row]:
    """Begin the files of a run, without rows of metrics; those of an earlier start are renamed."""

    def change_files() -> None:
        job.go_on()
        if old := metrics_log.set_aside(job.log_file):
            job.show(f"{job.folder}: has metrics but no checkpoint; they are kept as {old.name}")
        files.write_text(job.log_file, "")

    multihost.broadcast_from_host0(change_files)
    return []


def _announce(job: Job, step: int, rows: list[Row]) -> None:
    """Say after which step a run goes on, and on which devices."""
    devices, beginning = _devices(_hardware_row()), f"resumed after step {step}" if step else "a new run"
    job.show(f"{job.folder}: {beginning}, {job.run.total_steps} steps in all, on {devices}")
    if lengths := job.run.buckets.describe():
        job.show(lengths)
    if unused := hardware.unused_accelerator():
        job.show(unused)
    if rows and "device" in rows[0] and (former := _devices(rows[0])) != devices:
        job.show(f"{job.folder}: began on {former}; other devices round in other ways, so results may differ")


def _row_of_start(job: Job, state: State) -> Row:
    # Where all z0 are 0 there is nothing to compare with the task's gradient, and the program takes seconds to compile:
    # the norm of the chaos term, 0, then stands alone, here and in result.json.
    norms = job.run.gradient_norms(state, job.first_batch) if any(job.run.config.chaos.z0) else {"chaos": 0.0}
    of_start = {"kind": "start", "step": 0, "seconds": 0.0, "gradient_norms": jax.tree.map(float, norms)}
    return of_start | _hardware_row()


@contextlib.contextmanager
def _last_good_checkpoint_named(store: checkpoint.Checkpoints, log: Log) -> Iterator[None]:
    try:
        yield
    except Diverged as error:
        newest = store.newest_step(before=log.failing_since)
        good = "no checkpoint yet" if newest is None else f"the last good checkpoint is of step {newest}"
        raise Diverged(f"diverged: {error}; {good}. Try a smaller optimizer.lr or chaos.z0") from None


def _hardware_row() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "peak_operations": hardware.peak_flops(),
    }


def _devices(hardware_row: dict[str, Any]) -> str:
    return f"{hardware_row['devices']} x {hardware_row['device']}"
