"""Preparing data sets of events: their archives, checked and unpacked to where tonic's classes find them."""

import json
import os
import pathlib
import shutil
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.data.download.archives import extract
from csbp_jax.data.download.fetch import Show, digest
from csbp_jax.data.download.locks import locked, workplace
from csbp_jax.data.events.archives import DOWNLOADS, find
from csbp_jax.data.events.recordings import CIFAR10, DATA_SETS, index

# N-Caltech101 and tonic's CIFAR10-DVS are archives of archives; tonic forgets to open the first.
_INNER = {"Caltech101.zip", *(f"{label}.zip" for label in CIFAR10)}


def prepare(
    name: str,
    originals: pathlib.Path | None,
    folder: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> dict[str, int]:
    """Unpacks the archives of a data set into ``folder/CLASS`` and says how many recordings each part holds.

    What is there already, from the same archives, is left as it is. Until all is unpacked nothing looks prepared; after
    an interruption it starts anew. The archives stay beside, linked or copied: tonic's classes ask for them.

    Args:
      name: one of ``recordings.DATA_SETS``.
      originals: folder with the archives; None: those in ``folder/CLASS``, or else they are downloaded.
      folder: where prepared data sets are kept.
      verify: compare checksums (tonic's) and the numbers of recordings.
      bad: "skip" leaves out files that are in no folder of a class, and tells how many; with "fail" the first is an
        error. What is in the files is looked at when their events are counted (``events.load``).
      show: called with (stage, done, total).

    Raises:
      ConfigError: archives missing (all are named, with where to get and to put them), damaged, or unsafe to unpack.
    """
    home = folder / DATA_SETS[name].tonic
    with locked(home / ".lock"):
        done = _marker(home)
        whole = done and (done["verified"] or not verify) and done["records"] == _count(name, folder)
        if not (whole and originals is None):
            found = find(name, originals, home, show)
            sums = {archive.name: digest(path, "md5", show) for archive, path in found.items()}
            if not (whole and done["archives"] == sums):
                _compare(found, sums if verify else {})
                _install(name, found, home, verify, show)
                done = _finish(name, folder, home, sums, verify, bad)
    return done["records"] | ({"skipped": len(done["skipped"])} if done["skipped"] else {})


def _count(name, folder):
    """Recordings of each part, or None if they cannot even be counted."""
    try:
        return {part: len(members) for part, members in index(name, folder, {}).items()}
    except ConfigError:
        return None


def _compare(found, sums):
    for archive, path in found.items():
        expected = archive.checksum.removeprefix("md5:")
        if sums.get(archive.name, expected) != expected:
            raise ConfigError(
                f"{path}: its md5 is {sums[archive.name]}, that of the original {expected}; fetch it again from "
                f"{archive.url}"
            )


def _finish(name, folder, home, sums, verify, bad):
    """Counts, and writes the note by which a data set is prepared."""
    skipped = {} if bad == "skip" else None
    records = {part: len(members) for part, members in index(name, folder, skipped).items()}
    if verify and records != DATA_SETS[name].records:
        raise ConfigError(f"{home}: holds {records} recordings, but {name} has {DATA_SETS[name].records}")
    done = {"archives": sums, "verified": verify, "records": records, "skipped": skipped or {}}
    (home / "prepared.part").write_text(json.dumps(done))
    (home / "prepared.part").rename(home / "prepared.json")
    return done


def prepared(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """What ``prepare`` noted: the archives' checksums, whether they were compared, and the number of recordings.

    Raises:
      ConfigError: the data set is not prepared.
    """
    if marker := _marker(folder / DATA_SETS[name].tonic):
        return marker
    raise ConfigError(
        f"data.name: {name} is not prepared in {folder}; run: make data DATASET={name} FROM=folder-with-the-originals"
    )


def _marker(home):
    try:
        return json.loads((home / "prepared.json").read_text())
    except (OSError, ValueError):
        return None


def _install(name, found, home, verify, show):
    """Unpacks in a folder of its own; each part then takes its place in one step."""
    (home / "prepared.json").unlink(missing_ok=True)
    with workplace(home / ".unpacking") as work:
        for i, (archive, path) in enumerate(found.items()):
            show(f"unpack {name}", i, len(found))
            _unpack(path, work / archive.name)
            _keep(path, home / archive.name)
        show(f"unpack {name}", len(found), len(found))
        wanted = CIFAR10 if name == "cifar10_dvs" else tuple(DATA_SETS[name].parts.values())
        unpacked = {
            place: next(iter(sorted(work.rglob(place), key=lambda path: len(path.parts))), None) for place in wanted
        }
        missing = [place for place, path in unpacked.items() if path is None]
        if len(missing) == len(wanted) or (missing and verify):
            raise ConfigError(f"{', '.join(map(str, found.values()))}: holds no {', '.join(missing)}; not the original")
        for place, path in unpacked.items():
            _remove(home / place)
            if path is not None:
                path.rename(home / place)
    shutil.rmtree(home / DOWNLOADS, ignore_errors=True)


def _unpack(path, target):
    extract(path, target, _limit(path))
    for inner in [file for file in target.rglob("*.zip") if file.name in _INNER]:
        extract(inner, inner.with_suffix(".unpacked"), _limit(inner))
        inner.unlink()


def _limit(archive):
    """Bytes that it may have unpacked: no original packs 50 to 1."""
    return max(1 << 30, 50 * archive.stat().st_size)


def _keep(path, place):
    """The archive beside what was in it, by a link where the file system can."""
    if place.exists() and place.samefile(path):
        return
    place.unlink(missing_ok=True)
    try:
        os.link(path.resolve(), place)
    except OSError:
        shutil.copyfile(path, place.with_name(f"{place.name}.part"))
        place.with_name(f"{place.name}.part").rename(place)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
