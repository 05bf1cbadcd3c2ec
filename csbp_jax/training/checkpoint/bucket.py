"""The names of checkpoints in a bucket, where no folder is renamed at once; as checkpoint_names.py has it for a disk.

STEP.N                            the N-th of this step; whole once it has its manifest, written last and deleted first
STEP.N/manifest.json.damaged-TIME set aside by a restore, and kept
"""

import importlib.util
import logging
import re
import time

import fsspec
from etils import epath

from csbp_jax.config import ConfigError
from csbp_jax.training.checkpoint import manifest


def is_bucket(folder: epath.PathLike) -> bool:
    """Whether it is an address, ``gs://...``.

    Raises:
      ConfigError: it is, and gcsfs, which it needs, is not installed.
    """
    if not str(folder).startswith("gs://"):
        return False
    if importlib.util.find_spec("gcsfs") is None:
        raise ConfigError(f"{folder}: needs the package gcsfs; pip install 'csbp_jax[gcs]'")
    # Arrays are written past gcsfs, so what it listed before says nothing.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # It logs each retry with its traceback; what matters is raised as well.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    return True


def steps(folder: epath.Path) -> list[int]:
    """Of which steps there are checkpoints, in order."""
    return sorted({step for step, _, path in _all(folder) if _sealed(path)})


def where(folder: epath.Path, step: int) -> epath.Path:
    """The newest checkpoint of a step."""
    return _whole(folder, step)[-1]


def part(folder: epath.Path, step: int) -> epath.Path:
    """Where one is to be written."""
    return folder / f"{step}.{max((number for one, number, _ in _all(folder) if one == step), default=0) + 1}"


def name(folder: epath.Path, step: int) -> None:
    """Of a step of which one has been sealed, those before it go."""
    for path in _whole(folder, step)[:-1]:
        _delete(path)


def delete(folder: epath.Path, step: int) -> None:
    """Deletes the checkpoints of a step."""
    for path in _whole(folder, step):
        _delete(path)


def quarantine(folder: epath.Path, step: int) -> epath.Path:
    """Where a damaged checkpoint has its manifest from now on; without one it is none."""
    seal = where(folder, step) / manifest.NAME
    return seal.rename(seal.with_name(f"{seal.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"))


def make(folder: epath.Path) -> None:
    """A bucket has no folders to be made; shows that it can be written."""
    try:
        (folder / "writable").write_bytes(b"")
        (folder / "writable").unlink()
    except FileNotFoundError:
        raise OSError("there is no such bucket, or you may not write there") from None


def remove_incomplete(folder: epath.Path) -> None:
    """Away with what a killed run or a failed save left."""
    for _, _, path in _all(folder):
        if not any(file.name.startswith(manifest.NAME) for file in path.iterdir()):
            path.rmtree()
    for path in _there(folder):
        if path.name.endswith(".manifest"):
            path.unlink()


def _there(folder):
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # as a bucket calls an empty folder
        return []


def _all(folder):
    """Step, number and folder of each, whole or not."""
    found = [(re.fullmatch(r"(\d+)\.(\d+)", path.name), path) for path in _there(folder)]
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def _whole(folder, step):
    return [path for one, _, path in _all(folder) if one == step and _sealed(path)]


def _sealed(path):
    return (path / manifest.NAME).exists()


def _delete(path):
    (path / manifest.NAME).unlink()
    path.rmtree()
