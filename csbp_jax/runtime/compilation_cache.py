"""JAX's persistent compilation cache, in a private directory: whoever can write there can run code in this process.

JAX reads these settings from the environment when it is imported, so this module does not import it.
"""

import os
import pathlib
import stat
from collections.abc import Callable, MutableMapping

import filelock

MAX_BYTES = 2 << 30
"""Size limit; beyond it, JAX evicts the least recently used entries."""


def enable(environment: MutableMapping[str, str], warn: Callable[[str], None]) -> None:
    """Set the variables that make JAX cache compiled programs in ``$XDG_CACHE_HOME/csbp_jax`` (``~/.cache/csbp_jax``).

    If JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE is set, the user's choice stands. A directory that is
    not private is not used; ``warn`` is then called with one line.
    """
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & set(environment):
        return
    folder = pathlib.Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "csbp_jax"
    try:
        folder = folder.expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _privacy_problem(folder)
        if problem is None:
            _remove_incomplete(folder)
    except (OSError, filelock.Timeout, RuntimeError) as error:  # RuntimeError: there is no home directory
        problem = f"cannot be used ({error})"
    if problem is not None:
        warn(f"{folder}: {problem}; continuing without a compilation cache")
        return
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(MAX_BYTES)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def _privacy_problem(folder: pathlib.Path) -> str | None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & 0o077:
        return "is open to other users; chmod 700 it if you trust its content, or remove it"
    return None


def _remove_incomplete(folder: pathlib.Path) -> None:
    """Remove entries that a killed process left incomplete: JAX warns of them at each start and never replaces them."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):  # JAX's own lock file
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():  # written after the entry
                entry.unlink()
