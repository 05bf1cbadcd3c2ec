"""A user's pictures and frames as sources, see :mod:`csbp_jax.data.user.folder`."""

import contextlib
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.events.recordings import Recording, collect_errors
from csbp_jax.data.images import augment, sources
from csbp_jax.data.images.decode import decode
from csbp_jax.data.source import DataSource

Parts = dict[str, list[Recording]]

_GREY = np.array([128, 128, 128])


def pictures(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, Any]:
    """Each decoded to RGB when it is asked for: whole, or as ImageNet's are if ``resized_crop`` is in ``augment``."""
    del folder
    data = config.data
    parts = _usable(parts, data.bad, lambda path: decode(path.read_bytes(), str(path)))
    size = data.size or _common(paths_of(parts), height_width)
    random = "resized_crop" in data.augment
    return {
        part: sources.JpegSource(
            _Bytes([record.path for record in records]),
            np.arange(len(records)),
            _labels(records),
            classes,
            size,
            random=random and part == "train",
            steps=sources.host_steps(config, size, _GREY, but="resized_crop") if part == "train" else (),
            window=augment.centre_window if random else augment.whole_window,
        )
        for part, records in parts.items()
    }


class _Bytes:
    """Files as :class:`images.Photos` asks for records."""

    def __init__(self, paths: list[pathlib.Path]):
        self.paths = paths

    def __getitem__(self, i: int) -> dict[str, bytes]:
        return {"image": self.paths[i].read_bytes(), "file_name": os.fsencode(self.paths[i])}

    def __getitems__(self, indices: list[int]) -> list[dict[str, bytes]]:
        return [self[i] for i in indices]


def height_width(path: pathlib.Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size[::-1]
    except Exception as error:  # Pillow's parsers raise what they like
        raise ConfigError(f"{path}: is no picture, or a damaged one ({_one_line(error)}); replace it") from None


def frames(config: Config, folder: pathlib.Path, parts: Parts, classes: int) -> dict[str, "ArrayRecords"]:
    """Arrays as they are, one a file; those without a time axis are shown for T steps."""
    del folder
    data = config.data
    if data.size and data.resize == "events":
        raise ConfigError(
            f"data.size: {data.size} is not possible for frames with data.resize events, which is for recordings; "
            "allowed are nearest, bilinear, antialias"
        )
    parts = _usable(parts, data.bad, array)
    _common(paths_of(parts), lambda path: array(path).shape)
    return {
        part: ArrayRecords([record.path for record in records], _labels(records), classes)
        for part, records in parts.items()
    }


class ArrayRecords(DataSource):
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
    with _opened(path) as content:
        arrays = {"": content} if isinstance(content, np.ndarray) else dict(content)
    if len(arrays) != 1:
        raise ConfigError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; save one array of frames, or events x, y, t, p"
        )
    (x,) = arrays.values()
    if x.ndim not in (1, 2, 3, 4) or 0 in x.shape or x.dtype.kind not in "buif":
        raise ConfigError(f"{path}: is {x.dtype} {x.shape}; save numbers as [T, H, W, C], [H, W, C], [T, F] or [F]")
    with np.errstate(over="ignore"):
        if x.dtype.kind == "f" and not np.isfinite(x.astype(np.float32)).all():
            raise ConfigError(f"{path}: holds values that are not finite in float32; replace it")
    if _lists_events(x):
        raise ConfigError(f"{path}: seems to be a list of events; save it as .npz with arrays x, y, t, p")
    return x if x.ndim in (2, 4) else x[None]


def _lists_events(x):
    """Whether four columns are x, y, a time that does not fall, and a polarity, rather than features."""
    if x.ndim != 2 or x.shape[1] != 4 or x.dtype.kind not in "iu":
        return False
    t, p = x[:, 2], x[:, 3]
    return bool((x[:, :3] >= 0).all() and (t[1:] >= t[:-1]).all() and t[-1] > t[0] and np.isin(p, (-1, 0, 1)).all())


def holds_events(path: pathlib.Path) -> bool:
    """Whether an npz file has arrays x, y, t and p; they are not read."""
    with _opened(path) as content:
        return set("xytp") <= set(getattr(content, "files", ()))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    """The array of an npy file, or the arrays of an npz file, which are read as they are asked for."""
    try:
        with path.open("rb") as file:  # by itself, numpy leaves it open where the archive is damaged
            yield np.load(file)
    except Exception as error:  # a damaged file raises whatever zipfile, zlib or numpy's parser of headers has
        raise ConfigError(f"{path}: cannot be read ({_one_line(error)}); save it again as .npy or .npz") from None


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def fingerprint(parts: Parts) -> str:
    """Changes with any file's name, part, size or time of change."""
    files = [(part, record.id, record.path.stat()) for part, records in parts.items() for record in records]
    text = repr([(part, name, stat.st_size, stat.st_mtime_ns) for part, name, stat in files])
    return hashlib.sha256(text.encode()).hexdigest()


def paths_of(parts: Parts) -> list[pathlib.Path]:
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
            with collect_errors(record.id, skipped):
                read(record.path)
                kept[part].append(record)
        if not kept[part]:
            raise ConfigError(f"{part}: none of {len(records)} files can be used; the last: {skipped[record.id]}")
    tell(skipped)
    return kept


def tell(skipped: dict[str, str]) -> None:
    """One line of what was left out, if anything was."""
    if skipped:
        names = ", ".join(skipped).replace("\n", "\\n")
        print(f"left out {len(skipped)} files that cannot be read: {names}", file=sys.stderr)
