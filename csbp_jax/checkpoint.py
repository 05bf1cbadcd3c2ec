"""Checkpoints of a run through Orbax, one folder a saved epoch. All use of Orbax is here."""

import logging
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from csbp_jax.config import ConfigError

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
    """The newest checkpoint, in the shapes, dtypes and shardings of ``like``; None if there is none.

    Raises:
      ConfigError: it is damaged, or of another structure.
    """
    epoch = manager.latest_step()
    if epoch is None:
        return None
    try:
        return manager.restore(epoch, args=ocp.args.StandardRestore(like))
    except Exception as error:  # Orbax and TensorStore raise many kinds, bare Exception among them
        cause = str(error).strip().partition("\n")[0][:120]
        raise ConfigError(
            f"{manager.directory / str(epoch)}: this checkpoint cannot be read ({cause}); move it away to go on from "
            "an older one, or start anew with FRESH=1 (--fresh)"
        ) from error
