"""Places on disk: written by one process at a time, and whole or not at all."""

import contextlib
import fcntl
import pathlib
import shutil
import sys
from collections.abc import Iterator

from csbp_jax.config import ConfigError


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """One process at a time; the others say that they wait, and wait. The system frees the lock, whatever happens.

    Args:
      path: an empty file, made if it is not there. It stays: removed, it would let in two that wait for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{path}: another process is at work here; waiting until it is done", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def workplace(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder, gone afterwards: what is to stay is moved out of it. What a killed process left is thrown away.

    Raises:
      ConfigError: the disk is full, or the like.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    except (OSError, RuntimeError) as error:  # RuntimeError: array_record's writer
        if isinstance(error, OSError) and error.filename is not None:
            raise
        told = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be written ({told}); free some space, or name another data folder") from None
    finally:
        shutil.rmtree(path, ignore_errors=True)
