"""Checkpoints of a run: Orbax writes and reads the arrays, a manifest seals them. All use of Orbax is here.

checkpoints/STEP                    whole: it gets this name when its manifest is written
checkpoints/STEP.part..., STEP.gone being written, being deleted; a killed run leaves them, the next one clears them
checkpoints/STEP.damaged-TIME       set aside by a restore, and kept
"""

import contextlib
import errno
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp

from csbp_jax import manifest, processes
from csbp_jax.config import CheckpointError, Diverged
from csbp_jax.stop import Stopped

KEPT = 2
"""How many checkpoints stay, the newest ones."""

# Orbax logs its steps, its defaults and whole tracebacks; what matters is raised as well.
for _chatty in ("absl", "asyncio"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def open_folder(folder: pathlib.Path) -> Iterator["Checkpoints"]:
    """The checkpoints in ``folder``, made if it is missing. Leaving waits for the last save.

    Raises:
      CheckpointError: the folder cannot be opened, or a save failed.
    """
    processes.by_first(lambda: _open(folder))
    # Where a folder cannot be made, save says so, and leaves no thread that waits for it for minutes.
    options = ocp.AsyncOptions(create_directories_asynchronously=False)
    with contextlib.ExitStack() as opened:
        orbax = opened.enter_context(ocp.StandardCheckpointer(async_options=options))
        checkpoints = Checkpoints(folder, orbax, opened.enter_context(ThreadPoolExecutor(1)))
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

    def __init__(self, folder: pathlib.Path, orbax: ocp.StandardCheckpointer, pool: ThreadPoolExecutor):
        self.folder, self._orbax, self._pool = folder, orbax, pool
        self._last: Future[None] | None = None

    def save(self, step: int, tree: Any) -> None:
        """Copies the tree and saves it in the background; one of the same step is replaced.

        Raises:
          CheckpointError: it cannot be written, or the save before this one could not.
        """
        self.wait()
        with _told(f"{self.folder}: the checkpoint of step {step} cannot be written"):
            self._orbax.save((self.folder / f"{step}.part").absolute(), tree, force=True)
        self._last = self._pool.submit(self._commit, step, {"step": step, "arrays": _described(tree)})

    def wait(self) -> None:
        """Until the last save is done, by all processes.

        Raises:
          CheckpointError: it failed.
        """
        if self._last is not None:
            processes.by_all(self.end)

    def end(self) -> None:
        """Until this process has done its part of the last save.

        Raises:
          CheckpointError: it failed.
        """
        last, self._last = self._last, None
        if last is not None:
            with _told(f"{self.folder}: the last checkpoint cannot be written"):
                last.result()

    def _commit(self, step, about):
        self._orbax.wait_until_finished()  # of all processes
        if not processes.first():
            return
        manifest.seal(self.folder / f"{step}.part", about)
        _name(self.folder, step)
        for old in steps(self.folder)[:-KEPT]:
            _delete(self.folder, old)

    def restore(self, like: Any, show: Callable[[str], None] = print) -> Any | None:
        """The newest whole checkpoint, in the shapes, dtypes and shardings of ``like``; None if there is none.

        Those found damaged are renamed, and told to ``show`` in a line each.

        Raises:
          CheckpointError: all are damaged (and stay as they are), or it is of another structure.
        """
        step = processes.by_first(lambda: self._newest(show))
        return None if step is None else read(self.folder / str(step), like)

    def _newest(self, show):
        """Of which step the newest whole checkpoint is."""
        faults = {}
        for step in reversed(steps(self.folder)):
            faults[step] = manifest.fault(self.folder / str(step))
            if faults[step] is None:
                break
        else:
            if faults:
                told = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
                raise CheckpointError(
                    f"{self.folder}: no checkpoint is whole ({told}); start anew with FRESH=1 (--fresh)"
                )
            return None
        for damaged, fault in faults.items():
            if fault is not None:
                aside = self.folder / f"{damaged}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
                (self.folder / str(damaged)).rename(aside)
                show(f"{self.folder / str(damaged)}: {fault}; set aside as {aside.name}")
        return step


def newest(folder: pathlib.Path, like: Any) -> Any | None:
    """The newest checkpoint, as ``restore`` gives it; None if there is none. Changes no file.

    Raises:
      CheckpointError: it is damaged, or of another structure.
    """
    there = steps(folder) if folder.is_dir() else []
    if not there:
        return None
    path = folder / str(there[-1])
    fault = manifest.fault(path)
    if fault is not None:
        raise CheckpointError(f"{path}: {fault}; resume the run, which sets it aside and goes on from the one before")
    return read(path, like)


def steps(folder: pathlib.Path) -> list[int]:
    """Of which steps ``folder`` has checkpoints, in order."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def read(folder: pathlib.Path, like: Any) -> Any:
    """A whole checkpoint, in the shapes, dtypes and shardings of ``like``.

    Raises:
      CheckpointError: it is of another structure, or cannot be read.
    """
    with _told(f"{folder}: this checkpoint cannot be read"):
        theirs, mine = manifest.about(folder)["arrays"], _described(like)
        if theirs != mine:
            # Orbax would cast to another dtype in silence.
            differing = [name for name in sorted({*theirs, *mine}) if theirs.get(name) != mine.get(name)]
            first = "; ".join(f"{name} ({theirs.get(name)} there, {mine.get(name)} here)" for name in differing[:3])
            raise ValueError(f"it holds other arrays: {first}")
        with ocp.StandardCheckpointer() as orbax:
            return orbax.restore(folder.absolute(), like)


def _open(folder):
    with _told(f"{folder}: cannot be opened"):
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)


def _described(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, (_, leaf) in zip(names, leaves, strict=True)}


def _name(folder, step):
    """Gives a sealed checkpoint its name, in place of one that has it."""
    path, gone = folder / str(step), folder / f"{step}.gone"
    if path.exists():
        path.rename(gone)
    (folder / f"{step}.part").rename(path)
    if gone.exists():
        shutil.rmtree(gone)


def _delete(folder, step):
    # What is half deleted must not have the name of something whole.
    gone = (folder / str(step)).rename(folder / f"{step}.gone")
    shutil.rmtree(gone)


def _clear(folder):
    """What a killed run left: a sealed checkpoint lacks nothing but its name."""
    for path in folder.glob("*.part"):
        if manifest.fault(path) is None:
            _name(folder, int(path.stem))
    for path in [*folder.glob("*.part*"), *folder.glob("*.gone")]:
        shutil.rmtree(path) if path.is_dir() else os.remove(path)


@contextlib.contextmanager
def _told(what):
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds, bare Exception among them
        cause = str(error).strip().partition("\n")[0][:300]
        if os.strerror(errno.ENOSPC) in str(error):
            cause = "the disk is full; make room, and the same command goes on"
        raise CheckpointError(f"{what} ({cause or type(error).__name__})") from error
