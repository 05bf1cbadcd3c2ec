"""Names of checkpoints in their directory, on a disk or in a bucket, whose directories cannot be renamed atomically.

STEP, STEP.N                     a checkpoint of this step, complete: the one with the largest number N counts. In a
                                 bucket, only with its manifest, which is written last and deleted first
STEP....part..., STEP....gone    on a disk: being written, being deleted; left by a killed run, removed by the next one
STEP....damaged-TIME             on a disk: renamed by a restore, and kept; in a bucket, its manifest is renamed

Only a checkpoint with its manifest is deleted. A folder of the user's may also be called STEP: it stays.
"""

import logging
import os
import re
import time

import fsspec
from etils import epath

from csbp_jax.config import CheckpointError, extras
from csbp_jax.runtime import files
from csbp_jax.training.checkpoint import manifest

KEEP = 2
"""Number of checkpoints that are kept, the newest ones."""


def is_bucket(folder: epath.PathLike) -> bool:
    """Return whether a path is an address, ``gs://...``.

    Raises:
      Missing: it is, but gcsfs is not installed.
    """
    if not str(folder).startswith("gs://"):
        return False
    extras.need("gcs", str(folder))
    # TensorStore writes arrays without gcsfs, whose cached listings are then out of date.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # gcsfs logs each retry with its traceback; final errors are raised as well.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return True


def create(folder: epath.Path, file: str) -> str:
    """Create the directory of all checkpoints, clear it of remains, and write a file there; return its name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_incomplete(folder)
        (folder / file).write_bytes(b"")
    except FileNotFoundError:
        raise OSError("there is no such bucket, or you may not write there") from None
    return file


def complete(folder: epath.PathLike) -> dict[int, epath.Path]:
    """Return the newest complete checkpoint of each step that has one, in the order of the steps."""
    return dict(_complete(epath.Path(folder)))


def new(folder: epath.Path, step: int) -> epath.Path:
    """Return the path to write a checkpoint to."""
    number = max((number for other, number, _ in _all(folder) if other == step), default=-1) + 1
    name = f"{step}.{number}" if number else f"{step}"
    return folder / (name if is_bucket(folder) else f"{name}.part")


def foreign(folder: epath.Path, step: int) -> list[epath.Path]:
    """Return the paths that have the name of a checkpoint of this step, but no intact manifest."""
    return [path for other, _, path in _all(folder) if other == step and not _is_own(path)]


def commit(path: epath.Path) -> None:
    """Give a checkpoint that has its manifest its name, and delete those that are no longer kept."""
    if not is_bucket(path):
        path.rename(path.with_name(path.name.removesuffix(".part")))
    own = [(step, other) for step, _, other in _all(path.parent) if _is_own(other)]
    kept = list(dict(own).values())[-KEEP:]
    for _, old in own:
        if old not in kept:
            _delete(old)


def quarantine(path: epath.Path) -> epath.Path:
    """Rename a damaged checkpoint, or in a bucket its manifest, and return the new path."""
    damaged = path / manifest.NAME if is_bucket(path) else path
    return damaged.rename(damaged.with_name(f"{damaged.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))


def remove_incomplete(folder: epath.PathLike) -> None:
    """Remove the remains of a killed run or a failed save."""
    folder = epath.Path(folder)
    for path in _content(folder):
        # By the whole name: a run from someone else may name any folder as that of its checkpoints.
        if re.fullmatch(r"\d+(\.\d+)?\.(part.*|gone|manifest)|shared-[0-9a-f]{32}", path.name):
            is_folder = path.is_dir() and not os.path.islink(path)
            path.rmtree() if is_folder else path.unlink()
    for _, _, path in _all(folder):
        if is_bucket(folder) and not any(file.name.startswith(manifest.NAME) for file in path.iterdir()):
            path.rmtree()


class Held:
    """The directory of all checkpoints, held open while a run trains, so that another in its place is noticed.

    Nothing holds a directory of a bucket, which is only the beginning of names.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder
        # A link to which --checkpoints leads may stay; one in a run's folder is refused before this.
        self._is_link = os.path.islink(folder)
        self._descriptor = -1 if is_bucket(folder) else os.open(folder, os.O_RDONLY)

    def check(self) -> None:
        """Check that no other directory, and no link, is in its place; it may have been deleted.

        Raises:
          CheckpointError: one is.
        """
        if self._descriptor < 0 or not os.path.lexists(self._folder):
            return
        if not files.is_open_at(self._folder, self._descriptor, follow_link=self._is_link):
            raise CheckpointError(
                f"{self._folder}: was replaced while the run trained; nothing more is saved, and nothing is deleted "
                "there. Put the directory of its checkpoints back, and the same command resumes"
            )

    def create_again(self) -> None:
        """Create the directory again if it was deleted: all that the run needs is in memory."""
        if self._descriptor >= 0 and not os.path.lexists(self._folder):
            self._folder.mkdir(parents=True)
            self.close()
            self._descriptor = os.open(self._folder, os.O_RDONLY)

    def close(self) -> None:
        """Hold the directory no longer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _is_own(path: epath.Path) -> bool:
    """Return whether a path is that of a checkpoint, to judge by its manifest, and not a link to one."""
    return not os.path.islink(path) and manifest.has_manifest(path)


def _delete(checkpoint: epath.Path) -> None:
    """Delete a checkpoint; half-deleted, it must not be a complete one."""
    if is_bucket(checkpoint):
        (checkpoint / manifest.NAME).unlink()
    else:
        checkpoint = checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.gone"))
    checkpoint.rmtree()


def _content(folder: epath.Path) -> list[epath.Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # raised for an empty directory of a bucket
        return []


def _complete(folder: epath.Path) -> list[tuple[int, epath.Path]]:
    return [(step, path) for step, _, path in _all(folder) if not is_bucket(path) or (path / manifest.NAME).exists()]


def _all(folder: epath.Path) -> list[tuple[int, int, epath.Path]]:
    """List step, number and path of all checkpoints, complete or not, in order."""
    matches = [(re.fullmatch(r"(\d+)(?:\.(\d+))?", path.name), path) for path in _content(folder)]
    return sorted((int(match[1]), int(match[2] or 0), path) for match, path in matches if match)
