"""The recordings of each data set of events: which there are, in an order that no file system decides; their events.

Files lie where tonic keeps them, ``folder/CLASS/...``; its classes read the same tree.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.data.events.readers import Events, checked, in_order, parse


class Recording(NamedTuple):
    id: str
    """Path within the data set; of SHD, file/row."""
    path: pathlib.Path
    label: int


class DataSet(NamedTuple):
    tonic: str
    """tonic's class, which also names the folder."""
    parts: dict[str, str]
    """Where each part that the authors made is."""
    records: dict[str, int]
    """How many recordings a part holds."""
    suffixes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Height, width and polarities of a frame."""
    classes: tuple[str, ...]
    """Names of the class folders (DVS-Gesture: of the files), in the order of their labels."""


DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Without Faces, which the authors left out as too like Faces_easy; with the background class these are 101.
CALTECH101 = tuple(resources.files("csbp_jax.data").joinpath("manifests/ncaltech101_classes.txt").read_text().split())

DATA_SETS = {
    "nmnist": DataSet(
        "NMNIST", {"train": "Train", "test": "Test"}, {"train": 60_000, "test": 10_000}, (".bin",), (34, 34, 2), DIGITS
    ),
    "ncaltech101": DataSet(
        "NCALTECH101", {"all": "Caltech101"}, {"all": 8709}, (".bin",), (180, 240, 2), CALTECH101
    ),
    # As cut for tonic; cutting the original recordings by their label files gives 1176 and 288.
    "dvs_gesture": DataSet(
        "DVSGesture",
        {"train": "ibmGestureTrain", "test": "ibmGestureTest"},
        {"train": 1077, "test": 264},
        (".npy",),
        (128, 128, 2),
        (*DIGITS, "10"),
    ),
    "cifar10_dvs": DataSet(
        "CIFAR10DVS", {"all": ""}, {"all": 10_000}, (".aedat4", ".aedat"), (128, 128, 2), CIFAR10
    ),
    "shd": DataSet(
        "SHD",
        {"train": "shd_train.h5", "test": "shd_test.h5"},
        {"train": 8156, "test": 2264},
        (".h5",),
        (1, 700, 1),
        tuple(f"{language} {digit}" for language in ("English", "German") for digit in DIGITS),
    ),
}  # fmt: skip


def natural(text: str) -> tuple[list[str | int], str]:
    """Key of the natural order: file 2 before file 10; and 02 before 2, so that no two are equal."""
    return [int(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"([0-9]+)", text))], text


@contextlib.contextmanager
def tolerating(record: str, skipped: dict[str, str] | None) -> Iterator[None]:
    """Notes a ConfigError of this record in ``skipped``; if that is None, raises it."""
    try:
        yield
    except ConfigError as error:
        if skipped is None:
            raise ConfigError(f"{error} (or leave such records out: data.bad skip)") from None
        skipped[record] = str(error)


def index(name: str, folder: pathlib.Path, skipped: dict[str, str] | None = None) -> dict[str, list[Recording]]:
    """The recordings of each part in natural order of their ids, whatever order the file system has.

    Args:
      name: one of ``DATA_SETS``.
      folder: where prepared data sets are kept.
      skipped: receives {id: reason} of files that are in no folder of a class; None: the first is an error.

    Raises:
      ConfigError: names the file, and the labels there are.
    """
    form, parts = DATA_SETS[name], {}
    root = folder / form.tonic
    for part, place in form.parts.items():
        if name == "shd":
            parts[part] = list(_rows(root / place, form, skipped))
            continue
        paths = {path.relative_to(root).as_posix(): path for path in files(root / place, form.suffixes)}
        parts[part] = []
        for record in sorted(paths, key=natural):
            with tolerating(record, skipped):
                parts[part].append(Recording(record, paths[record], _label(name, paths[record], form)))
    return parts


def files(folder: pathlib.Path, suffixes: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """All files below with one of these endings, but hidden ones."""
    for path, _, names in os.walk(folder):
        yield from (pathlib.Path(path, name) for name in names if name.endswith(suffixes) and name[0] != ".")


def _label(name, path, form):
    label = path.stem if name == "dvs_gesture" else path.parent.name
    if label not in form.classes:
        raise ConfigError(f"{path}: {label!r} is no class of {name}; there are {', '.join(form.classes)}")
    return form.classes.index(label)


def _rows(path, form, skipped):
    with _opened(path) as file:
        labels = np.asarray(file["labels"], int)
    for i, label in enumerate(labels):
        with tolerating(f"{path.name}/{i}", skipped):
            if not 0 <= label < len(form.classes):
                raise ConfigError(f"{path}: recording {i} has label {label}; there are 0 to {len(form.classes) - 1}")
            yield Recording(f"{path.name}/{i}", path, int(label))


@contextlib.contextmanager
def _opened(path):
    """An HDF5 file; h5py comes with tonic."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, IndexError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); prepare the data set again") from None


def read(name: str, recording: Recording) -> Events:
    """The events of one recording; those of SHD are in row 0, and sorted by time.

    Raises:
      ConfigError: truncated, without events, outside of the camera, or times that fall; names the file and the mend.
    """
    return checked(_raw(name, recording), _place(name, recording))


def read_sorted(name: str, recording: Recording) -> tuple[Events, bool]:
    """As :func:`read`, but where times fall, events are sorted by them; and whether any did."""
    events = _raw(name, recording)
    falls = bool(np.any(events.t[1:] < events.t[:-1]))
    return checked(in_order(events) if falls else events, _place(name, recording)), falls


def _place(name, recording):
    return recording.id if name == "shd" else recording.path


def _raw(name, recording):
    if name == "dvs_gesture":
        return _gesture(recording.path)
    if name == "shd":
        return _spikes(recording)
    return parse(recording.path)._replace(sensor=DATA_SETS[name].shape[:2])


def _gesture(path):
    """Columns x, y, polarity, milliseconds; the latter may have fractions."""
    try:
        x, y, p, t = np.load(path).T
        with np.errstate(invalid="raise"):  # a value that is no number
            x, y, t, p = (a.astype(np.int64) for a in (x, y, np.rint(1000 * t.astype(np.float64)), p))
    except Exception as error:  # a damaged file raises whatever numpy's parser of headers has
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())}); prepare it again") from None
    return Events(x, y, t, p, (128, 128))


def _spikes(recording):
    """Times are float16 seconds; the order of spikes within a file means nothing."""
    row = int(recording.id.rpartition("/")[2])
    with _opened(recording.path) as file:
        t, units = file["spikes/times"][row].astype(np.float64), file["spikes/units"][row]
    if len(t) != len(units):
        raise ConfigError(f"{recording.id}: {len(t)} times for {len(units)} units; prepare the data set again")
    order = np.argsort(t, kind="stable")
    zero = np.zeros(len(t), np.int64)
    return Events(units[order], zero, (1e6 * t[order]).astype(np.int64), zero, (1, 700))
