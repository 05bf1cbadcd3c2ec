"""Step directories of checkpoints in a bucket, where directories cannot be renamed atomically; see :mod:`.local`.

STEP.N                             the N-th checkpoint of this step; complete once it has its manifest, which is written
                                   last and deleted first
STEP.N/manifest.json.damaged-TIME  renamed by a restore, and kept
"""

import logging
import re
import time

import fsspec
from etils import epath

from csbp_jax.config import extras
from csbp_jax.training.checkpoint import manifest


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


def create(folder: epath.Path) -> None:
    """Check that the bucket can be written; it has no directories to create."""
    try:
        (folder / "writable").write_bytes(b"")
        (folder / "writable").unlink()
    except FileNotFoundError:
        raise OSError("there is no such bucket, or you may not write there") from None


def incomplete(folder: epath.Path, step: int) -> epath.Path:
    """Return the path to write a new checkpoint to."""
    used = [number for other, number, _ in _all(folder) if other == step]
    return folder / f"{step}.{max(used, default=0) + 1}"


def complete(folder: epath.Path, step: int) -> epath.Path:
    """Return the path of the newest complete checkpoint of a step."""
    return _complete(folder, step)[-1]


def steps(folder: epath.Path) -> list[int]:
    """List the steps that have a complete checkpoint, in order."""
    return sorted({step for step, _, path in _all(folder) if _has_manifest(path)})


def commit(folder: epath.Path, step: int) -> None:
    """Delete the older checkpoints of a step, after a new one has its manifest."""
    for path in _complete(folder, step)[:-1]:
        _delete(path)


def delete(folder: epath.Path, step: int) -> None:
    """Delete all checkpoints of a step."""
    for path in _complete(folder, step):
        _delete(path)


def quarantine(folder: epath.Path, step: int) -> epath.Path:
    """Rename the manifest of a damaged checkpoint, which makes it incomplete, and return the new path."""
    path = complete(folder, step) / manifest.NAME
    return path.rename(path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))


def remove_incomplete(folder: epath.Path) -> None:
    """Remove the remains of a killed run or a failed save."""
    for _, _, path in _all(folder):
        if not any(file.name.startswith(manifest.NAME) for file in path.iterdir()):
            path.rmtree()
    for path in _content(folder):
        if path.name.endswith(".manifest"):
            path.unlink()


def _content(folder: epath.Path) -> list[epath.Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # raised for an empty directory of a bucket
        return []


def _all(folder: epath.Path) -> list[tuple[int, int, epath.Path]]:
    """List step, number and path of all checkpoints, complete or not."""
    matches = [(re.fullmatch(r"(\d+)\.(\d+)", path.name), path) for path in _content(folder)]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def _complete(folder: epath.Path, step: int) -> list[epath.Path]:
    return [path for other, _, path in _all(folder) if other == step and _has_manifest(path)]


def _has_manifest(path: epath.Path) -> bool:
    return bool((path / manifest.NAME).exists())


def _delete(path: epath.Path) -> None:
    (path / manifest.NAME).unlink()
    path.rmtree()
