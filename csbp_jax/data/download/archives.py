"""Tar and zip archives: members read without unpacking, or unpacked within limits of path and size."""

import contextlib
import errno
import gzip
import io
import lzma
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Self

from csbp_jax.config import ConfigError
from csbp_jax.runtime.files import readable

# Of the next member's name or attributes, which tarfile reads into memory.
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotImplementedError,  # the version of a zip
    RecursionError,  # many long names in a row
)
# Of a name that is too long, or that of a file and of a folder.
_REFUSED_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)

MAX_MEMBERS = 100_000
"""Most members of an archive; N-MNIST, which has the most, has 60,000 files."""


def damage(path: pathlib.Path | str) -> contextlib.AbstractContextManager[None]:
    """Turn whatever the readers of an archive raise on damaged bytes into a one-line error that names the file."""
    return readable(path, "fetch it again", _DAMAGE, "damaged or truncated")


class _Member(tarfile.TarInfo):
    """A tar member whose reader requires the end marker and possible sizes.

    tarfile takes a cut between two members for the end, and with a negative size some versions of it never reach one.
    """

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Self:
        # The method that tarfile offers to subclasses for this; some of its versions do not call frombuf.
        _check_size(self)
        return super()._proc_member(tarfile_)  # type: ignore[misc]  # typeshed lacks it

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            member = super().fromtarfile(tarfile_)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise tarfile.ReadError("the block that ends an archive is missing") from None
        _check_size(member)  # again: a header before it may state another one
        return member


def _check_size(member: tarfile.TarInfo) -> None:
    """Check that a size is possible: at most 1 MiB of a header, 1 TiB of others.

    Raises:
      tarfile.ReadError: it is not, or the member has holes, with which it may write more than it states.
    """
    has_holes = member.type == tarfile.GNUTYPE_SPARSE or member.issparse()
    if has_holes or not 0 <= member.size <= (2**20 if member.type in _HEADERS else 2**40):
        raise tarfile.ReadError("a member of impossible size, or with holes")


def members(archive: IO[bytes], path: pathlib.Path | str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Iterate over the regular files of a tar archive, in order, without writing anything.

    Args:
      archive: an open tar, compressed or not, which need not seek.
      path: name for error messages.

    Raises:
      ConfigError: damaged.
    """
    with damage(path), tarfile.open(fileobj=archive, mode="r|*", tarinfo=_Member) as tar:
        for member in _counted(tar):
            if member.isfile() and (content := tar.extractfile(member)):
                yield member, content


def _counted(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Iterate over the members of a tar, which keeps none of them.

    Raises:
      tarfile.ReadError: they are more than in any published file.
    """
    for number, member in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise tarfile.ReadError(f"more than {MAX_MEMBERS:,} members")
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it; or it lists them all


def read(file: IO[bytes] | io.BufferedIOBase, name: str, limit: int) -> bytes:
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
      ConfigError: damaged, too large, a link of a tar, or a member would lie outside ``target``.
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
        for member in _counted(tar):
            total += member.size
            if total > limit:
                raise ConfigError(_too_large(path, limit))
            if member.issym() or member.islnk():  # the filter of some versions of Python lets some links lead outside
                raise ConfigError(
                    f"{path}: {member.name} would be written outside its directory, or others through it (a link); "
                    "fetch the original"
                )
            try:
                with _unpacking(path, member.name):
                    tar.extract(member, target, filter="data")
            except tarfile.FilterError as error:
                raise ConfigError(f"{path}: {member.name} would be written outside its directory ({error})") from None


def _unzip(path: pathlib.Path, target: pathlib.Path, limit: int) -> None:
    contents: dict[pathlib.PurePosixPath, tuple[int, int]] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise ConfigError(_too_large(path, limit))
        if len(archive.infolist()) > MAX_MEMBERS:
            raise zipfile.BadZipFile(f"more than {MAX_MEMBERS:,} members")
        for member in archive.infolist():
            name = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise ConfigError(f"{path}: {member.filename} would be written outside its directory")
            content = member.CRC, member.file_size
            if contents.setdefault(name, content) != content:
                raise ConfigError(f"{path}: contains {name} twice, with different contents; fetch it again")
            try:
                with _unpacking(path, str(name)):
                    archive.extract(member, target)
            except RuntimeError as error:  # encrypted, or a compression that zipfile lacks
                raise ConfigError(f"{path}: {name} cannot be unpacked ({error}); fetch it again") from None


@contextlib.contextmanager
def _unpacking(path: pathlib.Path, member: str) -> Iterator[None]:
    """Turn the refusal of a member's name by the operating system into a one-line error that names the archive.

    Other errors of the system, such as that of a full disk, are not the archive's.

    Raises:
      ConfigError: the name is too long, or is that of a file and of a folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED_NAMES:
            raise
        raise ConfigError(f"{path}: {member} cannot be unpacked ({error.strerror}); fetch it again") from None


def _too_large(name: pathlib.Path | str, limit: int) -> str:
    return f"{name}: has more than {limit:,} bytes when unpacked, so it is not the published file; fetch it again"
