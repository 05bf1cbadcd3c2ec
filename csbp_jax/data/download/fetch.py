"""Raw files as a data set publishes them: located or downloaded, and verified."""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence

from csbp_jax.config import ConfigError, one_line

Show = Callable[[str, int, int], None]
"""Progress callback ``show(stage, done, total)``; a total of 0 is unknown."""
_BLOCK = 1 << 20
MAX_UNSTATED = 2**34
"""Largest file without a published size that is downloaded, 16 GiB; the largest, CIFAR10-DVS, has about 11.2 GB."""


@dataclasses.dataclass(frozen=True)
class RawFile:
    """A published file: name, size in bytes (None: not stated), ``algorithm:checksum`` and address."""

    name: str
    size: int | None
    checksum: str
    url: str
    download: bool = True
    """False: the URL is a page that requires registration."""
    unpacked: "RawFile | None" = None
    """The same file without its .gz, which is accepted too."""
    pickled: bool = False
    """True: its reader runs a pickle, and so takes no other file than the published one."""
    digest: Callable[[pathlib.Path], str] | None = None
    """Computes the checksum, where it is not that of the file's bytes."""


def fetch(
    wanted: Sequence[RawFile], raw_dir: pathlib.Path | None, downloads: pathlib.Path, verify: bool, show: Show
) -> dict[str, pathlib.Path]:
    """Locate raw files in ``raw_dir``, or else in ``downloads``, to which missing ones are downloaded.

    Args:
      wanted: all raw files of a data set.
      raw_dir: the user's directory; None downloads.
      downloads: directory of downloaded files, which stay there for the next time.
      verify: check sizes and checksums.
      show: progress callback, in bytes.

    Returns:
      The path of each file by its published name.

    Raises:
      ConfigError: files are missing (names all, with sizes and addresses), cannot be downloaded, or differ from the
        published ones.
    """
    directory = downloads if raw_dir is None else raw_dir
    forms = [(file.name, form) for file in wanted for form in (file.unpacked, file) if form]  # the published one wins
    local = {name: form for name, form in forms if (directory / form.name).is_file()}
    missing = [file for file in wanted if file.name not in local]
    if missing and (raw_dir is not None or not all(file.download for file in missing)):
        raise ConfigError(missing_from(directory, missing))
    for i, file in enumerate(missing):
        download(file, downloads, show, missing_from(downloads, missing[i:]), verify)
        local[file.name] = file
    if verify:
        for form in local.values():
            check(form, directory / form.name, show)
    return {file.name: directory / local[file.name].name for file in wanted}


def not_prepared(name: str, data_dir: pathlib.Path, by_hand: Sequence[RawFile] = ()) -> ConfigError:
    """Make the error of a data set that is not prepared, which says how to get and prepare it.

    Args:
      name: the data set.
      data_dir: directory of prepared data sets.
      by_hand: its raw files, if they cannot be downloaded by a program.
    """
    command = f"make data DATASET={name}"
    if by_hand:
        files = " and ".join(file.name for file in by_hand)
        return ConfigError(
            f"{name} is not prepared in {data_dir}; get {files} from {by_hand[0].url} (after registration), and run: "
            f"{command} FROM=directory-of-these-files"
        )
    return ConfigError(
        f"{name} is not prepared in {data_dir}; run: {command} (this downloads it; FROM=directory uses your raw files)"
    )


def missing_from(directory: pathlib.Path, missing: Iterable[RawFile]) -> str:
    """Compose the message that names missing files, their sizes, their addresses and where to put them."""
    files = ", ".join(
        f"{file.name} ({f'{file.size:,} bytes, ' if file.size is not None else ''}"
        f"{'from' if file.download else 'after registration at'} {file.url})"
        for file in missing
    )
    how = "put them into it under these names, or name their directory (make: FROM=, --from)"
    return f"missing in {directory}: {files}; {how}"


def download(file: RawFile, directory: pathlib.Path, show: Show, otherwise: str, verify: bool = True) -> None:
    """Download a file as ``NAME.part``, and rename it to ``NAME`` once it is complete and, by default, verified.

    An interrupted download is continued, if the server supports that.

    Args:
      file: which to download.
      directory: created if missing.
      show: progress callback, in bytes.
      otherwise: the alternative that an error message names.
      verify: check size and checksum.

    Raises:
      ConfigError: the server cannot be reached or lacks the file, the connection broke, or the file is another.
    """
    if not verify:
        file = dataclasses.replace(file, size=None)  # the server's size decides when the download is complete
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{file.name}.part"
    done = partial.stat().st_size if partial.exists() else 0
    if file.size is None or done < file.size:
        try:
            done, size = _append(file, partial, done, show)
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last of a length that is no number
            raise ConfigError(
                f"{file.url} cannot be downloaded ({one_line(error)}); run again to continue, or fetch by hand what is "
                f"{otherwise}"
            ) from None
        if done < size:
            raise ConfigError(f"{file.url}: the connection broke after {done:,} of {size:,} bytes; run again")
    if verify:
        try:
            check(file, partial, show)
        except ConfigError:
            partial.unlink()
            raise
    os.replace(partial, directory / file.name)


def _append(file: RawFile, partial: pathlib.Path, done: int, show: Show) -> tuple[int, int]:
    """Append to ``partial``, which has ``done`` bytes; return its size after that and the size it should have.

    The latter is 0 if neither the file nor the server states it; a download is then complete where the server ends it.
    """
    headers = {"User-Agent": "csbp_jax"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:  # the file ends where ``partial`` does
                return done, done
        raise
    with answer, open(partial, "ab") as out:
        if answer.status not in (200, 206):
            raise OSError(f"the server answers {answer.status} {answer.reason} instead of the file")
        if answer.status == 200:  # the server ignored the range and sends the file from its start
            out.truncate(0)
            done = 0
        content_range = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers["Content-Range"] or "")
        length = answer.headers["Content-Length"]
        stated = int(content_range[1]) if content_range else done + int(length) if length else 0
        size = file.size or stated
        most = file.size or MAX_UNSTATED
        while size <= most and done <= (size or most) and (block := answer.read(_BLOCK)):
            out.write(block)
            done += len(block)
            show(f"download {file.name}", min(done, size or done), size)
        if max(size, done) > most and file.size is None:
            raise OSError(f"it has more than {most:,} bytes, so it is not the published file")
    return done, size


def check(file: RawFile, path: pathlib.Path, show: Show, verify: bool = True) -> str:
    """Return the checksum of a file, after it is compared with the published one, and the size if that is stated.

    Raises:
      ConfigError: they differ, which ``verify`` says to check; names the file, the expected and the actual value.
    """
    remedy = f"fetch it again from {file.url}" + ("" if file.pickled else ", or accept it: --no-verify")
    size = path.stat().st_size
    if verify and file.size is not None and size != file.size:
        raise ConfigError(f"{path}: has {size:,} bytes, the published file {file.size:,}; {remedy}")
    algorithm, expected = file.checksum.split(":")
    actual = file.digest(path) if file.digest else digest(path, algorithm, show)
    if verify and actual != expected:
        raise ConfigError(f"{path}: its {algorithm} is {actual}, that of the published file {expected}; {remedy}")
    return actual


def digest(path: pathlib.Path, algorithm: str, show: Show) -> str:
    """Compute the checksum of a file, in hexadecimal digits."""
    total, done, state = path.stat().st_size, 0, hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            done += len(block)
            show(f"check {path.name}", done, total)
    return state.hexdigest()
