"""Checkpoints of a run: arrays by Orbax, which only this module uses, and a manifest that detects damage."""

import contextlib
import errno
import logging
import math
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from csbp_jax.config import CheckpointError, ConfigError, Diverged
from csbp_jax.runtime import files, multihost
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training.checkpoint import manifest
from csbp_jax.training.checkpoint.location import RUN_FILES, absolute, layout, steps

PyTree = Any
"""A nested structure of arrays, as JAX defines it."""

Identity = dict[str, Any]
"""What tells a run from others, as ``run_json.identity`` returns it."""

KEEP = 2
"""Number of checkpoints that are kept, the newest ones."""
MAX_FAILURES = 3
"""Number of failed saves in a row that ends a run."""
SHARED_WITHIN = 90
"""Seconds within which all processes see a new file of a shared directory: by default, NFS looks again after 60."""

# Orbax logs its steps, its defaults and whole tracebacks; errors are raised as well.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def open_folder(
    folder: epath.PathLike,
    report: Callable[[str], None] = print,
    run_files: Sequence[pathlib.Path] = (),
    identity: Identity | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator["Checkpoints"]:
    """Open a directory of checkpoints; leaving waits for the last save.

    Args:
      folder: a path, or an address ``gs://...``; created if it is missing.
      report: called with one line per damaged checkpoint, and per failed save that does not end the run.
      run_files: files of the run. Each checkpoint holds copies of them, and a restore writes them back,
        but for a ``config.json`` that is there.
      identity: what tells the run from others. Each checkpoint holds it, and one of another run is refused.
      check: called in process 0 before a save, and before it is complete. It may raise a CheckpointError, which ends
        the run.

    Raises:
      CheckpointError: the directory cannot be opened, not all processes see it, or the last save failed.
    """
    folder = epath.Path(folder)
    multihost.broadcast_from_host0(lambda: _open(folder))
    if jax.process_count() > 1:
        _check_shared(folder)
    # If a directory cannot be created, save itself then raises, without a thread that waits for it for minutes.
    options = ocp.AsyncOptions(create_directories_asynchronously=False)
    with contextlib.ExitStack() as stack:
        orbax = ocp.StandardCheckpointer(async_options=options)
        stack.enter_context(files.closed_after(orbax.close))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        checkpoints = Checkpoints(folder, orbax, pool, report, run_files, identity or {}, check)
        try:
            yield checkpoints
            checkpoints.wait()
        except Stopped:  # promises that everything is saved
            checkpoints.wait()
            raise
        except BaseException as error:
            if jax.process_count() == 1 or isinstance(error, Diverged):
                with contextlib.suppress(Exception):  # the first error matters
                    checkpoints.finish_local()
            else:
                stack.pop_all()  # a lost process never finishes its share of a save, so do not wait for it
            raise


