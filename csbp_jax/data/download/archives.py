"""Archives read in place, or unpacked so that nothing lands outside the target and no disk fills up."""

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
from typing import IO

from csbp_jax.config import ConfigError


@contextlib.contextmanager
def damage(path: pathlib.Path | str) -> Iterator[None]:
    """Turns whatever an archive's readers raise on damaged bytes into one line.

    Raises:
      ConfigError: names the file.
    """
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path}: damaged or cut short ({told}); fetch it again") from None


class _Member(tarfile.TarInfo):
    """tarfile takes the end of the file for the end of the archive, which a cut between two members looks like."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EmptyHeaderError:
            raise tarfile.ReadError("the block that ends an archive is missing") from None


def members(archive: IO[bytes], path: pathlib.Path | str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """The plain files of a tar archive, in order, read in place: nothing is written, whatever they are called.

    Args:
      archive: an open tar, compressed or not, which need not seek.
      path: what an error calls it.

    Raises:
      ConfigError: damaged.
    """
    with damage(path), tarfile.open(fileobj=archive, mode="r|*", tarinfo=_Member) as tar:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                yield member, content


def read(file: IO[bytes], name: str, limit: int) -> bytes:
    """All of a file, which is to have no more than ``limit`` bytes once unpacked.

    Raises:
      ConfigError: it has more.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ConfigError(f"{name}: unpacked it has more than {limit:,} bytes, so it is not the original")
    return content


def extract(path: pathlib.Path, target: pathlib.Path, limit: int) -> None:
    """Unpacks a tar or zip into the new folder ``target``, which is there only once all of it is.

    Args:
      path: the archive.
      target: must not exist.
      limit: bytes that all files together may have.

    Raises:
      ConfigError: damaged, too large, or a member or link would lie outside ``target``.
    """
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with damage(path):
        if path.suffix.lower() == ".zip":
            _unzip(path, part, limit)
        else:
            _untar(path, part, limit)
    os.replace(part, target)


def _untar(path, target, limit):
    total = 0
    with tarfile.open(path, tarinfo=_Member) as tar:
        for member in tar:
            total = _within(path, total + member.size, limit)
            try:
                tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                raise ConfigError(f"{path}: {member.name} would be written outside its folder ({error})") from None
            except KeyError:
                raise ConfigError(f"{path}: {member.name} is a link to nothing; fetch it again") from None


def _unzip(path, target, limit):
    seen = {}
    with zipfile.ZipFile(path) as archive:
        _within(path, sum(member.file_size for member in archive.infolist()), limit)
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise ConfigError(f"{path}: {member.filename} would be written outside its folder")
            content = member.CRC, member.file_size
            if seen.setdefault(name, content) != content:
                raise ConfigError(f"{path}: holds {name} twice, with other contents; fetch it again")
            try:
                archive.extract(member, target)
            except RuntimeError as error:  # encrypted, or packed in a way that zipfile does not know
                raise ConfigError(f"{path}: {name} cannot be unpacked ({error}); fetch it again") from None


def _within(path, total, limit):
    if total > limit:
        raise ConfigError(f"{path}: unpacked it has more than {limit:,} bytes, so it is not the original")
    return total
