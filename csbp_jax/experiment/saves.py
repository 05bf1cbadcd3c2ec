"""Saves of runs that train together, before they are finished: a killed sweep goes on after the last saved epoch."""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from csbp_jax.config import CheckpointError
from csbp_jax.runtime import seals
from csbp_jax.training.checkpoint import checkpoint
from csbp_jax.training.checkpoint.arrays import PyTree

SAVE_EVERY = 60.0
"""Seconds from one save to the next, and from the start of the training to the first."""
CURVES = "curves"
"""The part of a save that has a row more after each epoch."""
CALLBACKS = "callbacks"
"""The part that the callbacks have: arrays of any shape. All other parts keep their shapes."""


class Saves:
    """The saves of one chunk; see :func:`opened`. Its folder exists once it has been saved."""

    def __init__(self, folder: pathlib.Path, identity: dict[str, Any], report: Callable[[str], None]):
        self.folder, self._identity, self._report = folder, identity, report
        self._checkpoints: checkpoint.Checkpoints | None = None
        self._stack = contextlib.ExitStack()
        self._last, self._is_possible = time.monotonic(), jax.process_count() == 1

    def restore(self, like: PyTree) -> PyTree | None:
        """Return the last save; None if there is none, or if it cannot be read, which is said in a line.

        Args:
          like: shapes, dtypes and shardings of the other parts; curves and callbacks are restored as they are.
        """
        if not self.folder.exists() or not self._is_possible:
            return None
        try:
            return self._opened().restore(like, as_stored=[CURVES, CALLBACKS])
        except CheckpointError as error:
            self._report(f"{error}. The runs of this chunk begin again")
            self._close()
            shutil.rmtree(self.folder, ignore_errors=True)
            return None

    def is_due(self) -> bool:
        """Return whether a minute has passed since the last save."""
        return self._is_possible and time.monotonic() - self._last >= SAVE_EVERY

    def save(self, epoch: int, parts: Mapping[str, PyTree]) -> None:
        """Copy what the chunk goes on from after an epoch, and write it in the background.

        Results do not depend on it: where it cannot be written, a line says so, and the training goes on without.
        """
        try:
            checkpoints = self._opened()
            checkpoints.wait()
            checkpoints.save(epoch, parts)
        except CheckpointError as error:
            self._go_on_without(error)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the saves, once the results of the chunk are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Wait for the last save."""
        try:
            if self._checkpoints is not None:
                self._checkpoints.wait()
        except CheckpointError as error:
            self._go_on_without(error)
        self._close()

    def _opened(self) -> checkpoint.Checkpoints:
        if self._checkpoints is None:
            # What it would report is raised by ``wait``, too.
            opened = checkpoint.open_folder(self.folder, lambda line: None, identity=self._identity)
            self._checkpoints = self._stack.enter_context(opened)
        return self._checkpoints

    def _go_on_without(self, error: CheckpointError) -> None:
        self._report(f"{error}. The runs of this chunk train on, and begin again if they are stopped")
        self._is_possible = False
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(CheckpointError):  # it has been reported
            self._stack.close()
        self._checkpoints = None


@contextlib.contextmanager
def opened(folder: pathlib.Path, content: dict[str, Any], report: Callable[[str], None]) -> Iterator[Saves]:
    """Yield the saves of a chunk, and wait for the last one in the end.

    Several processes that JAX has connected save nothing: each would wait for the others.

    Args:
      folder: of all chunks, which only this process writes to.
      content: what the results of the chunk depend on, as JSON; the saves of another chunk are not seen.
      report: called with a line where a save cannot be read or written.
    """
    identity = {"chunk": seals.digest(content)}
    saves = Saves(folder / identity["chunk"][:16], identity, report)
    with contextlib.closing(saves):
        yield saves
