"""Arrays of npy and npz files, whose stated sizes are checked before they are read."""

import contextlib
import math
import os
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.runtime import files

MAX_ARRAY_BYTES = 2**31
"""Largest array that is read from an npy or npz file, 2 GiB: a header or a compressed member can state any size."""

_SAVE = "save it again as .npy or .npz"
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What an array's header states."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class ArrayFile(NamedTuple):
    """An open npy or npz file, whose arrays are read one at a time."""

    path: pathlib.Path
    file: IO[bytes]
    archive: zipfile.ZipFile | None
    """The npz; None for an npy."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the arrays of an npz; one empty name for an npy."""
        return [name.removesuffix(".npy") for name in self.archive.namelist()] if self.archive else ("",)

    def fields(self) -> Sequence[str]:
        """Return the names of the arrays of an npz, or of the fields of the array of an npy."""
        if self.archive:
            return self.names
        with files.readable(self.path, _SAVE):
            self.file.seek(0)
            return _read_header(self.file).dtype.names or ()

    def header(self, name: str = "") -> Header:
        """Return shape and type of one array, without reading it.

        Raises:
          ConfigError: as :meth:`read`.
        """
        with self._opened(name) as (content, size, label):
            return _checked_header(content, size, label)

    def read(self, name: str = "") -> NDArray[Any]:
        """Read one array, unless its header states more than the file holds, or more than ``MAX_ARRAY_BYTES``.

        Raises:
          ConfigError: not an array, damaged, of Python objects, or too large.
        """
        with self._opened(name) as (content, size, label):
            _checked_header(content, size, label)
            content.seek(0)
            return np.lib.format.read_array(content)  # pickles are refused by default

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], int, str]]:
        """Yield an array in npy format as a file, its size in bytes, and its name for messages."""
        label = f"{self.path}: {name}" if name else str(self.path)
        with files.readable(label, _SAVE):
            if self.archive is None:
                self.file.seek(0)
                yield self.file, os.fstat(self.file.fileno()).st_size, label
                return
            members = self.archive.namelist()
            member = self.archive.getinfo(name if name in members else f"{name}.npy")
            with self.archive.open(member) as content:
                yield content, member.file_size, label


@contextlib.contextmanager
def open_arrays(path: pathlib.Path) -> Iterator[ArrayFile]:
    """Open an npy or npz file, whatever its suffix.

    Raises:
      ConfigError: not a regular file, not in these formats, or damaged.
    """
    files.check(path)
    with contextlib.ExitStack() as stack:
        with files.readable(path, _SAVE):
            file = stack.enter_context(path.open("rb"))
            start = file.read(6)
            archive = stack.enter_context(zipfile.ZipFile(file)) if start[:2] == b"PK" else None
            if archive is None and start != np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is in neither format" if start else "it is empty")
        yield ArrayFile(path, file, archive)


def _read_header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = _READ_HEADER[version](file)
    return Header(shape, dtype)


def _checked_header(file: IO[bytes], size: int, label: str) -> Header:
    """Read the header of an array in npy format, in a file of ``size`` bytes, and check the size that it states."""
    shape, dtype = _read_header(file)
    stated = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"its header states {dtype} {shape}")
    if stated > MAX_ARRAY_BYTES:
        raise ConfigError(f"{label}: states an array of {stated:,} bytes; allowed are {MAX_ARRAY_BYTES:,}; divide it")
    if stated > size - file.tell():
        raise ValueError(f"its header states {stated:,} bytes of data, but {size - file.tell():,} follow")
    return Header(shape, dtype)
