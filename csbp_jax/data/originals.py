"""The files a data set is published as: found or downloaded, and checked."""

import dataclasses
import hashlib
import os
import pathlib
import urllib.request
from collections.abc import Callable, Sequence

from csbp_jax.config import ConfigError

Show = Callable[[str, int, int], None]
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Original:
    """A file as it is published: its name, bytes, ``algorithm:checksum``, and where it comes from."""

    name: str
    size: int
    checksum: str
    url: str
    download: bool = True
    """False: the URL is a page where one has to register."""
    unpacked: "Original | None" = None
    """The same file without its .gz, which will do as well."""


def obtain(
    wanted: Sequence[Original], folder: pathlib.Path | None, downloads: pathlib.Path, verify: bool, show: Show
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
        raise ConfigError(_missing(missing, place))
    for original in missing:
        _download(original, downloads, show, [other for other in missing if other not in found])
        found[original] = original
    if verify:
        for form in found.values():
            check(form, place / form.name, show)
    return {original.name: place / form.name for original, form in found.items()}


def _names(originals):
    return ", ".join(original.name for original in originals)


def _missing(missing, place):
    files = ", ".join(
        f"{original.name} ({original.size:,} bytes, "
        f"{'from' if original.download else 'which one gets after registration at'} {original.url})"
        for original in missing
    )
    return f"missing in {place}: {files}; put them there under these names"


def _download(original, downloads, show, missing):
    """Into ``downloads``; what was loaded before an interruption is kept, if the server can go on from there."""
    downloads.mkdir(parents=True, exist_ok=True)
    part = downloads / f"{original.name}.part"
    done = part.stat().st_size if part.exists() else 0
    if done < original.size:
        request = urllib.request.Request(original.url, headers={"Range": f"bytes={done}-"} if done else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer, open(part, "ab") as file:
                if answer.status != 206:  # it sends the whole file again
                    file.truncate(0)
                    done = 0
                while done <= original.size and (block := answer.read(_BLOCK)):
                    file.write(block)
                    done += len(block)
                    show(f"download {original.name}", min(done, original.size), original.size)
        except OSError as error:
            raise ConfigError(
                f"{original.url} cannot be downloaded ({error}); run again to go on, or {_missing(missing, downloads)}"
            ) from None
    if done < original.size:
        raise ConfigError(f"{original.url}: the connection broke after {done:,} of {original.size:,} bytes; run again")
    try:
        check(original, part, show)
    except ConfigError:
        part.unlink()
        raise
    os.replace(part, downloads / original.name)


def check(original: Original, path: pathlib.Path, show: Show) -> None:
    """Compares size and checksum.

    Raises:
      ConfigError: they differ; names the file, what was expected and what was found.
    """
    mend = f"fetch it again from {original.url}"
    size = path.stat().st_size
    if size != original.size:
        raise ConfigError(f"{path}: it has {size:,} bytes, the original {original.size:,}; {mend}")
    algorithm, expected = original.checksum.split(":")
    digest, done = hashlib.new(algorithm), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            show(f"check {path.name}", done, size)
    if digest.hexdigest() != expected:
        raise ConfigError(f"{path}: its {algorithm} is {digest.hexdigest()}, that of the original {expected}; {mend}")
