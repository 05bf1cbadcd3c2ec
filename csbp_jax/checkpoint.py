"""Checkpoints of a run through Orbax, one folder a saved epoch. All use of Orbax is here."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import orbax.checkpoint as ocp

from csbp_jax.config import ConfigError

# Orbax logs its steps, its defaults and whole tracebacks; what matters is raised as well.
for _chatty in ("absl", "asyncio"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def open_folder(folder: pathlib.Path) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints in ``folder``, made if it is missing; the two newest are kept. Leaving waits for the last save.

    Raises:
      ConfigError: the folder cannot be opened, or a save failed.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with _told(f"{folder}: cannot be opened"):
        manager = ocp.CheckpointManager(folder.absolute(), options=options)
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is what matters
            manager.close()
        raise
    with _told(f"{folder}: the last checkpoint cannot be written"):
        manager.wait_until_finished()
        manager.close()


def save(manager: ocp.CheckpointManager, epoch: int, tree: Any) -> None:
    """Saves in the background.

    Raises:
      ConfigError: it cannot be written, or the save before this one could not.
    """
    with _told(f"{manager.directory}: a checkpoint cannot be written"):
        manager.save(epoch, args=ocp.args.StandardSave(tree))


def restore(manager: ocp.CheckpointManager, like: Any) -> Any | None:
    """The newest checkpoint, in the shapes, dtypes and shardings of ``like``; None if there is none.

    Raises:
      ConfigError: it is damaged, or of another structure.
    """
    epoch = manager.latest_step()
    if epoch is None:
        return None
    mend = "move it away to go on from an older one, or start anew with FRESH=1 (--fresh)"
    with _told(f"{manager.directory / str(epoch)}: this checkpoint cannot be read; {mend}"):
        return manager.restore(epoch, args=ocp.args.StandardRestore(like))


@contextlib.contextmanager
def _told(what):
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds, bare Exception among them
        cause = str(error).strip().partition("\n")[0][:120]
        raise ConfigError(f"{what} ({cause or type(error).__name__})") from error
