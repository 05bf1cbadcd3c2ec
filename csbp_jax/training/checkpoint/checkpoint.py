"""Checkpoints of a run: arrays by Orbax, which only this module uses, and a manifest that detects damage."""

import contextlib
import errno
import logging
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
from csbp_jax.runtime import files, lost_errors, multihost
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training.checkpoint import layout, manifest
from csbp_jax.training.checkpoint.location import RUN_FILES, absolute
from csbp_jax.training.run_json import RESTART, differences

PyTree = Any
"""A nested structure of arrays, as JAX defines it."""

Identity = dict[str, Any]
"""What tells a run from others, as ``run_json.identity`` returns it."""

MAX_FAILURES = 3
"""Number of failed saves in a row that ends a run."""
SHARED_WITHIN = 90
"""Seconds within which all processes see a new file of a shared directory: by default, NFS looks again after 60."""

# Orbax logs its steps, its defaults and whole tracebacks; errors are raised as well.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)
lost_errors.ignore_those_of_orbax()


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
      CheckpointError: the directory cannot be opened, not all processes see it, another was put in its place, or the
        last save failed.
    """
    folder = epath.Path(folder)
    _open(folder)
    # If a directory cannot be created, save itself then raises, without a thread that waits for it for minutes.
    options = ocp.AsyncOptions(create_directories_asynchronously=False)
    with contextlib.ExitStack() as stack:
        orbax = ocp.StandardCheckpointer(async_options=options)
        stack.enter_context(files.closed_after(orbax.close))
        held = layout.Held(folder)
        stack.callback(held.close)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        checkpoints = Checkpoints(folder, held, orbax, pool, report, run_files, identity or {}, check)
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
        held: layout.Held,
        orbax: ocp.StandardCheckpointer,
        pool: ThreadPoolExecutor,
        report: Callable[[str], None],
        run_files: Sequence[pathlib.Path],
        identity: Identity,
        check: Callable[[], None],
    ):
        self.identity, self._held, self._check_run = identity, held, check
        self.folder, self._orbax, self._pool, self._report, self._run_files = folder, orbax, pool, report, run_files
        self._sealing: Future[None] | None = None  # of the last save, in the background
        self._failures: list[CheckpointError] = []  # of the last saves, in a row
        self._damaged: Damaged = {}

    def save(self, step: int, tree: PyTree, before: Callable[[], None] = lambda: None) -> None:
        """Copy a tree and save it in the background; it replaces a checkpoint of the same step.

        A failed save is reported, by this call or the next, and older checkpoints stay.

        Args:
          step: the step of the run.
          tree: the arrays to save.
          before: called first; if it fails, the save has failed.

        Raises:
          CheckpointError: the third save in a row failed, another directory is in the place of that of the
            checkpoints, or ``check`` raised it.
        """
        multihost.broadcast_from_host0(self._check)
        self._finish_previous()
        problem = f"{self.folder}: the checkpoint of step {step} cannot be written"
        try:
            path = self._begin(step, before, problem)
        except CheckpointError as error:  # in all processes
            self._record_failure(error)
            return
        try:
            with _checkpoint_errors(problem):
                self._orbax.save(absolute(path), tree, force=True)  # copies the arrays, and writes in the background
        except CheckpointError as error:
            if jax.process_count() > 1:  # the other processes do not know of it
                raise
            self._record_failure(error)
            return
        metadata = {"step": step, "arrays": _signature(tree), "run": self.identity}
        self._sealing = self._pool.submit(self._seal, path, metadata, problem)

    def _begin(self, step: int, before: Callable[[], None], problem: str) -> epath.Path:
        """Call ``before`` in all processes, and return the path that they write the checkpoint of a step to.

        Raises:
          CheckpointError: it failed in one of them; all raise it.
        """

        def check() -> None:
            with _checkpoint_errors(problem):
                before()

        def create() -> str:
            with _checkpoint_errors(problem):
                return self._new(step)

        multihost.all_succeed(check)
        return epath.Path(multihost.broadcast_from_host0(create))

    def _new(self, step: int) -> str:
        """Return the path to write a checkpoint to; a folder of the user's that has the name of its step stays."""
        self._held.create_again()
        path = layout.new(self.folder, step)
        for other in layout.foreign(self.folder, step):
            self._report(
                f"{other}: is not a checkpoint, as it has no intact {manifest.NAME}, and stays; that of step {step} is "
                f"saved as {path.name.removesuffix('.part')}"
            )
        return str(path)

    def failed(self) -> bool:
        """Wait for the newest save and return whether it failed; report and raise as ``save`` does."""
        self._finish_previous()
        return bool(self._failures)

    def wait(self) -> None:
        """Wait until all processes have finished the last save.

        Raises:
          CheckpointError: it failed.
        """
        if self._sealing is not None:
            multihost.all_succeed(self.finish_local)
        elif self._failures:
            raise self._failures[-1]

    def finish_local(self) -> None:
        """Wait until this process has finished its share of the last save.

        Raises:
          CheckpointError: it failed.
        """
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def newest_step(self, before: int | None = None) -> int | None:
        """Wait for the last save and return the step of the newest checkpoint, or of the newest before a step."""
        self._finish_previous()
        steps = multihost.broadcast_from_host0(lambda: list(layout.complete(self.folder)))
        return max((step for step in steps if before is None or step < before), default=None)

    def _finish_previous(self) -> None:
        """Wait until all processes have finished the last save, and report its failure.

        Raises:
          CheckpointError: it is the third failure in a row.
        """
        if self._sealing is None:
            return
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
                self._held.check()
                layout.remove_incomplete(self.folder)  # frees the space of the failed save
        if len(self._failures) == MAX_FAILURES:
            raise error
        self._report(f"{error}; the run ends with an error if {MAX_FAILURES} saves in a row fail, or the last one does")

    def _check(self) -> None:
        self._check_run()
        self._held.check()

    def _seal(self, path: epath.Path, metadata: dict[str, Any], problem: str) -> None:
        """Wait for the arrays of a checkpoint, and complete it: the copies of the run's files, manifest and name.

        Raises:
          CheckpointError: it cannot be written.
        """
        with _checkpoint_errors(problem):
            self._orbax.wait_until_finished()  # in all processes
            if not multihost.is_host0():
                return
            self._check()
            for file in self._run_files:
                (path / RUN_FILES).mkdir(parents=True, exist_ok=True)
                (path / RUN_FILES / file.name).write_bytes(file.read_bytes())
            manifest.write_manifest(path, metadata)
            layout.commit(path)

    def restore(self, like: PyTree) -> PyTree | None:
        """Restore the newest intact checkpoint, as shapes, dtypes and shardings of ``like``; None if there is none.

        Once it is restored, the copies of the run's files are written back. Damaged checkpoints stay where they are
        until :meth:`set_damaged_aside`.

        Raises:
          CheckpointError: all are damaged, the structure differs from ``like``, or it is a checkpoint of another run.
            Nothing is changed.
        """
        newest = multihost.broadcast_from_host0(self._newest_intact)
        if newest is None:
            return None
        with _read(epath.Path(newest), like, self.identity), ocp.StandardCheckpointer() as orbax:
            tree = orbax.restore(absolute(epath.Path(newest)), like)
        multihost.broadcast_from_host0(lambda: self._restore_run_files(epath.Path(newest) / RUN_FILES))
        return tree

    def set_damaged_aside(self) -> None:
        """Rename, and report, the damaged checkpoints that are newer than the one that was restored."""

        def rename() -> None:
            for path, problem in self._damaged.items():
                self._report(f"{path}: {problem}; renamed to {layout.quarantine(path).relative_to(self.folder)}")
            self._damaged = {}

        multihost.broadcast_from_host0(rename)

    def _restore_run_files(self, copies: epath.Path) -> None:
        for file in self._run_files:
            edited = file.name == "config.json" and file.exists()  # perhaps; its copy is of the save
            if (copies / file.name).exists() and not edited:
                files.write_bytes(file, (copies / file.name).read_bytes())

    def _newest_intact(self) -> str | None:
        newest, self._damaged = newest_intact(self.folder)
        if self._damaged and newest is None:
            raise none_intact(self.folder, self._damaged)
        return None if newest is None else str(newest)


