"""The names of checkpoints in their folder, so that what has a step's name is whole, or was damaged later.

STEP                    whole: it gets this name when its manifest is written
STEP.part..., STEP.gone being written, being deleted; a killed run leaves them, the next one clears them
STEP.damaged-TIME       set aside by a restore, and kept
"""

import time

from etils import epath

from csbp_jax.training.checkpoint import manifest


def make(folder: epath.Path) -> None:
    """Makes the folder, if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)


def part(folder: epath.Path, step: int) -> epath.Path:
    """Where a checkpoint is to be written."""
    return folder / f"{step}.part"


def where(folder: epath.Path, step: int) -> epath.Path:
    """A step's checkpoint."""
    return folder / str(step)


def steps(folder: epath.Path) -> list[int]:
    """Of which steps ``folder`` has checkpoints, in order."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def name(folder: epath.Path, step: int) -> None:
    """Gives a sealed checkpoint its name, in place of one that has it."""
    path, gone = folder / str(step), folder / f"{step}.gone"
    if path.exists():
        path.rename(gone)
    part(folder, step).rename(path)
    if gone.exists():
        gone.rmtree()


def delete(folder: epath.Path, step: int) -> None:
    """Deletes a checkpoint."""
    # What is half deleted must not have the name of something whole.
    (folder / str(step)).rename(folder / f"{step}.gone").rmtree()


def quarantine(folder: epath.Path, step: int) -> epath.Path:
    """Where a damaged checkpoint is kept."""
    return (folder / str(step)).rename(folder / f"{step}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")


def remove_incomplete(folder: epath.Path) -> None:
    """Away with what a killed run or a failed save left; a sealed checkpoint lacks nothing but its name."""
    for path in folder.iterdir():
        if path.suffix == ".part" and manifest.verify(path) is None:
            name(folder, int(path.stem))
    for path in folder.iterdir():
        if ".part" in path.name or path.suffix == ".gone":
            path.rmtree() if path.is_dir() else path.unlink()
