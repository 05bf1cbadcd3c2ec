"""JAX's persistent compilation cache, in a private folder: whoever can write there can run code in this process.

JAX reads its settings from the environment when it is imported, so this file does not import it.
"""

import os
import pathlib
import stat
from collections.abc import Callable, MutableMapping

import filelock

MAX_BYTES = 2 << 30
"""What is used least is dropped beyond it."""


def enable(environment: MutableMapping[str, str], tell: Callable[[str], None]) -> None:
    """Sets the variables by which JAX keeps compiled programs in ``$XDG_CACHE_HOME/csbp_jax`` (``~/.cache/csbp_jax``).

    Not where the user has spoken: with JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE set, all is left as it
    is. A folder that is not private is not used, which ``tell`` is told in one line.
    """
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & set(environment):
        return
    folder = pathlib.Path(environment.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "csbp_jax"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fault = _fault(folder)
        if fault is None:
            _drop_half_written(folder)
    except (OSError, filelock.Timeout, RuntimeError) as error:  # RuntimeError: there is no home folder
        fault = f"cannot be used ({error})"
    if fault is not None:
        tell(f"{folder}: {fault}; going on without a compilation cache")
        return
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(MAX_BYTES)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def _fault(folder):
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        return "is no folder"
    if about.st_uid != os.geteuid():
        return "belongs to somebody else"
    if about.st_mode & 0o077:
        return "is open to others; chmod 700 it if you trust what is in it, or remove it"
    return None


def _drop_half_written(folder):
    """JAX does not write whole or not at all, and would tell of a broken entry at each start, and never replace it."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):  # JAX's own
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():  # written after the entry
                entry.unlink()
