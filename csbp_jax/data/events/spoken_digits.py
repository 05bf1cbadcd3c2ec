"""Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0): its raw files, names and splits.

A public repository of 3,000 recordings ``recordings/DIGIT_SPEAKER_NUMBER.wav``: 6 speakers, 50 of each digit.
"""

import hashlib
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.data.download import archives
from csbp_jax.data.download.fetch import RawFile
from csbp_jax.runtime import files

FOLDER = "recordings"
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
_OFFICIAL_TEST = range(5)
_LARGEST = 1 << 20  # bytes of a recording; the largest of the original has 36 kB
# The first is the name under which the server offers the archive.
_ARCHIVES = ("free-spoken-digit-dataset-1.0.10.tar.gz", "v1.0.10.tar.gz", "fsdd.tar.gz")


def checksum(path: pathlib.Path) -> str:
    """Compute the SHA-256 checksum of all recordings in an archive or a directory, whichever way they are packed.

    It is that of the output of ``LC_ALL=C; cd recordings; sha256sum *.wav``. An archive made on demand by a server may
    have other bytes tomorrow; its recordings stay.
    """
    recordings = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in _recordings(path))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in recordings).encode()).hexdigest()


RAW_FILE = RawFile(
    _ARCHIVES[0],
    None,
    "sha256 of all recordings:1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",
    digest=checksum,
)


def locate(directory: pathlib.Path) -> pathlib.Path | None:
    """Return the archive in a directory, or else the directory of the recordings: itself, or one in it."""
    packed = [path for name in _ARCHIVES if (path := directory / name).is_file()]
    folders = [directory, directory / FOLDER, *sorted(directory.glob(f"*/{FOLDER}"))]
    return next(iter([*packed, *(path for path in folders if any(path.glob("*.wav")))]), None)


def copy(directory: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the recordings of a directory to ``target/recordings``."""
    (target / FOLDER).mkdir(parents=True)
    for path in directory.glob("*.wav"):
        shutil.copyfile(path, target / FOLDER / path.name)


def parse(name: str) -> tuple[int, str, int]:
    """Return digit, speaker and number of a recording by its file name.

    Raises:
      ConfigError: the name has another form.
    """
    match = _NAME.fullmatch(name.rpartition("/")[2])
    if match is None:
        raise ConfigError(f"{name}: is not named DIGIT_SPEAKER_NUMBER.wav, as in 7_jackson_32.wav; remove or rename it")
    digit, speaker, number = match.groups()
    return int(digit), speaker, int(number)


def split_off_test(ids: Sequence[str], test_speaker: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split recordings into ascending indices (rest, test).

    Args:
      ids: file names of the recordings.
      test_speaker: all recordings of this speaker are for testing; "" tests on numbers 0 to 4 of every speaker and
        digit, the split that the authors of the data define.

    Raises:
      ConfigError: there is no such speaker.
    """
    names = [parse(name) for name in ids]
    speakers = sorted({speaker for _, speaker, _ in names})
    if test_speaker and test_speaker not in speakers:
        raise ConfigError(f"data.test_speaker: there is no {test_speaker!r}; the speakers are {', '.join(speakers)}")
    test = np.array(
        [speaker == test_speaker if test_speaker else number in _OFFICIAL_TEST for _, speaker, number in names]
    )
    return np.flatnonzero(~test), np.flatnonzero(test)


def _recordings(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Iterate over names and contents of the recordings in an archive or a directory."""
    if path.is_dir():
        for file in path.glob("*.wav"):
            files.check(file)
            with open(file, "rb") as recording:
                yield file.name, archives.read(recording, str(file), _LARGEST)
        return
    with open(path, "rb") as archive:
        for member, content in archives.members(archive, path):
            parent, _, name = member.name.rpartition("/")
            if parent.rpartition("/")[2] == FOLDER and name.endswith(".wav"):
                yield name, archives.read(content, f"{path}: {member.name}", _LARGEST)
