"""Atomic writes and locks: a reader sees a complete file or none, and one process at a time changes a directory.

Also a check before files from others are read.
"""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import filelock

from csbp_jax.config import ConfigError


def write_problem(folder: pathlib.Path) -> str:
    """Create a folder and write to it; return what fails, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path, if it exists, is a regular file: to open a FIFO or a device could wait, or read, without end.

    Raises:
      ConfigError: it is not.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"{path}: is not a regular file, but a folder, pipe or device; give a file")


@contextlib.contextmanager
def full_disk_ignored() -> Iterator[None]:
    """Suppress the error that the disk, or the user's share of it, is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


@contextlib.contextmanager
def replacing(file: str | os.PathLike[str], *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yield a temporary path in the directory of ``file``; what is written to it replaces ``file`` at the end.

    If the block raises, ``file`` stays as it was and the temporary file is removed. A pipe or a device, such as
    /dev/stdout, is yielded itself: a file must not replace it.

    Args:
      file: the final path. Its directory must exist.
      shared: several processes may write the file at the same time, so each uses a temporary path of its own.
    """
    target = pathlib.Path(file)
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part" if shared else f"{target.name}.part")
    temporary.unlink(missing_ok=True)  # it may be a link, and what that leads to would be overwritten
    try:
        yield temporary
        with open(temporary, "rb") as written:  # else a power cut may leave an empty file
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def as_paths(paths: str | pathlib.Path | Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Return one path, or several, as a list."""
    return [pathlib.Path(path) for path in ([paths] if isinstance(paths, str | pathlib.Path) else paths)]


def read_json(file: pathlib.Path) -> Any:
    """Read a JSON file, if it is a regular one (:func:`check_regular`)."""
    check_regular(file)
    return json.loads(file.read_bytes())


def write_bytes(file: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON file atomically, indented by one space."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a file or a directory to NAME.before-TIME, and return its new path."""
    return path.rename(path.with_name(f"{path.name}.before-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"))


@contextlib.contextmanager
def locked(file: str | os.PathLike[str], on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that excludes other processes; the operating system releases it however the process ends.

    Args:
      file: an empty file that stands for the lock. It is created if it is missing, and stays.
      on_wait: called if another process holds the lock. It may raise; if it returns, the call waits for the lock.
    """
    lock = filelock.FileLock(file, preserve_lock_file=True)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
