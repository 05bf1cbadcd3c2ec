"""Step directories of checkpoints on a disk. A directory with the name of a step is complete, or was damaged later.

STEP                     complete: it gets this name after its manifest is written
STEP.part..., STEP.gone  being written, being deleted; left by a killed run, removed by the next one
STEP.damaged-TIME        renamed by a restore, and kept
"""

import re
import time

from etils import epath

from csbp_jax.training.checkpoint import manifest


def create(folder: epath.Path) -> None:
    """Create the directory of all checkpoints, if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)


def incomplete(folder: epath.Path, step: int) -> epath.Path:
    """Return the path to write a new checkpoint to."""
    return folder / f"{step}.part"


def complete(folder: epath.Path, step: int) -> epath.Path:
    """Return the path of the checkpoint of a step."""
    return folder / str(step)


def steps(folder: epath.Path) -> list[int]:
    """List the steps that have a checkpoint, in order."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def commit(folder: epath.Path, step: int) -> None:
    """Rename a new checkpoint that has its manifest to its step; it replaces an older one of the same step."""
    path, gone = folder / str(step), folder / f"{step}.gone"
    if path.exists():
        path.rename(gone)
    incomplete(folder, step).rename(path)
    if gone.exists():
        gone.rmtree()


def delete(folder: epath.Path, step: int) -> None:
    """Delete the checkpoint of a step."""
    # A half-deleted checkpoint must not have the name of a complete one.
    (folder / str(step)).rename(folder / f"{step}.gone").rmtree()


def quarantine(folder: epath.Path, step: int) -> epath.Path:
    """Rename a damaged checkpoint and return its new path."""
    return (folder / str(step)).rename(folder / f"{step}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")


def remove_incomplete(folder: epath.Path) -> None:
    """Remove the remains of a killed run or a failed save; checkpoints that only lack their final name get it."""
    # By the whole name: a run from someone else may name any folder as that of its checkpoints.
    for path in folder.iterdir():
        if re.fullmatch(r"\d+\.part", path.name) and manifest.verify(path) is None:
            commit(folder, int(path.stem))
    for path in folder.iterdir():
        if re.fullmatch(r"\d+\.(part.*|gone)", path.name):
            path.rmtree() if path.is_dir() else path.unlink()
