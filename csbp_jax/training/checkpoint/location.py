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
    is_address = "://" in text or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text)
    if is_address and not re.match("gs://[^/]", text):
        raise ConfigError(f"{source}: {text!r} is not possible; allowed are a directory and gs://BUCKET/DIRECTORY")
    return absolute(epath.Path(text))


def absolute(path: epath.Path) -> epath.Path:
    """Return the absolute path, which Orbax requires."""
    return path if layout.is_bucket(path) else epath.Path(os.path.abspath(path))


def checkpoint_dir(
    run: pathlib.Path, root: str | None = None, fresh: bool = False, *, trust: bool = False
) -> epath.Path:
    """Return the directory of a run's checkpoints: RUN/checkpoints, or the address in the file of that name.

    Args:
      run: the run directory, which may not exist yet.
      root: directory or address that holds the checkpoints of this run under the run's name.
      fresh: ignore an existing run, which will be renamed.
      trust: open an address that only the run names. It may be of a stranger, and your credentials go there.

    Raises:
      ConfigError: the run has its checkpoints elsewhere, the address is not supported or not trusted, or the path is
        not UTF-8, which Orbax cannot write.
    """
    default = run / "checkpoints"
    recorded = ""
    if default.is_file() and not fresh:
        with files.readable(default, "write the directory or address of the checkpoints to it", UnicodeDecodeError):
            text = files.read_bytes(default).decode().strip()
        if text.startswith("gs://") and root is None and not trust:
            raise ConfigError(
                f"{default}: names {text}, which is opened only if you say so: give --trust, or to train --checkpoints"
            )
        recorded = str(parse(text, str(default))) if text else ""
    path = run if root is None else pathlib.Path(root)
    problem = "its whole path is not UTF-8, and no checkpoint can be written there"
    with files.readable(path, "rename the folder, or give another", UnicodeEncodeError, problem):
        os.path.abspath(path).encode()
    if root is None:
        return epath.Path(recorded or default)
    requested = parse(root) / run.name
    if (default.is_dir() and not fresh) or recorded not in ("", str(requested)):
        raise ConfigError(
            f"--checkpoints: run {run.name!r} has its checkpoints in {recorded or default}, not in {requested}; leave "
            "the option out, or give another NAME (--name)"
        )
    return requested


def config_beside(folder: epath.Path) -> dict[str, Any] | None:
    """Read the copy of ``config.json`` in the newest checkpoint that has one; None if there is none.

    Raises:
      CheckpointError: the directory cannot be opened.
    """
    try:
        for path in reversed(layout.complete(folder).values()):
            file = path / RUN_FILES / "config.json"
            with contextlib.suppress(FileNotFoundError, ValueError), file.open("rb") as content:
                return seals.parse(content.read(files.SMALL))
    except Exception as error:  # gcsfs and its HTTP library raise many kinds
        raise CheckpointError(f"{folder}: cannot be opened ({str(error) or type(error).__name__})") from error
    return None
