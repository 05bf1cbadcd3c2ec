"""A user's files as sources: pictures, frames and recordings of events, see :mod:`csbp_jax.data.folder`."""

import functools
import hashlib
import pathlib
import sys
import zipfile
from typing import Any

import numpy as np
from PIL import Image

from csbp_jax.config import Config, ConfigError
from csbp_jax.data import crops, images
from csbp_jax.data.decode import decode
from csbp_jax.data.event_files import read_file
from csbp_jax.data.events import binned
from csbp_jax.data.frames import Frames, cached, folder_of
from csbp_jax.data.recordings import Recording, tolerating

Parts = dict[str, list[Recording]]

_GREY = np.array([128, 128, 128])


def pictures(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, Any]:
    """Each decoded to RGB when it is asked for: whole, or as ImageNet's are if ``resized_crop`` is in ``augment``."""
    del folder
    data = config.data
    parts = _usable(parts, data.bad, lambda path: decode(path.read_bytes(), str(path)))
    size = data.size or _common(_paths(parts), _height_width)
    random = "resized_crop" in data.augment
    return {
        part: images.Photos(
            _Bytes([record.path for record in records]),
            np.arange(len(records)),
            _labels(records),
            classes,
            size,
            random=random and part == "train",
            steps=images.host_steps(config, size, _GREY, but="resized_crop") if part == "train" else (),
            window=crops.centre_window if random else crops.whole_window,
        )
        for part, records in parts.items()
    }


class _Bytes:
    """Files as :class:`images.Photos` asks for records."""

    def __init__(self, paths: list[pathlib.Path]):
        self.paths = paths

    def __getitem__(self, i: int) -> dict[str, bytes]:
        return {"image": self.paths[i].read_bytes(), "file_name": str(self.paths[i]).encode()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, bytes]]:
        return [self[i] for i in indices]


def _height_width(path):
    try:
        with Image.open(path) as image:
            return image.size[::-1]
    except OSError:
        raise ConfigError(f"{path}: is no picture, or a damaged one; replace it") from None


def frames(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, "Arrays"]:
    """Arrays as they are, one a file; those without a time axis are shown for T steps."""
    del folder
    parts = _usable(parts, config.data.bad, array)
    _common(_paths(parts), lambda path: array(path).shape)
    return {
        part: Arrays([record.path for record in records], _labels(records), classes) for part, records in parts.items()
    }


class Arrays:
    """Record i is ``{"x": [T or 1, ...], "y": int32}``, read from its file when it is asked for."""

    events = True

    def __init__(self, paths: list[pathlib.Path], y: np.ndarray, classes: int):
        self.paths, self.y, self.classes = paths, y, classes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"x": array(self.paths[i]), "y": self.y[i]}


def array(path: pathlib.Path) -> np.ndarray:
    """The only array of an npy or npz file, with a time axis.

    Raises:
      ConfigError: it is damaged, holds several arrays, or none that frames could be; names the file.
    """
    x = _opened(path)
    if not isinstance(x, np.ndarray):
        if len(x) != 1:
            raise ConfigError(
                f"{path}: holds {', '.join(x) or 'nothing'}; save one array of frames, or events x, y, t, p"
            )
        x = next(iter(x.values()))
    if x.ndim not in (1, 2, 3, 4) or 0 in x.shape or x.dtype.kind not in "buif":
        raise ConfigError(f"{path}: is {x.dtype} {x.shape}; save numbers as [T, H, W, C], [H, W, C], [T, F] or [F]")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ConfigError(f"{path}: holds values that are not finite; replace it")
    return x if x.ndim in (2, 4) else x[None]


def holds_events(path: pathlib.Path) -> bool:
    """Whether an npz file has arrays x, y, t and p."""
    return set("xytp") <= set(_opened(path))


def _opened(path):
    """The array of an npy file, or the arrays of an npz file by name."""
    try:
        with path.open("rb") as file:  # by itself, numpy leaves it open where the archive is damaged
            content = np.load(file)
            return content if isinstance(content, np.ndarray) else dict(content)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); save it again by numpy.save or numpy.savez") from None


def events(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, Frames]:
    """Frames of ``config.model.time_steps``, counted at the first call and kept in ``folder/frames``."""
    data, time_steps = config.data, config.model.time_steps
    resized = data.size if data.resize == "events" else None
    parameters = {
        "files": _identity(parts),
        "T": time_steps,
        "bins": data.bins,
        "window": data.window if data.bins == "window" else None,
        "size": resized,
    }
    sensor = functools.cache(lambda: resized or _sensor(parts, data.bad))  # asked for only if frames must be counted
    target = folder_of(folder, f"{pathlib.Path(data.dir).resolve().name}-T{time_steps}-{data.bins}", parameters)
    content = cached(
        target,
        parameters,
        lambda skipped: parts,
        lambda record: binned(read_file(record.path), data, time_steps, (*sensor(), 2)),
        skip=data.bad == "skip",
        show=lambda stage, done, total: None,
    )
    _tell(content["skipped"])
    sources = {}
    for part, about in content["parts"].items():
        rows = np.array(about["rows"])
        sources[part] = Frames(target / f"{part}.npy", rows[rows >= 0], np.array(about["labels"])[rows >= 0], classes)
    return sources


def _identity(parts):
    """Changes with any file's name, part, size or time of change."""
    files = [(part, record.id, record.path.stat()) for part, records in parts.items() for record in records]
    text = repr([(part, name, stat.st_size, stat.st_mtime_ns) for part, name, stat in files])
    return hashlib.sha256(text.encode()).hexdigest()


def _sensor(parts, bad):
    """As large as the files say; where they do not say, as their largest coordinates."""
    sensors = []
    for path in _paths(parts):
        with tolerating(str(path), {} if bad == "skip" else None):
            sensors.append(read_file(path).sensor)
    return np.max(sensors, axis=0).tolist()


def _paths(parts):
    return [record.path for records in parts.values() for record in records]


def _labels(records):
    return np.array([record.label for record in records], np.int32)


def _common(paths, measure):
    """What all files have alike."""
    size = measure(paths[0])
    for path in paths[1:]:
        if (other := measure(path)) != size:
            raise ConfigError(
                f"{path}: is {'x'.join(map(str, other))}, but {paths[0]} is {'x'.join(map(str, size))}; make them "
                "alike, or for pictures give a size (--data.size HEIGHT WIDTH)"
            )
    return size


def _usable(parts, bad, read):
    """With "skip", without the files that ``read`` refuses."""
    if bad == "fail":
        return parts
    skipped: dict[str, str] = {}
    kept: Parts = {part: [] for part in parts}
    for part, records in parts.items():
        for record in records:
            with tolerating(record.id, skipped):
                read(record.path)
                kept[part].append(record)
    _tell(skipped)
    return kept


def _tell(skipped):
    if skipped:
        print(f"left out {len(skipped)} files that cannot be read: {', '.join(skipped)}", file=sys.stderr)
