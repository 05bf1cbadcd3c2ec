"""Directories on disk that one process at a time writes, completely or not at all."""

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator

from csbp_jax.config import ConfigError, one_line
from csbp_jax.runtime import files


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a file lock; a process that has to wait for it says so.

    The operating system frees the lock, however its holder ends.

    Args:
      path: an empty file, created if missing. It stays: removed, it would let in two processes that wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    notice = f"{path}: another process holds this lock; waiting for it"
    with files.locked(path, on_wait=lambda: print(notice, file=sys.stderr, flush=True)):
        yield


@contextlib.contextmanager
def scratch_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Create an empty directory and remove it afterwards; what shall stay is moved out of it.

    What a killed process left under this path is removed first.

    Raises:
      ConfigError: it cannot be written, as when the disk is full.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    except (OSError, RuntimeError) as error:  # RuntimeError: array_record's writer
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ConfigError(
            f"{path}: cannot be written ({one_line(error)}); free disk space, or name another data directory"
        ) from None
    finally:
        shutil.rmtree(path, ignore_errors=True)
