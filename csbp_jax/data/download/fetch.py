"""The files a data set is published as: found or downloaded, and checked."""

import dataclasses
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from csbp_jax.config import ConfigError

Show = Callable[[str, int, int], None]
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class RawFile:
    """A file as it is published: its name, bytes (None: not stated), ``algorithm:checksum``, where it comes from."""

    name: str
    size: int | None
    checksum: str
    url: str
    download: bool = True
    """False: the URL is a page where one has to register."""
    unpacked: "RawFile | None" = None
    """The same file without its .gz, which will do as well."""


def fetch(
    wanted: Sequence[RawFile], folder: pathlib.Path | None, downloads: pathlib.Path, verify: bool, show: Show
) -> dict[str, pathlib.Path]:
    """Where each original is, by its name: found in ``folder``, or in ``downloads``, where missing ones are loaded.

    Args:
      wanted: all files of a data set.
      folder: the user's; None downloads.
      downloads: for what is downloaded; kept, so that it is not loaded twice.
      verify: check sizes and checksums.
      show: ``show(stage, done, total)``, in bytes.

    Raises:
      ConfigError: files are missing (names all, their sizes and sources), cannot be downloaded, or are not the
        originals.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name the one that holds {_names(wanted)}")
    place = downloads if folder is None else folder
    found, missing = {}, []
    for original in wanted:
        forms = [form for form in (original, original.unpacked) if form and (place / form.name).is_file()]
        if forms:
            found[original] = forms[0]
        else:
            missing.append(original)
    if missing and (folder is not None or not all(original.download for original in missing)):
        raise ConfigError(missing_from(place, missing))
    for original in missing:
        download(original, downloads, show, missing_from(downloads, [other for other in missing if other not in found]))
        found[original] = original
    if verify:
        for form in found.values():
            check(form, place / form.name, show)
    return {original.name: place / form.name for original, form in found.items()}


def _names(originals):
    return ", ".join(original.name for original in originals)


def missing_from(place: pathlib.Path, missing: Sequence[RawFile]) -> str:
    """Names all missing files, their sizes and sources, and says where to put them."""
    files = ", ".join(
        f"{original.name} ({f'{original.size:,} bytes, ' if original.size is not None else ''}"
        f"{'from' if original.download else 'which one gets after registration at'} {original.url})"
        for original in missing
    )
    return f"missing in {place}: {files}; put them there under these names"


def download(original: RawFile, folder: pathlib.Path, show: Show, otherwise: str) -> None:
    """Into ``folder``, under its name only once it is whole and checked; until then as ``NAME.part``.

    What was loaded before an interruption is kept, if the server can go on from there.

    Args:
      original: what to load.
      folder: made if it is not there.
      show: ``show(stage, done, total)``, in bytes.
      otherwise: what an error says can be done instead.

    Raises:
      ConfigError: the server cannot be reached or has no such file, the connection broke, or the file is another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{original.name}.part"
    done = part.stat().st_size if part.exists() else 0
    if original.size is None or done < original.size:
        try:
            done, size = _load(original, part, done, show)
        except (OSError, http.client.HTTPException) as error:
            told = " ".join(str(error).split())
            raise ConfigError(
                f"{original.url} cannot be downloaded ({told}); run again to go on, or {otherwise}"
            ) from None
        if done < size:
            raise ConfigError(f"{original.url}: the connection broke after {done:,} of {size:,} bytes; run again")
    try:
        check(original, part, show)
    except ConfigError:
        part.unlink()
        raise
    os.replace(part, folder / original.name)


def _load(original, part, done, show):
    """Appends to ``part``, which has ``done`` bytes; gives how many it has then and how many it should have."""
    headers = {"User-Agent": "csbp_jax"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(original.url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:  # there is nothing after what we have
                return done, done
        raise
    with answer, open(part, "ab") as file:
        if answer.status not in (200, 206):
            raise OSError(f"the server answers {answer.status} {answer.reason} instead of the file")
        if answer.status == 200:  # it sends the whole file again
            file.truncate(0)
            done = 0
        size = original.size or done + int(answer.headers["Content-Length"] or 0)
        while (not size or done <= size) and (block := answer.read(_BLOCK)):
            file.write(block)
            done += len(block)
            show(f"download {original.name}", min(done, size or done), size)
    return done, size


def check(original: RawFile, path: pathlib.Path, show: Show) -> None:
    """Compares checksum, and size where it is known.

    Raises:
      ConfigError: they differ; names the file, what was expected and what was found.
    """
    mend = f"fetch it again from {original.url}"
    size = path.stat().st_size
    if original.size is not None and size != original.size:
        raise ConfigError(f"{path}: it has {size:,} bytes, the original {original.size:,}; {mend}")
    algorithm, expected = original.checksum.split(":")
    found = digest(path, algorithm, show)
    if found != expected:
        raise ConfigError(f"{path}: its {algorithm} is {found}, that of the original {expected}; {mend}")


def digest(path: pathlib.Path, algorithm: str, show: Show) -> str:
    """The checksum of a file, in hexadecimal digits."""
    total, done, state = path.stat().st_size, 0, hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            done += len(block)
            show(f"check {path.name}", done, total)
    return state.hexdigest()
