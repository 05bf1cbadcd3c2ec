"""Recordings of each event data set: their list, in an order independent of the file system, and their events.

Files lie where tonic keeps them, ``folder/CLASS/...``; its classes read the same tree.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.data.array_files import open_arrays
from csbp_jax.data.events import cochlea, spoken_digits
from csbp_jax.data.events.readers import Events, parse, sort_by_time, validate
from csbp_jax.runtime import files


class Recording(NamedTuple):
    """One recording of a data set."""

    id: str
    """Path within the data set; for SHD and SSC, file/row."""
    path: pathlib.Path
    label: int | tuple[float, ...]
    """Number of the class, or numbers of a target of another kind."""


Splits = dict[str, list[Recording]]
"""The recordings of each split."""


class EventDataSet(NamedTuple):
    """Layout of a published data set of events."""

    folder: str
    """Name of the folder, and of tonic's class, if it has one."""
    splits: dict[str, str]
    """Location of each split that the authors defined; "all" if they defined none."""
    num_records: dict[str, int]
    """Number of recordings per split."""
    suffixes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Height, width and polarities of a frame."""
    classes: tuple[str, ...]
    """Names of the class folders (of the files for DVS-Gesture), in the order of their labels."""

    @property
    def is_hdf5(self) -> bool:
        """Whether each split is one HDF5 file, as of SHD and SSC."""
        return self.suffixes == (".h5",)

    @property
    def is_sound(self) -> bool:
        """Whether events come from the channels of a cochlea, so that a frame is ``[channels]``, without height."""
        return self.shape[0] == 1


DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Without Faces, which the authors left out because it resembles Faces_easy; these are 101 with the background class.
CALTECH101 = tuple(resources.files("csbp_jax.data").joinpath("manifests/ncaltech101_classes.txt").read_text().split())

SPEECH_COMMANDS = 35  # the files name them

DATA_SETS: dict[str, EventDataSet] = {
    "nmnist": EventDataSet(
        "NMNIST", {"train": "Train", "test": "Test"}, {"train": 60_000, "test": 10_000}, (".bin",), (34, 34, 2), DIGITS
    ),
    "ncaltech101": EventDataSet(
        "NCALTECH101", {"all": "Caltech101"}, {"all": 8709}, (".bin",), (180, 240, 2), CALTECH101
    ),
    # As cut for tonic; cutting the original recordings by their label files gives 1176 and 288.
    "dvs_gesture": EventDataSet(
        "DVSGesture",
        {"train": "ibmGestureTrain", "test": "ibmGestureTest"},
        {"train": 1077, "test": 264},
        (".npy",),
        (128, 128, 2),
        (*DIGITS, "10"),
    ),
    "cifar10_dvs": EventDataSet(
        "CIFAR10DVS", {"all": ""}, {"all": 10_000}, (".aedat4", ".aedat"), (128, 128, 2), CIFAR10
    ),
    "shd": EventDataSet(
        "SHD",
        {"train": "shd_train.h5", "test": "shd_test.h5"},
        {"train": 8156, "test": 2264},
        (".h5",),
        (1, 700, 1),
        tuple(f"{language} {digit}" for language in ("English", "German") for digit in DIGITS),
    ),
    "ssc": EventDataSet(
        "SSC",
        {"train": "ssc_train.h5", "validation": "ssc_valid.h5", "test": "ssc_test.h5"},
        {"train": 75_466, "validation": 9981, "test": 20_382},
        (".h5",),
        (1, 700, 1),
        tuple(map(str, range(SPEECH_COMMANDS))),
    ),
    "fsdd": EventDataSet(
        "FSDD", {"all": spoken_digits.FOLDER}, {"all": 3000}, (".wav",), (1, cochlea.CHANNELS, 1), DIGITS
    ),
}  # fmt: skip


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Return a sort key for natural order: file 2 before file 10, and 02 before 2 so that no two keys are equal."""
    return [int(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"([0-9]+)", text))], text


@contextlib.contextmanager
def collect_errors(record: str, skipped: dict[str, str] | None) -> Iterator[None]:
    """Collect a record's error in ``skipped`` as {record: message}; raise it if ``skipped`` is None."""
    try:
        yield
    except (ConfigError, MemoryError) as error:
        too_large = f"{record}: needs more memory than this machine has; remove it, or make it smaller"
        message = too_large if isinstance(error, MemoryError) else str(error)
        if skipped is None:
            raise ConfigError(f"{message} {LEAVE_OUT}") from None
        skipped[record] = message


LEAVE_OUT = "(or leave such records out: --data.bad skip)"
"""Advice beside that of mending a record."""

_NAMED = 10


def refuse(problems: Mapping[str, str]) -> None:
    """Refuse records that cannot be used, if there are any, in one line that names up to ten of them.

    Args:
      problems: what :func:`collect_errors` has collected.

    Raises:
      ConfigError: there are some; the first is given with its problem.
    """
    if not problems:
        return
    first, *others = sorted(problems, key=natural_key)
    also = ""
    if others:
        names = ", ".join(others[: _NAMED - 1]).replace("\n", "\\n")
        more = f" and {len(others) - _NAMED + 1} more" if len(others) >= _NAMED else ""
        also = f"; nor can {len(others)} other{'s' * (len(others) > 1)} be used: {names}{more}"
    raise ConfigError(f"{problems[first]}{also} {LEAVE_OUT}")


