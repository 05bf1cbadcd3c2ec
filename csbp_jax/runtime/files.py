"""The door for all files: read within limits, written completely or not at all, and locked by one process at a time.

What a user or a stranger names is opened only as a regular file of at most some size, and results stay in their folder.
"""

import contextlib
import datetime
import json
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import filelock

from csbp_jax.config import FULL, ConfigError, extras, one_line, writing

LARGE = 2**32
"""Largest file that is read, 4 GiB: a sparse file can state any size."""
SMALL = 2**26
"""Largest JSON file, text, piece of code or figure that is read, 64 MiB."""


def problem(path: str | os.PathLike[str], most: int = LARGE) -> str:
    """Say why a path must not be opened, or nothing: to open a pipe or a device could wait without end."""
    try:
        status = os.stat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return "there is no such file" if missing else f"cannot be read ({error.strerror})"
    except ValueError as error:  # a null byte, or a character that the names of files cannot have
        return f"is no name of a file ({one_line(error)})"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file, but a folder, pipe or device; give a file"
    too_large = status.st_size > most
    return f"has {status.st_size:,} bytes; allowed are {most:,}; give a smaller one" if too_large else ""


def check(path: str | os.PathLike[str], most: int = LARGE) -> None:
    """Check that a path is that of a regular file of at most ``most`` bytes, before it is opened.

    Raises:
      ConfigError: it is not.
    """
    if reason := problem(path, most):
        raise ConfigError(f"{os.fspath(path)}: {reason}")


@contextlib.contextmanager
def readable(
    name: object,
    remedy: str,
    errors: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    problem: str = "cannot be read",
) -> Iterator[None]:
    """Turn what a library raises on a damaged file, which may be of many types, into one line that names the file.

    Raises:
      ConfigError: "NAME: PROBLEM (the library's message); REMEDY".
    """
    try:
        yield
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except errors as error:
        raise ConfigError(f"{name}: {problem} ({one_line(error)}); {remedy}") from None


def read_bytes(path: str | os.PathLike[str], most: int = SMALL, start: int = 0) -> bytes:
    """Read a file, from byte ``start`` on.

    Raises:
      ConfigError: as :func:`check`, or it cannot be read.
    """
    check(path, most)
    with readable(path, "check the file", OSError), open(path, "rb") as file:
        file.seek(start)
        return file.read()


def read_json(file: pathlib.Path) -> Any:
    """Read a JSON file; see :func:`read_bytes`."""
    return json.loads(read_bytes(file))


@contextlib.contextmanager
def hdf5(path: pathlib.Path, extra: str) -> Iterator[Any]:
    """Open an HDF5 file whose values are all its own, for its library follows links into any other file.

    ``extra``: that of this package which installs h5py.

    Raises:
      ConfigError: as :func:`check`, it is damaged, an object is in another file or has two names, or its arrays would
        take more than ``LARGE`` bytes.
    """
    extras.need(extra, str(path), "h5py")
    import h5py

    check(path)
    sizes: dict[str, int] = {}

    def add(name: str, item: Any) -> None:
        sizes[name] = 0
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise ConfigError(f"{path}: {name}: its values are in another file")
            sizes[name], stored = item.nbytes, item.id.get_storage_size()
            # Values that were never written take no space, and deflate makes them at most 1032 times smaller.
            if sum(sizes.values()) > LARGE or item.nbytes > 2**20 + 1032 * stored:
                raise ConfigError(
                    f"{path}: {name}: states {item.nbytes:,} bytes, and holds {stored:,}; allowed are {LARGE:,} of all "
                    "arrays, and 1032 times what is held"
                )

    with readable(path, "fetch or export it again"), h5py.File(path, "r") as file:
        file.visititems(add)
        links: list[str] = []
        file.visit_links(links.append)
        # Each object was visited once, and none in another file.
        if others := [name for name in links if name not in sizes]:
            raise ConfigError(f"{path}: {others[0]}: is in another file, or has another name in this one")
        yield file


def write_problem(folder: pathlib.Path) -> str:
    """Create a folder and write to it; return what fails, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


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


def is_open_at(path: str | os.PathLike[str], descriptor: int, *, follow_link: bool = False) -> bool:
    """Return whether a path is still that of the file or folder that a descriptor holds open.

    Args:
      path: where the file or folder was when it was opened.
      descriptor: holds it open, so that no other file or folder can get its number.
      follow_link: whether a link at ``path`` that leads to it counts.
    """
    try:
        status = os.stat(path, follow_symlinks=follow_link)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), status)


@contextlib.contextmanager
def closed_after(close: Callable[[], object]) -> Iterator[None]:
    """Call ``close`` at the end; after an error in the block, that of closing does not take its place."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            close()
        raise
    close()


@contextlib.contextmanager
def full_disk_ignored() -> Iterator[None]:
    """Suppress the error that the disk, or the user's share of it, is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


@contextlib.contextmanager
def replacing(file: str | os.PathLike[str], *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yield a temporary path in the directory of ``file``; what is written to it replaces ``file`` at the end.

    If the block raises, ``file`` stays as it was and the temporary file is removed; an OSError becomes a WriteError. A
    pipe or a device, such as /dev/stdout, is yielded itself: a file must not replace it.

    Args:
      file: the final path. Its directory must exist.
      shared: several processes may write the file at the same time, so each uses a temporary path of its own.
    """
    target = pathlib.Path(file)
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part" if shared else f"{target.name}.part")
    try:
        with writing(target):
            temporary.unlink(missing_ok=True)  # it may be a link, and what that leads to would be overwritten
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


def write_bytes(file: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def write_text(file: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(file, text.encode())


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
    if os.path.islink(file):
        raise ConfigError(f"{os.fspath(file)}: is a link; remove it")
    lock = filelock.FileLock(file, preserve_lock_file=True)
    try:
        acquired = lock.acquire(timeout=0)
    except filelock.Timeout:
        on_wait()
        acquired = lock.acquire()
    with acquired:
        yield
