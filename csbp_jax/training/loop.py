"""The training of a config: from its data and its own parts to a run folder and a test accuracy."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from csbp_jax import configs, data
from csbp_jax.config import Config, ConfigError, to_json
from csbp_jax.reporting import terminal
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime import multihost, profiling
from csbp_jax.runtime.preemption import Stop, current
from csbp_jax.training import build, continuation, run_dir, run_json, session
from csbp_jax.training.callbacks import Callback, Callbacks, Figures
from csbp_jax.training.checkpoint import location
from csbp_jax.training.compiled import compile_run
from csbp_jax.training.continuation import Decision
from csbp_jax.training.plugins import Own, plugin_run_name
from csbp_jax.training.session import Job


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
    callbacks: Sequence[Callback] = (),
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
      callbacks: called after each epoch, ``callback(trainer, row)``
        (:class:`csbp_jax.training.callbacks.Callback`), such as :class:`csbp_jax.evaluation.trackers.Tracker`.
      fields: other values of the config, as of :meth:`csbp_jax.config.Config.replace`.

    Raises:
      ConfigError: there is no such preset or field, a value is impossible, or the folder holds another config or a run
        on other data.
      Diverged: loss or gradient was not finite for three steps in a row, or the task loss was too large
        (``config.loss_limit``).
      Stopped: a stop was requested, and all progress is saved; the same call resumes.
      TypeError: ``config`` is neither a config nor a name, or a callback is none.
      ValueError: two callbacks have one name, or one has no proper name.
    """
    if not isinstance(config, Config | str):
        raise TypeError(f"train: config is {config!r}, but must be a Config or the name of a preset, such as 'digits'")
    if "runs" in fields:  # the option of the command
        raise ConfigError("runs: there is no such field; the directory of all runs is root, as in train(..., root=...)")
    if name is not None:
        run_dir.check_name(name)
    requested = (configs.load(config) if isinstance(config, str) else config).replace(**fields)
    stop = current() if stop is None else stop
    console = (console or make_console()) if multihost.is_host0() else Console(quiet=True)
    make_job, config, fingerprint, classes = _prepare(requested, own, data_dir, profile, checkpoints, console)
    name = plugin_run_name(config, own) if name is None else name
    called = Callbacks([*callbacks, Figures()], config, own)
    with contextlib.ExitStack() as stack:
        opened = _opened(config, fingerprint, classes, own, pathlib.Path(root), name, fresh, checkpoints, console)
        folder, of_folder, decision = stack.enter_context(opened)
        stack.callback(called.close)
        show = functools.partial(console.print, soft_wrap=True)
        go_on = functools.partial(continuation.carry_out, decision, folder, config, show)
        job = make_job(folder=folder, **of_folder, go_on=go_on, stop=stop, console=console, callbacks=called)
        trainer = job.trainer()
        if decision.result is None:
            with stop.deferred():
                trained = session.train(job, trainer)
            # All is saved, and finishing can be repeated: from here on a stop ends it at once.
            stop.raise_if_requested()
            result = session.finish(job, trainer, trained)
        else:
            continuation.say_finished(decision, folder, config, show)
            result = decision.result
            called.end(trainer, result)
        options = (" --trust" if own.code else None) if own.parts else ""
        terminal.print_result(console, folder, result, of_folder["store"], options)
        return result


@contextlib.contextmanager
def _opened(
    config: Config,
    fingerprint: str,
    classes: list[str],
    own: Own,
    root: pathlib.Path,
    name: str,
    fresh: bool,
    checkpoints: str | None,
    console: Console,
) -> Iterator[tuple[pathlib.Path, dict[str, Any], Decision]]:
    """Open the folder of a run on process 0; yield it on all, with what a job needs of it, and whether it goes on."""
    options = [to_json(config), name, str(root), own.metadata().get("sha256"), checkpoints]
    multihost.check_equal("options of train", [*options, run_dir.fingerprint_digest(fingerprint)])
    with contextlib.ExitStack() as stack:

        def open_run() -> dict[str, Any]:
            store = location.checkpoint_dir(root / name, checkpoints, fresh)
            elsewhere = location.config_beside(store) if checkpoints else None
            if fresh and elsewhere:
                raise ConfigError(f"--fresh: {store} has checkpoints; move them away, or give another NAME (--name)")
            begun: dict[str, Any] = {"data": fingerprint, "classes": classes, "own": own, "elsewhere": elsewhere}
            opened = run_dir.open_run(root, to_json(config), name, fresh, console, **begun, editable=run_json.EDITABLE)
            folder = stack.enter_context(opened)
            return {
                "folder": str(folder),
                "store": str(store),
                "identity": run_json.identity(run_json.read_config(folder)),
                "decision": dataclasses.asdict(continuation.decide(folder, str(store), config)),
            }

        of_run = multihost.broadcast_from_host0(open_run)
        folder = pathlib.Path(of_run["folder"])
        in_place = run_dir.in_place(folder) if multihost.is_host0() else None
        check_in_place = stack.enter_context(in_place or contextlib.nullcontext(lambda: None))
        of_folder = {"store": of_run["store"], "identity": of_run["identity"], "check_in_place": check_in_place}
        yield folder, of_folder, Decision(**of_run["decision"])


def _prepare(
    config: Config, own: Own, data_dir: str | pathlib.Path, profile: str, checkpoints: str | None, console: Console
) -> tuple[Callable[..., Job], Config, str, list[str]]:
    """Return the maker of a job, the resolved config, the fingerprint of the data and the names of their classes."""

    def parse_options() -> range:
        if checkpoints is not None:
            location.parse(checkpoints)
        return profiling.parse_trace_steps(profile) if profile else range(0)

    # One host alone may lack gcsfs.
    steps_traced = multihost.all_succeed(parse_options)
    # Process 0 first, for caches of data that many processes would make at once.
    resolved, splits, fingerprint, plan = multihost.host0_first(lambda: build.load(config, own, data_dir))
    if jax.default_backend() == "cpu" and (small := configs.small_preset(resolved.data.name, resolved.model.name)):
        # Before the minutes that compiling takes there.
        text = f"{resolved.model.name} is a network of the literature, meant for accelerators; on a CPU, "
        console.print(f"{text}DATASET={small} trains a small one", soft_wrap=True)
    steps = data.steps_per_epoch(splits["train"], resolved.batch_size, resolved.data.buckets)
    run = compile_run(resolved, splits["train"], steps, own)
    # Traced before anything is written, so that a tap that does not exist leaves no folder behind.
    metrics = multihost.all_succeed(run.trace)
    with contextlib.closing(run.batches(resolved.seed, readers=data.Readers())) as batches:
        # Each process reads rows of its own, which it alone may fail to read.
        first_batch = run.shard_batch(multihost.all_succeed(lambda: next(batches)))
    make_job = functools.partial(Job, run, splits, plan, first_batch, metrics, steps_traced)
    return make_job, resolved, fingerprint, build.class_names(resolved, splits, data_dir)
