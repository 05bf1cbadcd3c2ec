"""Published time series: their raw files, and how these become sequences, targets and splits.

``watch``, from the package seglearn (BSD-3; Burns et al. 2018), is 140 recordings of a smartwatch: ten persons do seven
exercises of the shoulder with each arm. Acceleration and rotation in three directions each at 50 Hz are averaged over
every ten samples, which leaves 94 to 261 steps of 0.2 s. Persons 1 to 7 are for training, 8 for validation, 9 and 10
for testing.

``seattle_weather``, from the package vega_datasets (MIT; measured by NOAA, in the public domain), is rain, highest and
lowest temperature, and wind of 1,461 days, in windows of 60 days. The target of a window is the highest temperature of
the day after it, and that of a step the day after this one. Windows before a day of 2012 or 2013 are for training, of
2014 for validation, of 2015 for testing.

``omniglot_strokes`` (Lake et al. 2015, MIT) is the pen's path of 4,840 characters of ten alphabets, 242 classes of 20
drawings each. Of each stroke every fourth point and the last are kept, which leaves 1 to 135 steps: the movement from
the point before, right and up in pixels, and 1 where a stroke begins, else 0. Writers 1 to 14 of a character are for
training, 15 and 16 for validation, 17 to 20 for testing.
"""

import hashlib
import io
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.data.download import archives
from csbp_jax.data.download.fetch import RawFile
from csbp_jax.runtime import files

Array = NDArray[Any]

DAYS = 60
"""Days of a window of ``seattle_weather``, of which ``model.time_steps`` are used."""

SPLITS = ("train", "validation", "test")
_LARGEST = 2**26  # bytes of one file in an archive; the largest of the originals has 18 MB


class Series(NamedTuple):
    """A data set as sequences."""

    x: list[Array]
    """``[T_i, F]`` each."""
    y: Array
    """Classes ``[N]``, or values of each step ``[N, T, K]``."""
    split: Array
    """``[N]``, numbers of ``SPLITS``."""
    names: Sequence[str]
    """Of the classes or values."""


class DataSet(NamedTuple):
    """A published data set: its raw files, how to read them, and what its targets are."""

    raw: tuple[RawFile, ...]
    read: Callable[[list[pathlib.Path]], Series]
    task: Literal["class", "value"] = "class"


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as content:
        return archives.read(content, f"{archive.filename}: {name}", _LARGEST)


