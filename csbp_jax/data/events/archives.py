"""Archives of the event data sets: names, checksums, where to download them, and where they are on disk."""

import json
import pathlib
from importlib import resources

from csbp_jax.config import ConfigError, extras
from csbp_jax.data.download.fetch import RawFile, Show, download, missing_from
from csbp_jax.data.events import spoken_digits
from csbp_jax.data.events.recordings import DATA_SETS

DOWNLOADS = ".download"

# CIFAR10-DVS as its authors published it, AEDAT 2.0, one archive per class; checksums as SpikingJelly states them.
_FIRST_RELEASE = resources.files("csbp_jax.data").joinpath("manifests/cifar10_dvs_archives.json")
# Sizes of DVS-Gesture and of CIFAR10DVS.zip as reported in github.com/neuromorphs/tonic/pull/337.
_HINTS = {
    "nmnist": "1.2 GB together",
    "ncaltech101": "4.0 GB",
    "fsdd": "16 MB; or name a directory of its wav files",
    "dvs_gesture": "about 2.4 GB and 0.7 GB",
    "cifar10_dvs": "about 11.2 GB; or, of the first release, airplane.zip to truck.zip, 8.4 GB, from "
    "https://figshare.com/articles/4724671",
}


def expected(name: str) -> list[RawFile]:
    """List the archives of a data set: those that tonic expects, with its checksums and URLs, if tonic has it.

    Raises:
      Missing: tonic is not installed.
    """
    if name == "fsdd":
        return [spoken_digits.RAW_FILE]
    extras.need("events", name, "tonic")
    import tonic.datasets

    data_set = getattr(tonic.datasets, DATA_SETS[name].folder)
    if name in ("cifar10_dvs", "ncaltech101"):
        return [_archive(data_set.filename, data_set.file_md5, data_set.url)]
    if DATA_SETS[name].is_hdf5:
        splits = [location.removesuffix(".h5").rpartition("_")[2] for location in DATA_SETS[name].splits.values()]
        return [
            _archive(
                file := getattr(data_set, f"{split}_zip"), getattr(data_set, f"{split}_md5"), data_set.base_url + file
            )
            for split in splits
        ]
    return [
        _archive(data_set.train_filename, data_set.train_md5, data_set.train_url),
        _archive(data_set.test_filename, data_set.test_md5, data_set.test_url),
    ]


def _archive(file: str, md5: str, url: str) -> RawFile:
    # To programs figshare.com answers with status 202 and an empty body; its download host does not.
    url = url.replace("https://figshare.com/ndownloader/", "https://ndownloader.figshare.com/")
    return RawFile(file, None, f"md5:{md5}", url)


def find(
    name: str, raw_dir: pathlib.Path | None, home: pathlib.Path, show: Show, verify: bool = True
) -> dict[RawFile, pathlib.Path]:
    """Locate each archive of a data set, ignoring case and looking one folder deep, and download missing ones.

    For fsdd it may also be the directory of the recordings.

    Args:
      name: one of ``recordings.DATA_SETS``.
      raw_dir: the user's folder; None downloads archives that are missing.
      home: directory of the prepared data set, which is searched too.
      show: ``show(stage, done, total)``, in bytes.
      verify: compare the checksums of downloaded archives.

    Raises:
      ConfigError: archives are missing (the message lists them with their URLs), or cannot be downloaded.
    """
    if name == "fsdd" and raw_dir is not None and (local := spoken_digits.locate(raw_dir)):
        return {spoken_digits.RAW_FILE: local}
    # Later candidates win: the user's folder over ``home``, and within it files that lie less deep.
    candidates = [*home.glob(f"{DOWNLOADS}/*"), *sorted(home.glob("*"))]
    if raw_dir is not None:
        deeper = [path for path in raw_dir.glob("*/*") if not path.parent.name.startswith(".")]
        candidates += [*sorted(deeper), *sorted(raw_dir.glob("*"))]
    by_name = {path.name.lower(): path for path in candidates if path.is_file()}
    archives = expected(name)
    if name == "cifar10_dvs" and archives[0].name.lower() not in by_name:
        first_release = [_archive(**entry) for entry in json.loads(_FIRST_RELEASE.read_text())]
        archives = first_release if any(archive.name in by_name for archive in first_release) else archives
    missing = [archive for archive in archives if archive.name.lower() not in by_name]
    hint = f" ({_HINTS[name]})" if name in _HINTS else ""
    if missing and raw_dir is not None:
        raise ConfigError(f"{name}: {missing_from(raw_dir, missing)}{hint}")
    for i, archive in enumerate(missing):
        download(archive, home / DOWNLOADS, show, missing_from(home / DOWNLOADS, missing[i:]) + hint, verify)
        by_name[archive.name.lower()] = home / DOWNLOADS / archive.name
    return {archive: by_name[archive.name.lower()] for archive in archives}
