"""Location of checkpoints: a directory, or an address ``gs://...``; both are an epath.Path."""

import contextlib
import os
import pathlib
import re
from typing import Any

from etils import epath

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.runtime import files, seals
from csbp_jax.training.checkpoint import layout

RUN_FILES = "run"
"""Directory of a checkpoint that holds copies of files of its run."""


def parse(text: str, source: str = "--checkpoints") -> epath.Path:
    """Parse the value of ``--checkpoints``, or of the file that ``source`` names.

    Raises:
      ConfigError: it is an unsupported address, or gcsfs is missing.
    """
    if "://" in text and not re.match("gs://[^/]", text):
        raise ConfigError(f"{source}: {text!r} is not possible; allowed are a directory and gs://BUCKET/DIRECTORY")
    return absolute(epath.Path(text))


def absolute(path: epath.Path) -> epath.Path:
    """Return the absolute path, which Orbax requires."""
    return path if layout.is_bucket(path) else epath.Path(os.path.abspath(path))


def checkpoint_dir(run: pathlib.Path, root: str | None = None, fresh: bool = False) -> epath.Path:
    """Return the directory of a run's checkpoints: RUN/checkpoints, or the address in the file of that name.

    Args:
      run: the run directory, which may not exist yet.
      root: directory or address that holds the checkpoints of this run under the run's name.
      fresh: ignore an existing run, which will be renamed.

    Raises:
      ConfigError: the run has its checkpoints elsewhere, or the address is not supported.
    """
    default = run / "checkpoints"
    recorded = _recorded(default) if default.is_file() and not fresh else ""
    if root is None:
        return epath.Path(recorded or default)
    requested = parse(root) / run.name
    if (default.is_dir() and not fresh) or recorded not in ("", str(requested)):
        raise ConfigError(
            f"--checkpoints: run {run.name!r} has its checkpoints in {recorded or default}, not in {requested}; leave "
            "the option out, or give another NAME (--name)"
        )
    return requested


def _recorded(file: pathlib.Path) -> str:
    try:
        recorded = files.read_bytes(file).decode().strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: cannot be read; write the directory or address of the checkpoints to it") from None
    return str(parse(recorded, str(file))) if "://" in recorded else recorded


def record_location(run: pathlib.Path, folder: epath.PathLike) -> None:
    """Write the location of a run's checkpoints to its directory."""
    files.write_text(run / "checkpoints", f"{folder}\n")


def config_beside(folder: epath.Path) -> dict[str, Any] | None:
    """Read the copy of ``config.json`` in the newest checkpoint that has one; None if there is none.

    Raises:
      CheckpointError: the directory cannot be opened.
    """
    try:
        for path in reversed(layout.complete(folder).values()):
            with contextlib.suppress(FileNotFoundError, ValueError):
                file = path / RUN_FILES / "config.json"
                files.check_regular(file, files.MAX_SMALL_BYTES)
                return seals.parse(file.read_bytes())
    except Exception as error:  # gcsfs and its HTTP library raise many kinds
        raise CheckpointError(f"{folder}: cannot be opened ({str(error) or type(error).__name__})") from error
    return None
