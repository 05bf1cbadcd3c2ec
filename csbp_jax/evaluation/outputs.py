"""Where commands on a run write their results."""

import pathlib
import sys
import tempfile

from csbp_jax.config import ConfigError

FALLBACK = pathlib.Path("evaluation")
"""Folder in the working directory for results on runs that cannot be written."""


def output_folder(run: pathlib.Path) -> pathlib.Path:
    """Return the folder for results on a run, and create it: the run's own, or ``evaluation/NAME`` if it is read-only.

    Call it before the work whose results are to be written. In the second case, one line is printed to stderr.

    Raises:
      ConfigError: neither can be written.
    """
    problem = _problem(run)
    if not problem:
        return run
    folder = FALLBACK / run.resolve().name
    if other := _problem(folder):
        raise ConfigError(
            f"{run}: cannot be written ({problem}), nor can {folder} ({other}); change to a directory that can"
        )
    print(f"csbp_jax: {run}: cannot be written ({problem}); results are written to {folder}", file=sys.stderr)
    return folder


def _problem(folder: pathlib.Path) -> str:
    """Create a folder and write to it; return what fails, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
