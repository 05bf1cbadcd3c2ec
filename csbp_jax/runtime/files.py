"""Atomic writes and locks: a reader sees a complete file or none, and one process at a time changes a directory.

Also the checks before files of others are read, and before results are written beside them.
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

MAX_BYTES = 2**32
"""Largest file that is read, 4 GiB: a sparse file can state any size."""
MAX_SMALL_BYTES = 2**26
"""Largest JSON file, text, piece of code or figure that is read, 64 MiB."""


def write_problem(folder: pathlib.Path) -> str:
    """Create a folder and write to it; return what fails, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def kind_problem(path: str | os.PathLike[str]) -> str:
    """Say what a path is, if it exists and is no regular file: to open a pipe or a device could wait without end."""
    irregular = os.path.exists(path) and not os.path.isfile(path)
    return "is not a regular file, but a folder, pipe or device" if irregular else ""


def check_regular(path: str | os.PathLike[str], most: int = MAX_BYTES) -> None:
    """Check that a path, if it exists, is a regular file of at most ``most`` bytes, before it is opened.

    Raises:
      ConfigError: it is not, or is larger.
    """
    if problem := kind_problem(path):
        raise ConfigError(f"{path}: {problem}; give a file")
    try:
        size = os.stat(path).st_size
    except OSError:  # opening it raises the same, and every format has its own message for that
        return
    if size > most:
        raise ConfigError(f"{path}: has {size:,} bytes; allowed are {most:,}; give a smaller one")


def read_bytes(path: str | os.PathLike[str], most: int = MAX_SMALL_BYTES) -> bytes:
    """Read a file, if it is a regular one and not too large (:func:`check_regular`)."""
    check_regular(path, most)
    return pathlib.Path(path).read_bytes()


def check_links(folder: pathlib.Path, *names: str) -> None:
    """Check that results stay in a folder: no named folder in it is a link, and no file in it or them a pipe or device.

    Raises:
      ConfigError: one is.
    """
    for name in names:
        if os.path.islink(folder / name):
            raise ConfigError(f"{folder / name}: is a link, and results would be written where it leads; remove it")
    for path in (path for part in (folder, *(folder / name for name in names)) for path in part.glob("*")):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path}: is a pipe or a device, or a link to one; remove it")


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
    """Read a JSON file; see :func:`read_bytes`."""
    return json.loads(read_bytes(file))


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
