"""One recording of an event camera, from a file of any of the usual formats."""

import contextlib
import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from csbp_jax.config import ConfigError

_LARGEST = 8192  # pixels a side that are believed of a file that does not say how large its camera is


class Events(NamedTuple):
    """Events in the order of their times."""

    x: np.ndarray
    """Column ``[N]``, from the left."""
    y: np.ndarray
    """Row ``[N]``, from the top."""
    t: np.ndarray
    """Time ``[N]`` in microseconds, int64."""
    p: np.ndarray
    """Polarity ``[N]``, 0 or 1."""
    sensor: tuple[int, ...]
    """Height and width of the camera; () if the file does not say."""


def read_file(path: str | pathlib.Path) -> Events:
    """The events of a file: aedat4, aedat (2.0, DVS128), bin (N-MNIST, N-Caltech101), npz or npy, by its ending.

    An npz has arrays x, y, t, p and may have height and width; an npy has these as fields, or as
    the columns of ``[N, 4]`` whole numbers. Times are microseconds; polarities 0 and 1, or -1 and 1.

    Raises:
      ConfigError: no such file, another format, truncated, without events, a pixel outside the camera, or times that
        fall; names the file and the mend.
    """
    return checked(parse(path), path)


def parse(path: str | pathlib.Path) -> Events:
    """As :func:`read_file`, but the events are not yet ``checked``."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in _READERS:
        raise ConfigError(f"{path}: not a file of events; read are {', '.join(SUFFIXES)}")
    try:
        return _READERS[path.suffix.lower()](path)
    except ImportError as error:
        raise ConfigError(
            f"{path}: its format needs a package that is not installed ({error}); pip install tonic aedat"
        ) from None
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a damaged file raises whatever its library has; a panic in Rust is no Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: cannot be read ({reason}); fetch or export it again") from None


def checked(events: Events, name: object) -> Events:
    """The events, if they are whole.

    Raises:
      ConfigError: begins with ``name``.
    """
    x, y, t, p, sensor = events
    height, width = sensor or (_LARGEST, _LARGEST)
    if not x.size == y.size == t.size == p.size:
        raise ConfigError(f"{name}: {x.size} x, {y.size} y, {t.size} t and {p.size} p; give one of each an event")
    if not t.size:
        raise ConfigError(f"{name}: holds no event; remove the file, or record it again")
    for field, values in (("x", x), ("y", y), ("t", t), ("p", p)):
        if values.ndim != 1 or values.dtype.kind not in "biu":
            raise ConfigError(f"{name}: {field} is {values.dtype} {values.shape}; give one whole number an event")
    for field, values, end in (("x", x, width), ("y", y, height), ("p", p, 2)):
        if values.min() < 0 or values.max() >= end:
            i = int(np.argmax((values < 0) | (values >= end)))
            raise ConfigError(
                f"{name}: event {i} has {field} = {values[i]}, outside of 0 to {end - 1}; the file is damaged or of "
                "another camera"
            )
    if np.any(falls := t[1:] < t[:-1]):
        i = int(np.argmax(falls)) + 1
        raise ConfigError(
            f"{name}: times fall at event {i}, from {t[i - 1]} to {t[i]}; sort its events by time (numpy.argsort with "
            'kind="stable")'
        )
    return events


def in_order(events: Events) -> Events:
    """Sorted by time; events of one time keep their order."""
    order = np.argsort(events.t, kind="stable")
    x, y, t, p, sensor = events
    return Events(x[order], y[order], t[order], p[order], sensor)


def _whole(path, size, record):
    if size % record:
        raise ConfigError(f"{path}: truncated, {size % record} bytes after the last whole event; fetch it again")


def _bin(path):
    """Five bytes an event: x, y, 1 bit of polarity and 23 of time, big-endian; y = 240 marks a time overflow."""
    from tonic.io import read_mnist_file

    _whole(path, path.stat().st_size, 5)
    events = read_mnist_file(path, np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    x, y, t, p = (np.ascontiguousarray(events[field]) for field in "xytp")
    return Events(x, y, t, p, ())


@contextlib.contextmanager
def _silent():
    """Nothing on the process's stderr: a panic in Rust prints there itself what is raised as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _aedat4(path):
    """Times count from the first event; in the file they are those of the calendar."""
    import aedat
    from tonic.io import read_aedat4

    with _silent():
        streams = aedat.Decoder(path).id_to_stream()
    stream = next((streams[i] for i in sorted(streams) if streams[i]["type"] == "events"), None)
    if stream is None:
        raise ConfigError(f"{path}: has no stream of events; export it with its events")
    with _silent():
        events = read_aedat4(str(path))
    x, y, t, p = (np.ascontiguousarray(events[field]) for field in ("x", "y", "t", "on"))
    t = (t - t[:1]).astype(np.int64)  # wraps to negative where times fall
    return Events(x, y, t, p, (stream["height"], stream["width"]))


