"""Readers for recordings of event cameras, in any of the usual file formats."""

import itertools
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, extras
from csbp_jax.data.array_files import MAX_ARRAY_BYTES, ArrayFile, open_arrays
from csbp_jax.data.events import aedat4
from csbp_jax.runtime import files

IntArray = NDArray[np.integer]
"""An array of integers of any width."""

SAVE = "numpy.savez(file, x=..., y=..., t=..., p=...)"
"""How events of any other format are saved."""

_MOST_EVENTS = MAX_ARRAY_BYTES // np.dtype(np.int64).itemsize  # narrower integers in a file become int64

MAX_SIDE = 8192
"""Largest height and width of a camera, whether a file states them or its events' coordinates imply them."""


class Events(NamedTuple):
    """Events of one recording, in order of time."""

    x: IntArray
    """Column ``[N]``, from the left."""
    y: IntArray
    """Row ``[N]``, from the top."""
    t: IntArray
    """Time ``[N]`` in microseconds, int64."""
    p: IntArray
    """Polarity ``[N]``, 0 or 1."""
    sensor: tuple[int, ...]
    """Height and width of the camera; () if the file does not state them."""


def read_file(path: str | pathlib.Path) -> Events:
    """Read and validate a file of events, in the format given by its suffix.

    Formats: aedat4, aedat (2.0, DVS128), bin (N-MNIST, N-Caltech101); npz with arrays x, y, t, p, which may have height
    and width; npy with these fields, as tonic has them, or columns of an integer array ``[N, 4]``; h5 and hdf5 with
    these datasets, at the top or in a group ``events``; txt and csv, lines ``t x y p`` or as a first line names them.
    p may be missing but in columns of an array, and is then 0; it is 0 and 1, or -1 and 1. Times are integers in
    microseconds; those of a text are seconds if any of them has a fraction.

    Raises:
      ConfigError: the file is missing, of another format, truncated or empty, a pixel lies outside the camera, or
        timestamps decrease; the message names the file and the remedy.
    """
    return validate(parse(path), path)


def holds_events(path: pathlib.Path) -> bool:
    """Return whether a file holds events, without reading them: an npy or npz may hold frames.

    Raises:
      ConfigError: it cannot be read, or is a text of something else.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        with open_arrays(path) as arrays:
            return set("xyt") <= set(arrays.fields())
    if _READERS.get(suffix) is _text:
        files.check(path)
        with files.readable(path, f"save {SAVE}"), open(path, encoding="utf-8-sig") as file:
            _columns(file)
    return suffix in _READERS


def parse(path: str | pathlib.Path) -> Events:
    """Read a file as :func:`read_file`, without validating its events."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in _READERS:
        raise ConfigError(
            f"{path}: not a file of events; supported formats are {', '.join(SUFFIXES)}; save others by {SAVE}"
        )
    files.check(path)
    with files.readable(path, "fetch or export it again", BaseException):  # a panic in Rust is not even an Exception
        return _READERS[path.suffix.lower()](path)


def validate(events: Events, name: object) -> Events:
    """Return events unchanged if they are valid.

    Valid events are integer arrays of one length N > 0, with pixels inside the camera, polarities 0 or 1 and
    non-decreasing timestamps.

    Args:
      events: as read from a file.
      name: what the message begins with.

    Raises:
      ConfigError: the events are invalid.
    """
    x, y, t, p, sensor = events
    height, width = sensor or (MAX_SIDE, MAX_SIDE)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ConfigError(
            f"{name}: states a camera of height {height} and width {width}; allowed are 1 to {MAX_SIDE}; export it "
            "again"
        )
    if not x.size == y.size == t.size == p.size:
        raise ConfigError(f"{name}: {x.size} x, {y.size} y, {t.size} t and {p.size} p; expected equally many")
    if not t.size:
        raise ConfigError(f"{name}: holds no events; remove the file, or record it again")
    for field, values, end in (("x", x, width), ("y", y, height), ("t", t, None), ("p", p, 2)):
        if values.ndim != 1 or values.dtype.kind not in "biu":
            raise ConfigError(f"{name}: {field} is {values.dtype} {values.shape}; expected one integer per event")
        if end and (values.min() < 0 or values.max() >= end):
            i = int(np.argmax((values < 0) | (values >= end)))
            raise ConfigError(
                f"{name}: event {i} has {field} = {values[i]}, outside of 0 to {end - 1}; the file is damaged or from "
                "another camera"
            )
    if np.any(decreases := t[1:] < t[:-1]):
        i = int(np.argmax(decreases)) + 1
        raise ConfigError(
            f"{name}: timestamps decrease at event {i}, from {t[i - 1]} to {t[i]}; sort the events by time "
            '(numpy.argsort with kind="stable")'
        )
    return events


