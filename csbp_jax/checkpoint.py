"""Checkpoints of a run through Orbax, one folder a saved epoch. All use of Orbax is here."""

import logging
import pathlib
from typing import Any

import orbax.checkpoint as ocp

# Orbax tells each of its steps at INFO and some of its defaults at WARNING.
logging.getLogger("absl").setLevel(logging.ERROR)


def open_folder(folder: pathlib.Path) -> ocp.CheckpointManager:
    """The checkpoints in ``folder``, made if it is missing; the two newest are kept. Close it when done."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def save(manager: ocp.CheckpointManager, epoch: int, tree: Any) -> None:
    """Saves in the background; the next save, or closing, waits for it and raises what went wrong."""
    manager.save(epoch, args=ocp.args.StandardSave(tree))


def restore(manager: ocp.CheckpointManager, like: Any) -> Any | None:
    """The newest checkpoint, in the shapes, dtypes and shardings of ``like``; None if there is none."""
    epoch = manager.latest_step()
    if epoch is None:
        return None
    return manager.restore(epoch, args=ocp.args.StandardRestore(like))