def _aedat(path):
    """AEDAT 2.0 of a DVS128: lines that begin with #, then pairs of big-endian 32-bit address and microsecond.

    Address bits: 0 polarity (0 is brighter), 1-7 and 8-14 the pixel, 15 no pixel but a signal from outside. Turned so
    that the pictures of CIFAR10-DVS stand upright, as SpikingJelly does: x = 127 - bits 8-14, y = 127 - bits 1-7.
    """
    content = path.read_bytes()
    if not content.startswith(b"#!AER-DAT2"):
        raise ConfigError(f"{path}: not AEDAT 2.0; convert it to .aedat4 or .npz")
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    _whole(path, len(content) - start, 8)
    address, t = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).T
    if (address >> 16).any():
        raise ConfigError(f"{path}: of another camera than a DVS128; convert it to .aedat4 or .npz")
    pixel = (address & 0x8000) == 0
    address, t = address[pixel].astype(np.int64), t[pixel].astype(np.int64)
    return Events(127 - (address >> 8 & 0x7F), 127 - (address >> 1 & 0x7F), t, 1 - (address & 1), (128, 128))


def _npz(path):
    with path.open("rb") as file, np.load(file) as arrays:  # by itself, numpy leaves a damaged archive open
        if missing := [field for field in "xytp" if field not in arrays]:
            raise ConfigError(f"{path}: has no array {', '.join(missing)}; save x, y, t and p")
        sensor = tuple(int(arrays[key]) for key in ("height", "width") if key in arrays)
        if len(sensor) == 1:
            raise ConfigError(f"{path}: has only one of height and width; save both, or none")
        return _events(path, *(arrays[field] for field in "xytp"), sensor)


def _npy(path):
    array = np.load(path)
    if array.dtype.names and set("xytp") <= set(array.dtype.names):
        return _events(path, *(array[field] for field in "xytp"))
    if array.dtype.names or array.ndim != 2 or array.shape[1] != 4:
        raise ConfigError(f"{path}: is {array.dtype} {array.shape}; save fields x, y, t, p, or these four columns")
    return _events(path, *array.T)


def _events(path, x, y, t, p, sensor=()):
    """From a user's arrays."""
    for field, values in (("x", x), ("y", y), ("t", t)):
        if values.size and values.dtype.kind not in "iu":
            raise ConfigError(f"{path}: {field} is {values.dtype}; save whole numbers, times in microseconds")
    if p.size and not (np.isin(p, (0, 1)).all() or np.isin(p, (-1, 1)).all()):
        raise ConfigError(f"{path}: p holds more than two polarities; save x, y, t, p in this order, p as 0 and 1")
    return Events(*(field.astype(np.int64) for field in (x, y, t)), (p > 0).astype(np.uint8), sensor)


_READERS = {".aedat4": _aedat4, ".aedat": _aedat, ".bin": _bin, ".npz": _npz, ".npy": _npy}
SUFFIXES = tuple(_READERS)
