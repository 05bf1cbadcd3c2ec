"""Where checkpoints are: in a folder, or at an address ``gs://...``; a path of either kind is an epath.Path."""

import contextlib
import json
import os
import pathlib
import re
from typing import Any

from etils import epath

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.runtime import files
from csbp_jax.training.checkpoint import bucket, local

BESIDE = "run"
"""In a checkpoint, the folder with copies of files of its run."""


def parse(given: str) -> epath.Path:
    """What ``--checkpoints`` says, checked.

    Raises:
      ConfigError: an address of another kind, or gcsfs is missing.
    """
    if "://" in given and not re.match("gs://[^/]", given):
        raise ConfigError(f"--checkpoints: {given!r} is not possible; allowed are a folder and gs://BUCKET/FOLDER")
    return absolute(epath.Path(given))


def absolute(path: epath.Path) -> epath.Path:
    """As Orbax wants it."""
    return path if bucket.is_bucket(path) else epath.Path(os.path.abspath(path))


def names(folder: epath.PathLike) -> Any:
    """The module that tells a whole checkpoint from others there."""
    return bucket if bucket.is_bucket(folder) else local


def steps(folder: epath.PathLike) -> list[int]:
    """Of which steps ``folder`` has checkpoints, in order."""
    return names(folder).steps(epath.Path(folder))


def checkpoint_dir(run: pathlib.Path, given: str | None = None, fresh: bool = False) -> epath.Path:
    """Where a run's checkpoints are: in its folder ``checkpoints``, or where its file of that name says.

    Args:
      run: its folder, which need not be there yet.
      given: a folder or an address, under which the run's name holds them.
      fresh: whatever a run there has, which is set aside.

    Raises:
      ConfigError: they are elsewhere, or there is no such address.
    """
    here = run / "checkpoints"
    known = here.read_text().strip() if here.is_file() and not fresh else ""
    if given is None:
        return epath.Path(known or here)
    asked = parse(given) / run.name
    if (here.is_dir() and not fresh) or known not in ("", str(asked)):
        raise ConfigError(
            f"--checkpoints: run {run.name!r} has its checkpoints in {known or here}, not in {asked}; leave the option "
            "out, or give another NAME (--name)"
        )
    return asked


def record_location(run: pathlib.Path, place: epath.PathLike) -> None:
    """Leaves in the run's folder where its checkpoints are."""
    files.write_text(run / "checkpoints", f"{place}\n")


def config_beside(folder: epath.Path) -> dict[str, Any] | None:
    """The ``config.json`` of which the newest checkpoint there has a copy; None if there is none.

    Raises:
      CheckpointError: the folder cannot be opened.
    """
    try:
        for step in reversed(steps(folder) if folder.is_dir() else []):
            with contextlib.suppress(FileNotFoundError, ValueError):
                return json.loads((names(folder).where(folder, step) / BESIDE / "config.json").read_bytes())
    except Exception as error:  # gcsfs and its HTTP library raise many kinds
        raise CheckpointError(f"{folder}: cannot be opened ({str(error) or type(error).__name__})") from error
    return None