def index(name: str, folder: pathlib.Path, skipped: dict[str, str] | None = None) -> Splits:
    """List the recordings of each split in natural order of their ids, independent of the file system's order.

    Args:
      name: one of ``DATA_SETS``.
      folder: directory of prepared data sets.
      skipped: collects {id: reason} of files outside the class folders; None: the first is an error.

    Raises:
      ConfigError: a file or recording has an unknown label; the message lists the known ones.
    """
    data_set = DATA_SETS[name]
    root = folder / data_set.folder
    splits: Splits = {}
    for split, location in data_set.splits.items():
        if data_set.is_hdf5:
            splits[split] = list(_hdf5_recordings(root / location, data_set, skipped))
            continue
        paths = {path.relative_to(root).as_posix(): path for path in _files(root / location, data_set.suffixes)}
        splits[split] = []
        for record in sorted(paths, key=natural_key):
            with collect_errors(record, skipped):
                splits[split].append(Recording(record, paths[record], _label(name, paths[record], data_set)))
    return splits


def _files(folder: pathlib.Path, suffixes: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """Find all files below a folder with one of these suffixes, except hidden ones."""
    for path, _, names in os.walk(folder):
        yield from (pathlib.Path(path, name) for name in names if name.endswith(suffixes) and name[0] != ".")


def _label(name: str, path: pathlib.Path, data_set: EventDataSet) -> int:
    if name == "fsdd":
        return spoken_digits.parse(path.name)[0]
    label = path.stem if name == "dvs_gesture" else path.parent.name
    if label not in data_set.classes:
        raise ConfigError(f"{path}: {label!r} is not a class of {name}; the classes are {', '.join(data_set.classes)}")
    return data_set.classes.index(label)


def _hdf5_recordings(path: pathlib.Path, data_set: EventDataSet, skipped: dict[str, str] | None) -> Iterator[Recording]:
    with _opened(path) as file:
        labels = np.asarray(file["labels"], int).ravel()
    for i, label in enumerate(labels):
        with collect_errors(f"{path.name}/{i}", skipped):
            if not 0 <= label < len(data_set.classes):
                raise ConfigError(
                    f"{path}: recording {i} has label {label}; labels are 0 to {len(data_set.classes) - 1}"
                )
            yield Recording(f"{path.name}/{i}", path, int(label))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    """Open an HDF5 file."""
    with files.hdf5(path, "events") as file, np.errstate(invalid="raise"):  # NaN as an integer
        yield file


def read(name: str, recording: Recording, unordered: set[str] | None = None) -> Events:
    """Read the events of one recording; those of SHD and SSC are sorted by time, in row 0.

    Args:
      name: one of ``DATA_SETS``.
      recording: from :func:`index`.
      unordered: if the timestamps decrease, the recording is sorted by time, and its id added to this set; with None
        it is an error.

    Raises:
      ConfigError: truncated, without events, outside the camera, or decreasing timestamps; the message names the file
        and the remedy.
    """
    events = _parse(name, recording)
    if unordered is not None and np.any(events.t[1:] < events.t[:-1]):
        unordered.add(recording.id)
        events = sort_by_time(events)
    return validate(events, recording.id if DATA_SETS[name].is_hdf5 else recording.path)


def _parse(name: str, recording: Recording) -> Events:
    if name == "dvs_gesture":
        return _parse_gesture(recording.path)
    if name == "fsdd":
        return cochlea.spikes(cochlea.read_wav(recording.path))
    if DATA_SETS[name].is_hdf5:
        return _parse_spikes(recording)
    return parse(recording.path)._replace(sensor=DATA_SETS[name].shape[:2])


def _parse_gesture(path: pathlib.Path) -> Events:
    """Read columns x, y, polarity and milliseconds, which may be fractional."""
    with files.readable(path, "prepare it again"), open_arrays(path) as arrays, np.errstate(invalid="raise"):  # NaN
        x, y, p, t = arrays.read(*arrays.names).T
        x, y, t, p = (a.astype(np.int64) for a in (x, y, np.rint(1000 * t.astype(np.float64)), p))
    return Events(x, y, t, p, (128, 128))


def _parse_spikes(recording: Recording) -> Events:
    """Read spikes of SHD or SSC, sorted: times are float16 seconds, and their order in the file has no meaning."""
    row = int(recording.id.rpartition("/")[2])
    with _opened(recording.path) as file:
        t = 1e6 * np.asarray(file["spikes/times"][row], np.float64)
        units = np.asarray(file["spikes/units"][row])
        microseconds = t.astype(np.int64)
    if t.ndim != 1 or units.ndim != 1 or len(t) != len(units):
        raise ConfigError(f"{recording.id}: {t.shape} times for {units.shape} units; prepare the data set again")
    order = np.argsort(t, kind="stable")
    zero = np.zeros(len(t), np.int64)
    return Events(units[order], zero, microseconds[order], zero, (1, 700))


def names_in_file(path: pathlib.Path) -> tuple[str, ...]:
    """Read the names of the classes from a file of SHD or SSC.

    Raises:
      ConfigError: the file cannot be read, or has no names.
    """
    with _opened(path) as file:
        return tuple(bytes(name).decode() for name in file["extra/keys"])