def sort_by_time(events: Events) -> Events:
    """Sort events by time; events with equal timestamps keep their order."""
    order = np.argsort(events.t, kind="stable")
    return events._replace(**{field: getattr(events, field)[order] for field in "xytp"})


def _check_count(path: pathlib.Path, count: int) -> None:
    if count > _MOST_EVENTS:
        raise ConfigError(f"{path}: holds {count:,} events; allowed are {_MOST_EVENTS:,}; divide it")


def _bin(path: pathlib.Path) -> Events:
    """Read five bytes per event: x, y, 1 bit of polarity and 23 of time, big-endian; y = 240 marks a time overflow."""
    _check_count(path, path.stat().st_size // 5)
    x, y, high, middle, low = np.fromfile(path, np.uint8).reshape(-1, 5).T
    t = (high & 0x7F).astype(np.int64) << 16 | middle.astype(np.int64) << 8 | low
    is_event = y != 240
    t += np.cumsum(~is_event) << 13  # tonic adds to all later times at each overflow, which is quadratic
    x, y, t, p = (values[is_event] for values in (x, y, t, high >> 7))
    return Events(x.astype(np.int64), y.astype(np.int64), t, p, ())


def _aedat4(path: pathlib.Path) -> Events:
    """Read events with times relative to the first; the file has calendar times."""
    extras.need("events", str(path), "aedat")
    content = aedat4.read(path)
    if content is None:
        raise ConfigError(f"{path}: has no stream of events; export it with its events")
    events, sensor = content
    x, y, t, p = (np.ascontiguousarray(events[field]) for field in ("x", "y", "t", "on"))
    t = (t - t[:1]).astype(np.int64)  # unsigned: where times decrease this wraps, and becomes negative
    return Events(x, y, t, p, sensor)


def _aedat(path: pathlib.Path) -> Events:
    """Read AEDAT 2.0 of a DVS128: lines that begin with #, then pairs of big-endian 32-bit address and microsecond.

    Address bits: 0 polarity (0 is ON), 1-7 and 8-14 the pixel, 15 marks an external signal in place of a pixel.
    Mirrored so that the pictures of CIFAR10-DVS stand upright, as SpikingJelly does: x = 127 - bits 8-14,
    y = 127 - bits 1-7.
    """
    content = files.read_bytes(path, files.LARGE)
    if not content.startswith(b"#!AER-DAT2"):
        raise ConfigError(f"{path}: not AEDAT 2.0; convert it to .aedat4 or .npz")
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    _check_count(path, (len(content) - start) // 8)
    address, t = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).T
    if (address >> 16).any():
        raise ConfigError(f"{path}: from another camera than a DVS128; convert it to .aedat4 or .npz")
    is_pixel = (address & 0x8000) == 0
    pixel, t = address[is_pixel].astype(np.int64), t[is_pixel].astype(np.int64)
    return Events(127 - (pixel >> 8 & 0x7F), 127 - (pixel >> 1 & 0x7F), t, 1 - (pixel & 1), (128, 128))


def _npz(path: pathlib.Path) -> Events:
    with open_arrays(path) as arrays:
        sensor = tuple(_side(arrays, key) for key in ("height", "width") if key in arrays.names)
        if len(sensor) == 1:
            raise ConfigError(f"{path}: has only one of height and width; save both, or neither")
        fields = [field for field in _FIELDS if field in arrays.names]
        for field in fields:
            _check_count(path, math.prod(arrays.header(field).shape))
        return _from_fields(path, {field: arrays.read(field) for field in fields}, sensor)


def _side(arrays: ArrayFile, key: str) -> int:
    shape, dtype = arrays.header(key)
    if math.prod(shape) == 1 and dtype.kind in "iuf" and (side := arrays.read(key).item()) % 1 == 0:
        return int(side)
    raise ConfigError(f"{arrays.path}: {key} is {dtype} {shape}; save one whole number")


def _npy(path: pathlib.Path) -> Events:
    with open_arrays(path) as arrays:
        if len(arrays.names) != 1:
            raise ConfigError(f"{path}: holds {len(arrays.names)} arrays; name it .npz, or save one array")
        shape, dtype = arrays.header(arrays.names[0])
        if not dtype.names and (len(shape) != 2 or shape[1] != 4):
            raise ConfigError(f"{path}: is {dtype} {shape}; save {SAVE}, or fields or columns x, y, t, p")
        _check_count(path, math.prod(shape if dtype.names else shape[:1]))
        array = arrays.read(arrays.names[0])
    if dtype.names:
        return _from_fields(path, {field: array[field] for field in dtype.names}, ())
    return _from_arrays(path, array.T, ())


def _hdf5(path: pathlib.Path) -> Events:
    with files.hdf5(path, "events") as file:
        events = file.get("events", file)
        fields = events[()] if hasattr(events, "dtype") else events  # an array of fields x, y, t, p
        names = fields.dtype.names or () if hasattr(fields, "dtype") else fields.keys()
        return _from_fields(path, {field: fields[field][()] for field in _FIELDS if field in names}, ())


def _text(path: pathlib.Path) -> Events:
    """Read lines of numbers, separated by spaces, tabs, commas or semicolons; lines that begin with # or % are not."""
    with open(path, encoding="utf-8-sig") as file:
        names, delimiter, rest = _columns(file)
        form, most = [(name, np.float64) for name in names], _MOST_EVENTS + 1
        values = np.loadtxt(rest, form, comments=("#", "%"), delimiter=delimiter, ndmin=1, max_rows=most)
    with np.errstate(invalid="raise"):  # numbers that are not finite, or too large
        if (values["t"] % 1).any():
            values["t"] = np.rint(1e6 * values["t"])
        fields = {field: values[field].astype(np.int64) for field in _FIELDS if field in names}
    if wrong := [field for field, column in fields.items() if (values[field] != column).any()]:
        raise ConfigError(f"{path}: {wrong[0]} has fractions; {_TEXT}")
    return _from_fields(path, fields, ())


_TEXT = "write lines t x y p, or a first line of names"


def _columns(file: Iterable[str]) -> tuple[Sequence[str], str | None, Iterable[str]]:
    """Return the names of the columns of a text, what separates them, and its lines of numbers."""
    lines = filter(str.strip, file)
    first = next((line for line in lines if line[0] not in "#%"), "")
    delimiter = next((character for character in ",;" if character in first), None)
    names = [word.strip().lower() for word in first.split(delimiter)]
    if {"x", "y", "t"} <= set(names):
        if not (first := next(lines, "")):
            raise ValueError("it holds no events")
        return names, delimiter, itertools.chain([first], lines)
    numbers = all(re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?", name) for name in names)
    if not (numbers and len(names) in (3, 4)):
        raise ValueError(f"its first line is {first.strip()[:60]!r}; {_TEXT}")
    return "txyp"[: len(names)], delimiter, itertools.chain([first], lines)


_POLARITY = ("p", "polarity", "pol")
_FIELDS = (*"xyt", *_POLARITY)


def _from_fields(path: pathlib.Path, fields: Mapping[str, NDArray[Any]], sensor: tuple[int, ...]) -> Events:
    if missing := [field for field in "xyt" if field not in fields]:
        raise ConfigError(f"{path}: has no {', '.join(missing)}; save {SAVE}")
    x, y, t = (fields[field] for field in "xyt")
    p = next((fields[name] for name in _POLARITY if name in fields), np.zeros(x.shape, np.uint8))
    return _from_arrays(path, [x, y, t, p], sensor)


_INT64_MAX = np.iinfo(np.int64).max


def _from_arrays(path: pathlib.Path, xytp: NDArray[Any] | list[NDArray[Any]], sensor: tuple[int, ...]) -> Events:
    x, y, t, p = xytp
    _check_count(path, max(values.size for values in xytp))
    for field, values in (("x", x), ("y", y), ("t", t)):
        if values.size and values.dtype.kind not in "iu":
            raise ConfigError(f"{path}: {field} is {values.dtype}; save integers, times in microseconds")
        if values.size and values.max() > _INT64_MAX:  # only of uint64; it would become negative
            raise ConfigError(f"{path}: {field} has a value {values.max()}, which does not fit in int64; save it again")
    if p.size and not (np.isin(p, (0, 1)).all() or np.isin(p, (-1, 1)).all()):
        raise ConfigError(f"{path}: p holds more than two polarities; save x, y, t, p in this order, p as 0 and 1")
    x, y, t = (values.astype(np.int64) for values in (x, y, t))
    return Events(x, y, t, (p > 0).astype(np.uint8), sensor)


_READERS = {
    **{".aedat4": _aedat4, ".aedat": _aedat, ".bin": _bin, ".npz": _npz, ".npy": _npy},
    **{".h5": _hdf5, ".hdf5": _hdf5, ".txt": _text, ".csv": _text},
}
SUFFIXES = tuple(_READERS)