class Checkpoints:
    """The checkpoints in a directory; see :func:`open_folder`."""

    def __init__(
        self,
        folder: epath.Path,
        orbax: ocp.StandardCheckpointer,
        pool: ThreadPoolExecutor,
        report: Callable[[str], None],
        run_files: Sequence[pathlib.Path],
        identity: Identity,
        check: Callable[[], None],
    ):
        self.identity, self._check = identity, check
        self.folder, self._orbax, self._pool, self._report, self._run_files = folder, orbax, pool, report, run_files
        self._layout = layout(folder)
        self._pending: Future[None] | None = None
        self._problem = ""
        self._failures: list[CheckpointError] = []  # in a row, up to now

    def save(self, step: int, tree: PyTree, before: Callable[[], None] = lambda: None) -> None:
        """Copy a tree and save it in the background; it replaces a checkpoint of the same step.

        A failed save is reported, by this call or the next, and older checkpoints stay.

        Args:
          step: the step of the run.
          tree: the arrays to save.
          before: called first; if it fails, the save has failed.

        Raises:
          CheckpointError: the third save in a row failed, or ``check`` raised it.
        """
        multihost.broadcast_from_host0(self._check)
        self._await_pending()
        self._problem = f"{self.folder}: the checkpoint of step {step} cannot be written"

        def prepare() -> None:
            with _checkpoint_errors(self._problem):
                before()

        def new_path() -> str:
            with _checkpoint_errors(self._problem):
                return str(self._layout.incomplete(self.folder, step))

        try:
            multihost.all_succeed(prepare)
            path = epath.Path(multihost.broadcast_from_host0(new_path))
        except CheckpointError as error:
            self._record_failure(error)
            return
        try:
            with _checkpoint_errors(self._problem):
                self._orbax.save(absolute(path), tree, force=True)
        except CheckpointError as error:
            if jax.process_count() > 1:  # the other processes do not know of it
                raise
            self._record_failure(error)
            return
        metadata = {"step": step, "arrays": _signature(tree), "run": self.identity}
        self._pending = self._pool.submit(self._commit, step, path, metadata)

    def failed(self) -> bool:
        """Wait for the newest save and return whether it failed; report and raise as ``save`` does."""
        self._await_pending()
        return bool(self._failures)

    def wait(self) -> None:
        """Wait until all processes have finished the last save.

        Raises:
          CheckpointError: it failed.
        """
        if self._pending is not None:
            multihost.all_succeed(self.finish_local)
        elif self._failures:
            raise self._failures[-1]

    def finish_local(self) -> None:
        """Wait until this process has finished its share of the last save.

        Raises:
          CheckpointError: it failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with _checkpoint_errors(self._problem):
                pending.result()

    def newest_step(self, before: int | None = None) -> int | None:
        """Wait for the last save and return the step of the newest checkpoint, or of the newest before a step."""
        self._await_pending()
        end = math.inf if before is None else before
        return multihost.broadcast_from_host0(lambda: max((s for s in steps(self.folder) if s < end), default=None))

    def _await_pending(self) -> None:
        if self._pending is not None:
            try:
                multihost.all_succeed(self.finish_local)
            except CheckpointError as error:
                self._record_failure(error)
            else:
                self._failures = []

    def _record_failure(self, error: CheckpointError) -> None:
        self._failures.append(error)
        if multihost.is_host0():
            with contextlib.suppress(Exception):  # gcsfs raises many kinds
                self._layout.remove_incomplete(self.folder)  # frees the space of the failed save
        if len(self._failures) == MAX_FAILURES:
            raise error
        self._report(f"{error}; the run ends with an error if {MAX_FAILURES} saves in a row fail, or the last one does")

    def _commit(self, step: int, path: epath.Path, metadata: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()  # in all processes
        if not multihost.is_host0():
            return
        self._check()
        for file in self._run_files:
            (path / RUN_FILES).mkdir(parents=True, exist_ok=True)
            (path / RUN_FILES / file.name).write_bytes(file.read_bytes())
        manifest.write_manifest(path, metadata)
        self._layout.commit(self.folder, step)
        for old in steps(self.folder)[:-KEEP]:
            self._layout.delete(self.folder, old)

    def restore(self, like: PyTree) -> PyTree | None:
        """Restore the newest intact checkpoint, as shapes, dtypes and shardings of ``like``; None if there is none.

        Damaged checkpoints are renamed and reported.

        Raises:
          CheckpointError: all are damaged (and are not renamed), the structure differs from ``like``, or it is a
            checkpoint of another run.
        """
        newest = multihost.broadcast_from_host0(self._newest_intact)
        if newest is None:
            return None
        tree = read(epath.Path(newest), like, self.identity)
        multihost.broadcast_from_host0(lambda: self._restore_run_files(epath.Path(newest) / RUN_FILES))
        return tree

    def _restore_run_files(self, copies: epath.Path) -> None:
        for file in self._run_files:
            edited = file.name == "config.json" and file.exists()  # perhaps; its copy is of the save
            if (copies / file.name).exists() and not edited:
                files.write_bytes(file, (copies / file.name).read_bytes())

    def _newest_intact(self) -> str | None:
        newest, problems = _newest_intact(self.folder)
        if problems and newest is None:
            raise _none_intact(self.folder, problems)
        for step, problem in problems.items():
            path = self._layout.complete(self.folder, step)
            renamed = self._layout.quarantine(self.folder, step)
            self._report(f"{path}: {problem}; renamed to {renamed.relative_to(self.folder)}")
        return None if newest is None else str(newest)


def _newest_intact(folder: epath.Path) -> tuple[epath.Path | None, dict[int, str]]:
    """Return the newest intact checkpoint, and the damage of each newer one by its step."""
    problems: dict[int, str] = {}
    for step in reversed(steps(folder) if folder.is_dir() else []):
        path = layout(folder).complete(folder, step)
        problem = manifest.verify(path)
        if problem is None:
            return path, problems
        problems[step] = problem
    return None, problems


def _listed(problems: dict[int, str]) -> str:
    return "; ".join(f"{step}: {problem}" for step, problem in problems.items())


def damaged_before_intact(folder: epath.PathLike) -> str:
    """Describe the damage of the newest checkpoints if an older one is intact; empty otherwise.

    Raises:
      CheckpointError: the directory cannot be opened.
    """
    with _checkpoint_errors(f"{folder}: cannot be opened"):
        newest, problems = _newest_intact(epath.Path(folder))
    return "" if newest is None else _listed(problems)


def check_intact(folder: epath.PathLike) -> None:
    """Check that training can go on from a checkpoint.

    Raises:
      CheckpointError: none is intact, or there is none.
    """
    newest, problems = _newest_intact(epath.Path(folder))
    if newest is None:
        raise _none_intact(folder, problems)


def _none_intact(folder: epath.PathLike, problems: dict[int, str]) -> CheckpointError:
    return CheckpointError(
        f"{folder}: no checkpoint is intact ({_listed(problems) or 'all are missing'}); start from scratch with "
        "FRESH=1 (--fresh)"
    )


def restore_newest(folder: epath.PathLike, like: PyTree, identity: Identity | None = None) -> PyTree | None:
    """Restore the newest checkpoint without changing any file; None if there is none.

    Raises:
      CheckpointError: it is damaged or of another run, or its structure differs from ``like``.
    """
    newest, problems = _newest_intact(epath.Path(folder))
    if newest is None and problems:
        raise CheckpointError(
            f"{folder}: no checkpoint is intact ({_listed(problems)}); restore one from a copy, or train again"
        )
    if newest is None:
        return None
    if problems:
        raise CheckpointError(
            f"{folder}: the newest checkpoint is damaged ({_listed(problems)}); repeat the command that trained the "
            f"run, which then goes on from step {newest.name.partition('.')[0]}"
        )
    return read(newest, like, identity or {})


def read(folder: epath.Path, like: PyTree, identity: Identity) -> PyTree:
    """Read an intact checkpoint, with the shapes, dtypes and shardings of ``like``.

    Raises:
      CheckpointError: its structure differs from ``like``, it is of another run, or it cannot be read.
    """
    with _checkpoint_errors(f"{folder}: this checkpoint cannot be read"):
        metadata = manifest.metadata(folder)
        _check_identity(folder, metadata.get("run", {}), identity)
        stored, expected = metadata["arrays"], _signature(like)
        if stored != expected:
            # Orbax would silently cast to another dtype.
            names = [name for name in sorted({*stored, *expected}) if stored.get(name) != expected.get(name)]
            listed = "; ".join(f"{name} ({stored.get(name)} there, {expected.get(name)} here)" for name in names[:3])
            raise ValueError(f"it holds other arrays: {listed}")
        with ocp.StandardCheckpointer() as orbax:
            return orbax.restore(absolute(folder), like)


def _check_identity(folder: epath.Path, stored: Identity, expected: Identity) -> None:
    # A field that only one of them has was added by a later version.
    names = [name for name in sorted(stored.keys() & expected.keys()) if stored[name] != expected[name]]
    if names:
        listed = "; ".join(f"{name} ({stored[name]} there, {expected[name]} here)" for name in names[:3])
        raise CheckpointError(
            f"{folder}: is a checkpoint of another run; differing are {listed}. Put the run's own in its place, or "
            "move it away"
        )


def _open(folder: epath.Path) -> None:
    with _checkpoint_errors(f"{folder}: cannot be opened"):
        layout(folder).create(folder)
        layout(folder).remove_incomplete(folder)


def _check_shared(folder: epath.Path) -> None:
    # Otherwise each save waits for ten minutes, and fails with a message that does not name the cause.
    problem = f"{folder}: cannot be opened"

    def write() -> str:
        name = f"shared-{uuid.uuid4().hex}"
        with _checkpoint_errors(problem):
            (folder / name).write_bytes(b"")
        return name

    file = folder / multihost.broadcast_from_host0(write)

    def find() -> None:
        deadline = time.monotonic() + SHARED_WITHIN
        with _checkpoint_errors(problem):
            while not file.exists():
                if time.monotonic() >= deadline:
                    raise CheckpointError(
                        f"{folder}: not all processes see what process 0 writes there; it must be on a disk that they "
                        "share (--runs, --checkpoints), or in a bucket (--checkpoints; docs/scale.md)"
                    )
                time.sleep(0.25)

    shared = False
    try:
        multihost.all_succeed(find)
        shared = True
    finally:
        if multihost.is_host0():
            with contextlib.suppress(Exception):  # gcsfs raises many kinds
                file.unlink()
                if not shared:
                    os.rmdir(str(folder))  # if it is empty: so that another location can be given


def _signature(tree: PyTree) -> dict[str, str]:
    """Return dtype and shape of each leaf, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


@contextlib.contextmanager
def _checkpoint_errors(problem: str) -> Iterator[None]:
    """Turn any error into a CheckpointError of one line: Orbax and TensorStore raise many kinds, even Exception."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt | Stopped):  # Orbax takes a signal in a read for its failure
            raise error.__cause__ from None
        cause = str(error).strip().partition("\n")[0][:300]
        if os.strerror(errno.ENOSPC) in str(error):
            cause = "the disk is full; make room"
        raise CheckpointError(f"{problem} ({cause or type(error).__name__})") from error
