"""Preparation of event data sets: archives verified, and unpacked where tonic's classes expect them."""

import json
import os
import pathlib
import shutil
from typing import TypedDict, cast, get_origin, get_type_hints

from csbp_jax.config import ConfigError
from csbp_jax.data.download.archives import extract
from csbp_jax.data.download.fetch import RawFile, Show, check, not_prepared
from csbp_jax.data.download.locks import locked, scratch_directory
from csbp_jax.data.events import spoken_digits
from csbp_jax.data.events.archives import DOWNLOADS, find
from csbp_jax.data.events.recordings import CIFAR10, DATA_SETS, index
from csbp_jax.runtime import files, seals

# N-Caltech101 and tonic's CIFAR10-DVS are archives of archives; tonic does not open the outer one.
_INNER = {"Caltech101.zip", *(f"{label}.zip" for label in CIFAR10)}


class Marker(TypedDict):
    """Content of ``prepared.json``, which marks a data set as prepared."""

    archives: dict[str, str]
    """Checksum by file name, of the algorithm of the published one."""
    verified: bool
    """Whether the checksums and numbers of recordings were compared with the published ones."""
    records: dict[str, int]
    """Number of recordings per split."""
    skipped: dict[str, str]
    """Reason by id of the recordings left out."""


def prepare(
    name: str,
    raw_dir: pathlib.Path | None,
    folder: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> None:
    """Unpack the archives of a data set into ``folder/CLASS``.

    What has been unpacked from the same archives already is left as it is. The data set counts as prepared only once
    everything is unpacked; after an interruption preparation starts over. The archives stay beside their content,
    linked or copied, if tonic's classes require them.

    Args:
      name: one of ``recordings.DATA_SETS``.
      raw_dir: folder with the archives; None uses those in ``folder/CLASS``, or downloads them.
      folder: directory of prepared data sets.
      verify: compare checksums (those of ``archives.expected``) and the numbers of recordings.
      bad: "skip" leaves out files that are outside the class folders; with "fail" the first is an error. The content of
        the files is read when their events are counted (``sources.load``).
      show: called with (stage, done, total).

    Raises:
      ConfigError: archives are missing (the message lists them, with where to get and to put them), damaged, or unsafe
        to unpack.
    """
    home = folder / DATA_SETS[name].folder
    with locked(home / ".lock"):
        marker = _read_marker(home)
        complete = (
            marker is not None
            and (marker["verified"] or not verify)
            and marker["records"] == count_recordings(name, folder)
        )
        if not complete or raw_dir is not None:
            archives = find(name, raw_dir, home, show, verify)
            checksums = {archive.name: check(archive, path, show, verify) for archive, path in archives.items()}
            if marker is None or not complete or marker["archives"] != checksums:
                _install(name, archives, home, verify, show)
                _mark_prepared(name, folder, checksums, verify, bad)


def prepared(name: str, folder: pathlib.Path) -> Marker:
    """Read the marker of a prepared data set.

    Raises:
      ConfigError: the data set is not prepared.
    """
    if marker := _read_marker(folder / DATA_SETS[name].folder):
        return marker
    raise not_prepared(name, folder)


def _read_marker(home: pathlib.Path) -> Marker | None:
    """Read the marker; None if there is none, or it is damaged."""
    try:
        content = seals.parse(files.read_bytes(home / "prepared.json"))
    except (OSError, ValueError):
        return None
    types = get_type_hints(Marker).items()
    is_intact = all(isinstance(content.get(key), get_origin(kind) or kind) for key, kind in types)
    return cast(Marker, content) if is_intact else None


def count_recordings(name: str, folder: pathlib.Path) -> dict[str, int] | None:
    """Count the recordings per split; None if they cannot be listed."""
    try:
        return {split: len(members) for split, members in index(name, folder, {}).items()}
    except ConfigError:
        return None


def _install(name: str, archives: dict[RawFile, pathlib.Path], home: pathlib.Path, verify: bool, show: Show) -> None:
    """Unpack in a temporary folder, then move each split to its location by one rename."""
    (home / "prepared.json").unlink(missing_ok=True)
    with scratch_directory(home / ".unpacking") as work:
        for i, (archive, path) in enumerate(archives.items()):
            show(f"unpack {name}", i, len(archives))
            _unpack(path, work / archive.name)
            if archive.digest is None:
                _link_or_copy(path, home / archive.name)
        show(f"unpack {name}", len(archives), len(archives))
        expected = CIFAR10 if name == "cifar10_dvs" else tuple(DATA_SETS[name].splits.values())
        unpacked: dict[str, pathlib.Path | None] = {
            location: min(work.rglob(location), key=lambda path: len(path.parts), default=None) for location in expected
        }
        missing = [location for location, path in unpacked.items() if path is None]
        if len(missing) == len(expected) or (missing and verify):
            # Archives without any of the splits are of no use, verified or not.
            accept = ", or accept it: --no-verify" if len(missing) < len(expected) else ""
            raise ConfigError(
                f"{', '.join(map(str, archives.values()))}: holds no {', '.join(missing)}; fetch the original{accept}"
            )
        for location, source in unpacked.items():
            target = home / location
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            if source is not None:
                source.rename(target)
    shutil.rmtree(home / DOWNLOADS, ignore_errors=True)


def _unpack(path: pathlib.Path, target: pathlib.Path) -> None:
    if path.is_dir():
        spoken_digits.copy(path, target)
        return
    extract(path, target, _limit(path))
    remaining = _limit(path)  # for all inner archives, however many there are
    for inner in [file for file in target.rglob("*.zip") if file.name in _INNER]:
        unpacked = inner.with_suffix(".unpacked")
        extract(inner, unpacked, remaining)
        remaining -= sum(file.stat().st_size for file in unpacked.rglob("*") if file.is_file())
        inner.unlink()


def _limit(archive: pathlib.Path) -> int:
    """Return how many bytes an archive may unpack to: no original has a compression ratio of 50."""
    return max(1 << 30, 50 * archive.stat().st_size)


def _link_or_copy(path: pathlib.Path, target: pathlib.Path) -> None:
    if target.exists() and target.samefile(path):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:  # another file system, or one without hard links
        with files.replacing(target) as temporary:
            shutil.copyfile(path, temporary)


def _mark_prepared(name: str, folder: pathlib.Path, checksums: dict[str, str], verify: bool, bad: str) -> None:
    """Count the recordings and write the marker.

    Raises:
      ConfigError: with ``verify``, the numbers of recordings differ from the published ones.
    """
    home = folder / DATA_SETS[name].folder
    skipped: dict[str, str] | None = {} if bad == "skip" else None
    records = {split: len(members) for split, members in index(name, folder, skipped).items()}
    if verify and records != DATA_SETS[name].num_records:
        raise ConfigError(
            f"{home}: holds {records} recordings, but {name} has {DATA_SETS[name].num_records}; fetch its archives "
            "again, or accept them: --no-verify"
        )
    marker: Marker = {"archives": checksums, "verified": verify, "records": records, "skipped": skipped or {}}
    files.write_text(home / "prepared.json", json.dumps(marker))
