"""Tar and zip archives: members read without unpacking, or unpacked within limits of path and size."""

import contextlib
import gzip
import lzma
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol, Self

from csbp_jax.config import ConfigError


class Readable(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes: ...


@contextlib.contextmanager
def damage(path: pathlib.Path | str) -> Iterator[None]:
    """Turn whatever the readers of an archive raise on damaged bytes into a one-line error.

    Raises:
      ConfigError: names the file.
    """
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: damaged or truncated ({reason}); fetch it again") from None


class _Member(tarfile.TarInfo):
    """A tar member whose reader requires the end marker: tarfile takes a cut between two members for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise tarfile.ReadError("the block that ends an archive is missing") from None


def members(archive: IO[bytes], path: pathlib.Path | str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Iterate over the regular files of a tar archive, in order, without writing anything.

    Args:
      archive: an open tar, compressed or not, which need not seek.
      path: name for error messages.

    Raises:
      ConfigError: damaged.
    """
    with damage(path), tarfile.open(fileobj=archive, mode="r|*", tarinfo=_Member) as tar:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                yield member, content


def read(file: Readable, name: str, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes, counted after decompression.

    Raises:
      ConfigError: it has more.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ConfigError(_too_large(name, limit))
    return content


def extract(path: pathlib.Path, target: pathlib.Path, limit: int) -> None:
    """Unpack a tar or zip into the new directory ``target``, which appears only once it is complete.

    Args:
      path: the archive.
      target: must not exist.
      limit: largest total size of all files, in bytes.

    Raises:
      ConfigError: damaged, too large, or a member or link would lie outside ``target``.
    """
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with damage(path):
        if path.suffix.lower() == ".zip":
            _unzip(path, partial, limit)
        else:
            _untar(path, partial, limit)
    os.replace(partial, target)


def _untar(path: pathlib.Path, target: pathlib.Path, limit: int) -> None:
    total = 0
    with tarfile.open(path, tarinfo=_Member) as tar:
        for member in tar:
            total += member.size
            if total > limit:
                raise ConfigError(_too_large(path, limit))
            try:
                tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                raise ConfigError(f"{path}: {member.name} would be written outside its directory ({error})") from None
            except KeyError:
                raise ConfigError(f"{path}: {member.name} is a link to a missing file; fetch it again") from None


def _unzip(path: pathlib.Path, target: pathlib.Path, limit: int) -> None:
    contents: dict[pathlib.PurePosixPath, tuple[int, int]] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise ConfigError(_too_large(path, limit))
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise ConfigError(f"{path}: {member.filename} would be written outside its directory")
            content = member.CRC, member.file_size
            if contents.setdefault(name, content) != content:
                raise ConfigError(f"{path}: contains {name} twice, with different contents; fetch it again")
            try:
                archive.extract(member, target)
            except RuntimeError as error:  # encrypted, or a compression that zipfile lacks
                raise ConfigError(f"{path}: {name} cannot be unpacked ({error}); fetch it again") from None


def _too_large(name: pathlib.Path | str, limit: int) -> str:
    return f"{name}: has more than {limit:,} bytes when unpacked, so it is not the published file; fetch it again"