Damaged = dict[epath.Path, str]
"""What is wrong with checkpoints, the newest first."""


def newest_intact(folder: epath.PathLike) -> tuple[epath.Path | None, Damaged]:
    """Return the newest intact checkpoint, and the damage of each newer one.

    Raises:
      CheckpointError: the directory cannot be opened.
    """
    damaged: Damaged = {}
    with _checkpoint_errors(f"{folder}: cannot be opened"):
        for path in reversed(layout.complete(folder).values()):
            if not (problem := manifest.verify(path)):
                return path, damaged
            damaged[path] = problem
    return None, damaged


def listed(damaged: Damaged) -> str:
    """Return the damage of checkpoints as text."""
    return "; ".join(f"{path.name}: {problem}" for path, problem in damaged.items())


def none_intact(folder: epath.PathLike, damaged: Damaged, remedy: str = RESTART) -> CheckpointError:
    """Return the error that training cannot go on from a checkpoint."""
    return CheckpointError(f"{folder}: no checkpoint is intact ({listed(damaged) or 'all are missing'}); {remedy}")


def restore_newest(folder: epath.PathLike, like: PyTree, identity: Identity | None = None) -> PyTree | None:
    """Restore a part of the newest checkpoint without changing any file; None if there is none.

    Args:
      folder: of the checkpoints.
      like: the part, as shapes, dtypes and shardings.
      identity: of the run.

    Raises:
      CheckpointError: it is damaged or of another run, or its structure differs from ``like``.
    """
    newest, damaged = newest_intact(folder)
    if newest is None and damaged:
        raise none_intact(folder, damaged, "restore one from a copy, or train again")
    if newest is None:
        return None
    if damaged:
        raise CheckpointError(
            f"{folder}: the newest checkpoint is damaged ({listed(damaged)}); repeat the command that trained the "
            f"run, which then goes on from step {newest.name.partition('.')[0]}"
        )
    with _read(newest, like, identity or {}, part=True), ocp.PyTreeCheckpointer() as orbax:
        arguments = ocp.checkpoint_utils.construct_restore_args(like)
        return orbax.restore(absolute(newest), args=ocp.args.PyTreeRestore(like, arguments, partial_restore=True))


