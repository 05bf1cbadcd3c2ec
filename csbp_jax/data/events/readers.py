"""Readers for recordings of event cameras, in any of the usual file formats."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, extras
from csbp_jax.data.events import aedat4
from csbp_jax.data.safe_files import MAX_ARRAY_BYTES, ArrayFile, open_arrays, readable
from csbp_jax.runtime import files

IntArray = NDArray[np.integer]
"""An array of integers of any width."""

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

    Formats: aedat4, aedat (2.0, DVS128), bin (N-MNIST, N-Caltech101), npz and npy. An npz has arrays x, y, t, p and may
    have height and width; an npy has x, y, t, p as fields, or as the columns of an integer array ``[N, 4]``. Times are
    in microseconds; polarities are 0 and 1, or -1 and 1.

    Raises:
      ConfigError: the file is missing, of another format, truncated or empty, a pixel lies outside the camera, or
        timestamps decrease; the message names the file and the remedy.
    """
    return validate(parse(path), path)


def parse(path: str | pathlib.Path) -> Events:
    """Read a file as :func:`read_file`, without validating its events."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in _READERS:
        raise ConfigError(f"{path}: not a file of events; supported formats are {', '.join(SUFFIXES)}")
    files.check_regular(path)
    with readable(path, "fetch or export it again", BaseException):  # a panic in Rust is not even an Exception
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
    x, y, t, p, sensor = events
    return Events(x[order], y[order], t[order], p[order], sensor)


def _check_count(path: pathlib.Path, count: int) -> None:
    most = MAX_ARRAY_BYTES // np.dtype(np.int64).itemsize
    if count > most:  # narrower integers in the file become int64
        raise ConfigError(f"{path}: holds {count:,} events; allowed are {most:,}; divide it")


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
    content = files.read_bytes(path, files.MAX_BYTES)
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
        return _from_arrays(path, [arrays.read(field) for field in "xytp"], sensor)


def _side(arrays: ArrayFile, key: str) -> int:
    side = arrays.read(key)
    if side.size != 1 or side.dtype.kind not in "iuf" or not side.item() % 1 == 0:
        raise ConfigError(f"{arrays.path}: {key} is {side.dtype} {side.shape}; save one whole number")
    return int(side.item())


def _npy(path: pathlib.Path) -> Events:
    with open_arrays(path) as arrays:
        if len(arrays.names) != 1:
            raise ConfigError(f"{path}: holds {len(arrays.names)} arrays; name it .npz, or save one array")
        array = arrays.read(arrays.names[0])
    if array.dtype.names and set("xytp") <= set(array.dtype.names):
        return _from_arrays(path, [array[field] for field in "xytp"], ())
    if array.dtype.names or array.ndim != 2 or array.shape[1] != 4:
        raise ConfigError(f"{path}: is {array.dtype} {array.shape}; save fields x, y, t, p, or these four columns")
    return _from_arrays(path, array.T, ())


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


_READERS = {".aedat4": _aedat4, ".aedat": _aedat, ".bin": _bin, ".npz": _npz, ".npy": _npy}
SUFFIXES = tuple(_READERS)
