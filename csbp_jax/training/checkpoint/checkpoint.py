"""Checkpoints of a run: arrays by Orbax, which only this module uses, and a manifest that detects damage."""

import contextlib
import errno
import logging
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from csbp_jax.config import CheckpointError, ConfigError, Diverged
from csbp_jax.runtime import files, lost_errors, multihost
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training.checkpoint import arrays, layout, manifest
from csbp_jax.training.checkpoint.arrays import PyTree
from csbp_jax.training.checkpoint.location import RUN_FILES, absolute
from csbp_jax.training.run_json import RESTART, differences

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
        self._restored: epath.Path | None = None

    def save(self, step: int, tree: PyTree, before: Callable[[], None] = lambda: None) -> None:
        """Copy a tree and save it in the background; it replaces a checkpoint of the same step.

        A failed save is reported, by this call or the next, and older checkpoints stay.

        Args:
          step: the step of the run.
          tree: the arrays to save. One without elements is in the manifest alone, as Orbax cannot write it.
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
                # Copies the arrays, and writes in the background.
                self._orbax.save(absolute(path), arrays.without_empty(tree), force=True)
        except CheckpointError as error:
            if jax.process_count() > 1:  # the other processes do not know of it
                raise
            self._record_failure(error)
            return
        forms = arrays.forms(tree)
        metadata = {"step": step, "format": arrays.FORMAT, "arrays": forms, "run": self.identity}
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

    def restore(self, like: PyTree, optional: Collection[str] = (), as_stored: Collection[str] = ()) -> PyTree | None:
        """Restore the newest intact checkpoint by the names of its arrays; None if there is none.

        No file changes: damaged checkpoints stay where they are until :meth:`set_damaged_aside`, and files of the run
        until :meth:`restore_run_files`.

        Args:
          like: shapes, dtypes and shardings of the arrays. The checkpoint must hold these and no others, but for the
            parts below. With parts, it is a dictionary of them.
          optional: names of parts, nested dictionaries, of which the checkpoint may lack arrays or have others. What it
            lacks, or has with another dtype or shape, is missing in the result.
          as_stored: names of parts that are restored as whatever the checkpoint holds of them, dictionaries of NumPy
            arrays; empty if it holds nothing.

        Raises:
          CheckpointError: all are damaged, the newest is of a later format or of another run, or it holds other arrays
            than ``like``. Nothing is changed.
        """
        self._restored = None
        newest = multihost.broadcast_from_host0(self._newest_intact)
        if newest is None:
            return None
        self._restored = epath.Path(newest)
        with _read(self._restored, self.identity) as metadata:
            stored = metadata["arrays"]
            exact = {name: like[name] for name in like if name not in optional} if optional else like
            _check_arrays(self._restored, metadata, arrays.without_parts(stored, [*optional, *as_stored]), exact)
            wanted = exact
            if optional or as_stored:
                wanted = exact | {name: arrays.held(stored, name, like[name]) for name in optional}
                wanted |= {name: arrays.part(stored, name) for name in as_stored}
            return _arrays_of(self._restored, wanted)

    def restore_run_files(self) -> None:
        """Write the copies of the run's files back that the restored checkpoint holds; called in process 0."""
        if self._restored is None:
            return
        for file in self._run_files:
            copy = self._restored / RUN_FILES / file.name
            edited = file.name == "config.json" and file.exists()  # perhaps; its copy is of the save
            if copy.exists() and not edited:
                files.write_bytes(file, copy.read_bytes())

    def set_damaged_aside(self) -> None:
        """Rename, and report, the damaged checkpoints that are newer than the one that was restored."""

        def rename() -> None:
            for path, problem in self._damaged.items():
                self._report(f"{path}: {problem}; renamed to {layout.quarantine(path).relative_to(self.folder)}")
            self._damaged = {}

        multihost.broadcast_from_host0(rename)

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
      CheckpointError: it is damaged, of a later format or of another run, or lacks arrays of ``like``.
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
    with _read(newest, identity or {}) as metadata:
        wanted = arrays.forms(like)
        stored = {name: form for name, form in metadata["arrays"].items() if name in wanted}
        _check_arrays(newest, metadata, stored, like, remedy="")
        return _arrays_of(newest, like)


@contextlib.contextmanager
def _read(folder: epath.Path, identity: Identity) -> Iterator[dict[str, Any]]:
    """Check that an intact checkpoint is of a known format and of the run, and yield what its manifest is about.

    Raises:
      CheckpointError: it is not, or cannot be read within the block.
    """
    with _checkpoint_errors(f"{folder}: this checkpoint cannot be read"):
        metadata = manifest.metadata(folder)
        if (stored_format := _format(metadata)) > arrays.FORMAT:
            raise CheckpointError(
                f"{folder}: its format is {stored_format}, and this version of csbp_jax reads those up to "
                f"{arrays.FORMAT}; use the version that trained the run"
            )
        stored = metadata.get("run", {})
        # A field that only one of them has was added by a later version.
        common = stored.keys() & identity.keys()
        if other := differences({name: stored[name] for name in common}, {name: identity[name] for name in common}):
            raise CheckpointError(
                f"{folder}: is a checkpoint of another run; differing are {'; '.join(other[:3])}. Put the run's own in "
                "its place, or move it away"
            )
        yield metadata


def _format(metadata: dict[str, Any]) -> int:
    """Return the format of a checkpoint; those that name none are of the first."""
    return metadata.get("format", 1)


def _check_arrays(
    folder: epath.Path, metadata: dict[str, Any], stored: dict[str, str], like: PyTree, remedy: str = f", or {RESTART}"
) -> None:
    """Check that a checkpoint holds the arrays of ``like`` and no others: Orbax would cast to another dtype.

    Args:
      folder: the checkpoint.
      metadata: what its manifest is about.
      stored: the forms of those of its arrays that are compared.
      like: the arrays that are expected.
      remedy: what else than another version helps.

    Raises:
      CheckpointError: it does not.
    """
    if other := differences(stored, arrays.forms(like)):
        raise CheckpointError(
            f"{folder}: was written by another version of csbp_jax (format {_format(metadata)}), or with other code of "
            f"your own: it holds other arrays ({'; '.join(other[:3])}); use the version that trained the run{remedy}"
        )


def _arrays_of(folder: epath.Path, like: PyTree) -> PyTree:
    """Read the arrays of ``like``, with its shardings, which a checkpoint holds perhaps among others."""
    read = arrays.without_empty(like)
    with ocp.PyTreeCheckpointer() as orbax:
        arguments = ocp.args.PyTreeRestore(
            read, ocp.checkpoint_utils.construct_restore_args(read), partial_restore=True
        )
        restored = orbax.restore(absolute(folder), args=arguments)
    return arrays.with_empty_of(like, restored)


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
