"""Checkpoints of a run: Orbax writes and reads the arrays, a manifest seals them. All use of Orbax is here."""

import contextlib
import errno
import logging
import os
import pathlib
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
from csbp_jax.training.checkpoint.location import BESIDE, absolute, names, steps

KEPT = 2
"""How many checkpoints stay, the newest ones."""
TRIES = 3
"""A run stops at so many failed saves in a row."""

# Orbax logs its steps, its defaults and whole tracebacks; what matters is raised as well.
for _chatty in ("absl", "asyncio"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def open_folder(
    folder: epath.PathLike, show: Callable[[str], None] = print, beside: Sequence[pathlib.Path] = ()
) -> Iterator["Checkpoints"]:
    """The checkpoints in ``folder``, a path or an address ``gs://...``. Leaving waits for the last save.

    Args:
      folder: made if it is missing.
      show: is told in a line each: checkpoints found damaged, and saves that failed while the run goes on.
      beside: files of the run, of which each checkpoint is to hold copies, so that a restore puts them back.

    Raises:
      CheckpointError: the folder cannot be opened, or the last save failed.
    """
    folder = epath.Path(folder)
    multihost.broadcast_from_host0(lambda: _open(folder))
    # Where a folder cannot be made, save says so, and leaves no thread that waits for it for minutes.
    options = ocp.AsyncOptions(create_directories_asynchronously=False)
    with contextlib.ExitStack() as opened:
        orbax = opened.enter_context(ocp.StandardCheckpointer(async_options=options))
        checkpoints = Checkpoints(folder, orbax, opened.enter_context(ThreadPoolExecutor(1)), show, beside)
        try:
            yield checkpoints
            checkpoints.wait()
        except Stopped:  # which promises that all is saved
            checkpoints.wait()
            raise
        except BaseException as error:
            if jax.process_count() == 1 or isinstance(error, Diverged):
                with contextlib.suppress(Exception):  # what went wrong first is what matters
                    checkpoints.end()
            else:
                opened.pop_all()  # a process that is lost never does its part of a save: there is no waiting for it
            raise


class Checkpoints:
    """Saves to and restores from a folder; see :func:`open_folder`."""

    def __init__(
        self,
        folder: epath.Path,
        orbax: ocp.StandardCheckpointer,
        pool: ThreadPoolExecutor,
        show: Callable,
        beside: Sequence[pathlib.Path],
    ):
        self.folder, self._orbax, self._pool, self._show, self._beside = folder, orbax, pool, show, beside
        self._names = names(folder)
        self._last: Future[None] | None = None
        self._what = ""
        self._faults: list[CheckpointError] = []  # of the newest saves, since one succeeded

    def save(self, step: int, tree: Any, before: Callable[[], None] = lambda: None) -> None:
        """Copies the tree and saves it in the background; one of the same step is replaced.

        A save that fails is told, here or by the next call, and what was saved before stays.

        Args:
          step: of the run.
          tree: what to save.
          before: what must be done first; where it fails, the save has failed.

        Raises:
          CheckpointError: the third save in a row failed.
        """
        self._settle()
        self._what = f"{self.folder}: the checkpoint of step {step} cannot be written"

        def prepare():
            with _told(self._what):
                before()

        def place():
            with _told(self._what):
                return str(self._names.part(self.folder, step))

        try:
            multihost.all_succeed(prepare)
            part = epath.Path(multihost.broadcast_from_host0(place))
        except CheckpointError as error:
            self._failed(error)
            return
        try:
            with _told(self._what):
                self._orbax.save(absolute(part), tree, force=True)
        except CheckpointError as error:
            if jax.process_count() > 1:  # the others know nothing of it
                raise
            self._failed(error)
            return
        self._last = self._pool.submit(self._commit, step, part, {"step": step, "arrays": _described(tree)})

    def failed(self) -> bool:
        """Whether the newest save, once it is done, has failed; as ``save`` tells and raises it."""
        self._settle()
        return bool(self._faults)

    def wait(self) -> None:
        """Until the last save is done, by all processes.

        Raises:
          CheckpointError: it failed.
        """
        if self._last is not None:
            multihost.all_succeed(self.end)
        elif self._faults:
            raise self._faults[-1]

    def end(self) -> None:
        """Until this process has done its part of the last save.

        Raises:
          CheckpointError: it failed.
        """
        last, self._last = self._last, None
        if last is not None:
            with _told(self._what):
                last.result()

    def newest_step(self) -> int | None:
        """Of which step the newest checkpoint is, the last save among them once it is done."""
        self._settle()
        return multihost.broadcast_from_host0(lambda: max(steps(self.folder), default=None))

    def _settle(self):
        if self._last is not None:
            try:
                multihost.all_succeed(self.end)
            except CheckpointError as error:
                self._failed(error)
            else:
                self._faults = []

    def _failed(self, error):
        self._faults.append(error)
        if multihost.is_host0():
            with contextlib.suppress(Exception):  # gcsfs raises many kinds
                self._names.remove_incomplete(self.folder)  # what it left takes room
        if len(self._faults) == TRIES:
            raise error
        self._show(f"{error}; the run ends with an error where {TRIES} in a row fail, or the last of all")

    def _commit(self, step, part, about):
        self._orbax.wait_until_finished()  # of all processes
        if not multihost.is_host0():
            return
        for file in self._beside:
            (part / BESIDE).mkdir(parents=True, exist_ok=True)
            (part / BESIDE / file.name).write_bytes(file.read_bytes())
        manifest.write_manifest(part, about)
        self._names.name(self.folder, step)
        for old in steps(self.folder)[:-KEPT]:
            self._names.delete(self.folder, old)

    def restore(self, like: Any) -> Any | None:
        """The newest whole checkpoint, in the shapes, dtypes and shardings of ``like``; None if there is none.

        Those found damaged are renamed, and told.

        Raises:
          CheckpointError: all are damaged (and stay as they are), or it is of another structure.
        """
        found = multihost.broadcast_from_host0(self._newest)
        if found is None:
            return None
        tree = read(epath.Path(found), like)
        multihost.broadcast_from_host0(lambda: self._put_back(epath.Path(found) / BESIDE))
        return tree

    def _put_back(self, copies):
        for file in self._beside:
            if (copies / file.name).exists():
                files.write_bytes(file, (copies / file.name).read_bytes())

    def _newest(self):
        """The newest whole checkpoint."""
        faults = {}
        for step in reversed(steps(self.folder)):
            faults[step] = manifest.verify(self._names.where(self.folder, step))
            if faults[step] is None:
                break
        else:
            if faults:
                told = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
                raise CheckpointError(
                    f"{self.folder}: no checkpoint is whole ({told}); start from scratch with FRESH=1 (--fresh)"
                )
            return None
        for damaged, fault in faults.items():
            if fault is not None:
                path = self._names.where(self.folder, damaged)
                aside = self._names.quarantine(self.folder, damaged)
                self._show(f"{path}: {fault}; set aside as {aside.relative_to(self.folder)}")
        return str(self._names.where(self.folder, step))


def restore_newest(folder: epath.PathLike, like: Any) -> Any | None:
    """The newest checkpoint, as ``restore`` gives it; None if there is none. Changes no file.

    Raises:
      CheckpointError: it is damaged, or of another structure.
    """
    folder = epath.Path(folder)
    there = steps(folder) if folder.is_dir() else []
    if not there:
        return None
    path = names(folder).where(folder, there[-1])
    fault = manifest.verify(path)
    if fault is not None:
        raise CheckpointError(f"{path}: {fault}; resume the run, which sets it aside and goes on from the one before")
    return read(path, like)


def read(folder: epath.Path, like: Any) -> Any:
    """A whole checkpoint, in the shapes, dtypes and shardings of ``like``.

    Raises:
      CheckpointError: it is of another structure, or cannot be read.
    """
    with _told(f"{folder}: this checkpoint cannot be read"):
        theirs, mine = manifest.metadata(folder)["arrays"], _described(like)
        if theirs != mine:
            # Orbax would cast to another dtype in silence.
            differing = [name for name in sorted({*theirs, *mine}) if theirs.get(name) != mine.get(name)]
            first = "; ".join(f"{name} ({theirs.get(name)} there, {mine.get(name)} here)" for name in differing[:3])
            raise ValueError(f"it holds other arrays: {first}")
        with ocp.StandardCheckpointer() as orbax:
            return orbax.restore(absolute(folder), like)


def _open(folder):
    with _told(f"{folder}: cannot be opened"):
        names(folder).make(folder)
        names(folder).remove_incomplete(folder)


def _described(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, (_, leaf) in zip(paths, leaves, strict=True)}


@contextlib.contextmanager
def _told(what):
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds, bare Exception among them
        cause = str(error).strip().partition("\n")[0][:300]
        if os.strerror(errno.ENOSPC) in str(error):
            cause = "the disk is full; make room"
        raise CheckpointError(f"{what} ({cause or type(error).__name__})") from error
