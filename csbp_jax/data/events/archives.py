"""The archives of data sets of events: which they are, where they lie or come from, their checksums."""

import json
import pathlib
from importlib import resources

from csbp_jax.config import ConfigError
from csbp_jax.data.download.fetch import RawFile, Show, download, missing_from
from csbp_jax.data.events.recordings import DATA_SETS

DOWNLOADS = ".download"

# CIFAR10-DVS as its authors published it, AEDAT 2.0, an archive a class; checksums as SpikingJelly states them.
_FIRST_RELEASE = resources.files("csbp_jax.data").joinpath("manifests/cifar10_dvs_archives.json")
# Sizes of DVS-Gesture and of CIFAR10DVS.zip as figshare gave them to others: github.com/neuromorphs/tonic/pull/337.
_HINTS = {
    "nmnist": "1.2 GB together",
    "ncaltech101": "4.0 GB",
    "dvs_gesture": "about 2.4 GB and 0.7 GB",
    "cifar10_dvs": "about 11.2 GB; or, of the first release, airplane.zip to truck.zip, 8.4 GB, from "
    "https://figshare.com/articles/4724671",
}


def _expected(name):
    """The archives that tonic expects, with its checksums and addresses."""
    import tonic.datasets

    form = getattr(tonic.datasets, DATA_SETS[name].tonic)
    if name in ("cifar10_dvs", "ncaltech101"):
        archives = [(form.filename, form.file_md5, form.url)]
    elif name == "shd":
        archives = [
            (file, md5, form.base_url + file)
            for file, md5 in ((form.train_zip, form.train_md5), (form.test_zip, form.test_md5))
        ]
    else:
        archives = [
            (form.train_filename, form.train_md5, form.train_url),
            (form.test_filename, form.test_md5, form.test_url),
        ]
    return [_archive(*archive) for archive in archives]


def _archive(file, md5, url):
    # figshare.com asks programs to prove that they are none: status 202, no content.
    url = url.replace("https://figshare.com/ndownloader/", "https://ndownloader.figshare.com/")
    return RawFile(file, None, f"md5:{md5}", url)


def find(name: str, originals: pathlib.Path | None, home: pathlib.Path, show: Show) -> dict[RawFile, pathlib.Path]:
    """Where each archive of a data set is. Upper or lower case in a name does not matter, nor a folder in between.

    Args:
      name: one of ``recordings.DATA_SETS``.
      originals: the user's folder; None: what is missing is downloaded.
      home: where archives are kept once prepared; searched too.
      show: ``show(stage, done, total)``, in bytes.

    Raises:
      ConfigError: archives are missing (names all, and where they come from), or cannot be downloaded.
    """
    if originals is not None and not originals.is_dir():
        raise ConfigError(f"{originals}: there is no such folder; name the one with the originals of {name}")
    # What is found later goes before: the user's folder, and in it what is not deeper.
    candidates = [*home.glob(f"{DOWNLOADS}/*"), *sorted(home.glob("*"))]
    if originals is not None:
        deeper = [path for path in originals.glob("*/*") if not path.parent.name.startswith(".")]
        candidates += [*sorted(deeper), *sorted(originals.glob("*"))]
    there = {path.name.lower(): path for path in candidates if path.is_file()}
    wanted = _expected(name)
    first = [_archive(**entry) for entry in json.loads(_FIRST_RELEASE.read_text())]
    if name == "cifar10_dvs" and wanted[0].name.lower() not in there and any(a.name in there for a in first):
        wanted = first
    missing = [archive for archive in wanted if archive.name.lower() not in there]
    hint = f" ({_HINTS[name]})" if name in _HINTS else ""
    if missing and originals is not None:
        raise ConfigError(f"{name}: {missing_from(originals, missing)}{hint}")
    for archive in missing:
        rest = [other for other in missing if other.name.lower() not in there]
        download(archive, home / DOWNLOADS, show, missing_from(home / DOWNLOADS, rest) + hint)
        there[archive.name.lower()] = home / DOWNLOADS / archive.name
    return {archive: there[archive.name.lower()] for archive in wanted}
