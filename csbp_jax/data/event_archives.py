"""The archives of data sets of events: which they are, where they lie or come from, their checksums."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

from csbp_jax.config import ConfigError
from csbp_jax.data.recordings import DATA_SETS

Show = Callable[[str, int, int], None]


class Archive(NamedTuple):
    file: str
    md5: str
    url: str


# CIFAR10-DVS as its authors published it, AEDAT 2.0, an archive a class; checksums as SpikingJelly states them.
_FIRST_RELEASE = resources.files("csbp_jax.data").joinpath("manifests/cifar10_dvs_archives.json")
_HINTS = {
    "nmnist": "1.2 GB together",
    "ncaltech101": "4.0 GB",
    "cifar10_dvs": "or, of the first release, airplane.zip to truck.zip, 8.4 GB, from https://figshare.com/articles/4724671",
}


def _expected(name):
    """The archives that tonic expects, with its checksums and addresses."""
    import tonic.datasets

    form = getattr(tonic.datasets, DATA_SETS[name].tonic)
    if name in ("cifar10_dvs", "ncaltech101"):
        return [Archive(form.filename, form.file_md5, form.url)]
    if name == "shd":
        return [
            Archive(file, md5, form.base_url + file)
            for file, md5 in ((form.train_zip, form.train_md5), (form.test_zip, form.test_md5))
        ]
    return [
        Archive(form.train_filename, form.train_md5, form.train_url),
        Archive(form.test_filename, form.test_md5, form.test_url),
    ]


def find(name: str, originals: pathlib.Path | None, home: pathlib.Path) -> dict[Archive, pathlib.Path]:
    """Where each archive of a data set is. Upper or lower case in a name does not matter, nor a folder in between.

    Args:
      name: one of ``recordings.DATA_SETS``.
      originals: the user's folder; None: what is missing is downloaded.
      home: where archives are kept once prepared; searched too.

    Raises:
      ConfigError: archives are missing (names all, and where they come from), or cannot be downloaded.
    """
    if originals is not None and not originals.is_dir():
        raise ConfigError(f"{originals}: there is no such folder; name the one with the originals of {name}")
    there = {
        path.name.lower(): path
        for place in (home, originals)  # the user's folder goes before, and in it what is not deeper
        for depth in ("*/*", "*")
        for path in (sorted(place.glob(depth)) if place else ())
        if path.is_file()
    }
    wanted = _expected(name)
    first = [Archive(**entry) for entry in json.loads(_FIRST_RELEASE.read_text())]
    if name == "cifar10_dvs" and wanted[0].file.lower() not in there and any(a.file in there for a in first):
        wanted = first
    missing = [archive for archive in wanted if archive.file.lower() not in there]
    if missing and originals is not None:
        hint = f" ({_HINTS[name]})" if name in _HINTS else ""
        raise ConfigError(
            f"{name}: missing in {originals}: {', '.join(archive.file for archive in missing)}; put there, as it is, "
            f"{', '.join(f'{archive.file} from {archive.url}' for archive in missing)}{hint}"
        )
    there |= {archive.file.lower(): _download(archive, home) for archive in missing}
    return {archive: there[archive.file.lower()] for archive in wanted}


def _download(archive, home):
    from tonic.download_utils import download_url

    try:
        download_url(archive.url, home / ".download", archive.file, archive.md5)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{archive.url} cannot be downloaded ({error}); fetch it elsewhere as {archive.file} and name its folder: "
            "FROM=folder"
        ) from None
    return home / ".download" / archive.file


def md5(path: pathlib.Path, show: Show) -> str:
    """The checksum of a file; ``show(stage, done, total)`` in bytes."""
    digest, done, size = hashlib.md5(usedforsecurity=False), 0, path.stat().st_size
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
            done += len(block)
            show(f"check {path.name}", done, size)
    return digest.hexdigest()
