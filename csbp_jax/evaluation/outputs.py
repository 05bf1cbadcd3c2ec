"""Where commands on a run write their results."""

import hashlib
import os
import pathlib
import sys

from csbp_jax.config import ConfigError
from csbp_jax.runtime import files

FALLBACK = pathlib.Path("evaluation")
"""Folder in the working directory for results on runs that cannot be written."""


def output_folder(run: pathlib.Path, *folders: str) -> pathlib.Path:
    """Return the folder for results on a run, and create it: the run's own, or ``evaluation/NAME`` if it is read-only.

    Call it before the work whose results are to be written, with the names of the folders in it that they go to. If the
    run is read-only, one line is printed to stderr, and ``run.txt`` in the folder holds the run's path. If another run
    has ``evaluation/NAME``, the folder is ``evaluation/NAME-HASH``.

    Raises:
      ConfigError: neither can be written, or results would be written elsewhere (``files.check_links``).
    """
    problem = files.write_problem(run)
    if not problem:
        files.check_links(run, *folders)
        return run
    folder, path = FALLBACK / run.resolve().name, os.fsencode(run.resolve())
    if (folder / "run.txt").exists() and files.read_bytes(folder / "run.txt") != path:
        folder = folder.with_name(f"{folder.name}-{hashlib.sha256(path).hexdigest()[:8]}")
    if other := files.write_problem(folder):
        raise ConfigError(
            f"{run}: cannot be written ({problem}), nor can {folder} ({other}); change to a directory that can"
        )
    files.write_bytes(folder / "run.txt", path)
    print(f"csbp_jax: {run}: cannot be written ({problem}); results are written to {folder}", file=sys.stderr)
    return folder


def check_file(path: str | pathlib.Path) -> None:
    """Check that a file can be written, and create its folder; a pipe or a device is not checked.

    Call it before the work whose results are to be written.

    Raises:
      ConfigError: it cannot be written, or is a directory.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        raise ConfigError(f"{file}: is a directory; give the path of a file")
    if (not file.exists() or file.is_file()) and (problem := files.write_problem(file.parent)):
        raise ConfigError(f"{file}: cannot be written ({problem}); give another path")