def _watch(paths: list[pathlib.Path]) -> Series:
    (path,) = paths
    with files.readable(path, "fetch it again"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = _member(archive, "seglearn/data/watch_dataset.npy")
        else:
            content = files.read_bytes(path)
    # A pickle is a program. Of these very bytes, so that nothing can be put in their place after the check.
    actual, expected = hashlib.sha256(content).hexdigest(), WATCH.checksum.removeprefix("sha256:")
    if actual != expected:
        raise ConfigError(
            f"{path}: the sha256 of its {WATCH.name} is {actual}, that of the published file {expected}; fetch it "
            "again (a pickle could run code, so no other one is read, not even with --no-verify)"
        )
    fields = np.load(io.BytesIO(content), allow_pickle=True).item()
    person, label = np.asarray(fields["subject"], int), np.asarray(fields["y"], int)
    # The mean of each ten steps in a row; those left over at the end are dropped.
    x = [np.asarray(r, float)[: len(r) // 10 * 10].reshape(-1, 10, len(r[0])).mean(axis=1) for r in fields["X"]]
    return Series(x, label, np.digitize(person, (8, 9)), [str(name) for name in fields["y_labels"]])


def _weather(paths: list[pathlib.Path]) -> Series:
    (path,) = paths
    with files.readable(path, "fetch it again"):
        with zipfile.ZipFile(path) as archive:
            head, *lines = _member(archive, "vega_datasets/_data/seattle-weather.csv").decode().splitlines()
        if not head.startswith("date,precipitation,temp_max,temp_min,wind"):
            raise ValueError(f"its first line is {head[:60]!r}")
        table = np.array([line.split(",")[:5] for line in lines])
        days = np.array([date.replace("/", "-") for date in table[:, 0]], "datetime64[D]")
        if (np.diff(days) != np.timedelta64(1, "D")).any():
            raise ValueError("a day is missing")
        values = table[:, 1:].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(values, DAYS, axis=0).swapaxes(1, 2)
        split = np.digitize(days[DAYS:].astype("datetime64[Y]").astype(int) + 1970, (2014, 2015))
        return Series(list(windows[:-1]), windows[1:, :, 1:2], split, ("temp_max",))


_DRAWING = re.compile(r"strokes_background_small[12]/([^/]+)/(character\d+)/\d+_(\d\d)\.txt")


def _strokes(paths: list[pathlib.Path]) -> Series:
    drawings: dict[tuple[str, int], Array] = {}  # half of a file's alphabets are in the other file, too
    for path in paths:
        with files.readable(path, "fetch it again"), zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if match := _DRAWING.fullmatch(name):
                    drawing = f"{match[1]}/{match[2]}", int(match[3])
                    drawings[drawing] = np.concatenate([*_movements(_member(archive, name).decode())])
    with files.readable(paths[0], "fetch it again"):
        if not drawings:
            raise ValueError("it holds no drawings")
        keys = sorted(drawings)
        names, label = np.unique([character for character, _ in keys], return_inverse=True)
        split = np.digitize([writer for _, writer in keys], (15, 17))
        return Series([drawings[key] for key in keys], label, split, names.tolist())


def _movements(text: str) -> Iterator[Array]:
    """Yield the movements of each stroke, ``[T, 3]``: START, then of each stroke lines ``x,y,ms`` and BREAK."""
    last: Array | None = None
    for stroke in text.split("BREAK")[:-1]:
        points = np.array([line.split(",")[:2] for line in stroke.split() if line != "START"], np.float64)
        if not len(points):
            continue
        points = points[[*range(0, len(points) - 1, 4), len(points) - 1]]
        start = points[0] if last is None else last
        begins = np.arange(len(points)) == 0
        yield np.column_stack([np.diff(points, axis=0, prepend=start[None]), begins])
        last = points[-1]


_WHEELS = "https://files.pythonhosted.org/packages/"
_OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python/"

WATCH = RawFile(
    "watch_dataset.npy",
    18_118_091,
    "sha256:eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537",
    "https://pypi.org/project/seglearn",
    pickled=True,
)
"""The array of ``watch``, as it is in the wheel."""

DATA_SETS = {
    "watch": DataSet(
        (
            RawFile(
                "seglearn-1.2.5-py3-none-any.whl",
                11_320_941,
                "sha256:ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
                f"{_WHEELS}8e/1d/786c3ff9c0452d0a6461a97ae248478319473777bf074ad1738d4749f2ac/"
                "seglearn-1.2.5-py3-none-any.whl",
                unpacked=WATCH,
                pickled=True,
            ),
        ),
        _watch,
    ),
    "seattle_weather": DataSet(
        (
            RawFile(
                "vega_datasets-0.9.0-py3-none-any.whl",
                210_822,
                "sha256:3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d",
                f"{_WHEELS}e6/9f/ca52771fe972e0dcc5167fedb609940e01516066938ff2ee28b273ae4f29/"
                "vega_datasets-0.9.0-py3-none-any.whl",
            ),
        ),
        _weather,
        task="value",
    ),
    "omniglot_strokes": DataSet(
        (
            RawFile(
                "strokes_background_small1.zip",
                3_056_274,
                "sha256:8cb3960fb6cf4ccf5f064ad83169f828c36c36782a0f6e7faacb7ecfae4468a2",
                f"{_OMNIGLOT}strokes_background_small1.zip",
            ),
            RawFile(
                "strokes_background_small2.zip",
                4_100_947,
                "sha256:345bf2141efbea062833dbb2828abbc23d9e07825e46f2afdd4daecddfed6e78",
                f"{_OMNIGLOT}strokes_background_small2.zip",
            ),
        ),
        _strokes,
    ),
}