@contextlib.contextmanager
def _read(folder: epath.Path, like: PyTree, identity: Identity, part: bool = False) -> Iterator[None]:
    """Check that an intact checkpoint is of the run, and holds what is to be read of it: all, or a part.

    Raises:
      CheckpointError: it is of another run, holds other arrays, or cannot be read within the block.
    """
    with _checkpoint_errors(f"{folder}: this checkpoint cannot be read"):
        metadata = manifest.metadata(folder)
        stored = metadata.get("run", {})
        # A field that only one of them has was added by a later version.
        common = stored.keys() & identity.keys()
        if other := differences({name: stored[name] for name in common}, {name: identity[name] for name in common}):
            raise CheckpointError(
                f"{folder}: is a checkpoint of another run; differing are {'; '.join(other[:3])}. Put the run's own in "
                "its place, or move it away"
            )
        arrays, expected = metadata["arrays"], _signature(like)
        # Orbax would silently cast to another dtype.
        if other := differences({name: arrays.get(name) for name in (expected if part else arrays)}, expected):
            remedy = "" if part else f", or {RESTART}"
            raise CheckpointError(
                f"{folder}: was written by another version of csbp_jax, or with other code of your own: it holds other "
                f"arrays ({'; '.join(other[:3])}); use the version that trained the run{remedy}"
            )
        yield


def _open(folder: epath.Path) -> None:
    """Create a directory, and check that all processes see what process 0 writes there.

    Otherwise each save would wait for ten minutes, and fail with a message that does not name the cause.
    """
    problem = f"{folder}: cannot be opened"

    def create() -> str:
        with _checkpoint_errors(problem):
            return layout.create(folder, f"shared-{uuid.uuid4().hex}")

    file = folder / multihost.broadcast_from_host0(create)

    def find() -> None:
        deadline = time.monotonic() + SHARED_WITHIN
        with _checkpoint_errors(problem):
            while not file.exists():
                if time.monotonic() >= deadline:
                    raise CheckpointError(
                        f"{folder}: not all processes see what process 0 writes there; it must be on a disk that they "
                        "share (--runs, --checkpoints), or in a bucket (--checkpoints; docs/running.md)"
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
        cause = str(error).strip().partition("\n")[0].partition(" See full TensorStore details")[0][:300]
        if os.strerror(errno.ENOSPC) in str(error):
            cause = "the disk is full; make room"
        raise CheckpointError(f"{problem} ({cause or type(error).__name__})") from error
