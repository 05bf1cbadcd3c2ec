"""Frames of a whole data set, counted once and kept as one array a part, which is read by memory map.

A cache is a folder ``NAME-PARAMETERS-HASH``: other parameters are another folder. It holds ``PART.npy`` (uint8, or the
smallest wider type if a count is larger) and ``frames.json``: the parameters, the recordings left out and, for each
part, the ids, labels and rows of all its recordings (row -1: left out). One process writes it, and whole; others wait.
"""

import functools
import hashlib
import json
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.data.download.locks import locked, workplace
from csbp_jax.data.events.recordings import Recording, tolerating
from csbp_jax.data.source import DataSource

Show = Callable[[str, int, int], None]


class Frames(DataSource):
    """A source over rows of a cached array: record i is ``{"x": [T, ...] unsigned counts, "y": int32}``. It pickles."""

    events = True

    def __init__(self, path: pathlib.Path, rows: np.ndarray, y: np.ndarray, classes: int):
        self.path, self.rows, self.y, self.classes = path, rows, y.astype(np.int32), classes

    @functools.cached_property
    def _frames(self):
        return np.asarray(np.load(self.path, mmap_mode="r"))

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_frames"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"x": self._frames[self.rows[i]], "y": self.y[i]}

    def take(self, indices: np.ndarray, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": self._frames[self.rows[indices]], "y": self.y[indices]}


def folder_of(folder: pathlib.Path, readable: str, parameters: dict[str, Any]) -> pathlib.Path:
    """Where the cache of these parameters is."""
    text = json.dumps(parameters, sort_keys=True)
    return folder / "frames" / f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def cached(
    target: pathlib.Path,
    parameters: dict[str, Any],
    recordings: Callable[[dict[str, str] | None], dict[str, list[Recording]]],
    count: Callable[[Recording], np.ndarray],
    *,
    skip: bool,
    show: Show,
) -> dict[str, Any]:
    """``frames.json`` of the cache, which is written first if it is not there.

    Args:
      target: the folder, from ``folder_of``.
      parameters: everything that the frames depend on.
      recordings: gives the recordings of each part; notes unusable ones in its argument, unless that is None.
      count: a recording's frames ``[T, ...]``, in an unsigned type.
      skip: leave out recordings that cannot be read; else the first is an error.
      show: called with (stage, done, total).

    Raises:
      ConfigError: a recording cannot be read, or the cache is damaged; says what to do.
    """
    if not target.exists():
        with locked(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _write(target, parameters, recordings, count, skip, show)
    content = _read(target, parameters)
    if (reasons := list(content["skipped"].values())) and not skip:
        raise ConfigError(
            f"{reasons[0]} (one of {len(reasons)} left out of {target}; mend them and remove that folder, or leave "
            "them out: data.bad skip)"
        )
    return content


def _write(target, parameters, recordings, count, skip, show):
    with workplace(target.with_name(f"{target.name}.partial")) as partial:
        skipped = {} if skip else None
        parts = {
            part: _write_part(partial / f"{part}.npy", members, count, skipped, show)
            for part, members in recordings(skipped).items()
        }
        content = {"parameters": parameters, "skipped": skipped or {}, "parts": parts}
        (partial / "frames.json").write_text(json.dumps(content))
        partial.rename(target)


def _write_part(path, members, count, skipped, show):
    for dtype in (np.uint8, np.uint16, np.uint32):
        try:
            written = _write_array(path, np.dtype(dtype), members, count, skipped, show)
        except OverflowError:  # rare, and once: from the start in the next wider type
            continue
        return written | {"ids": [member.id for member in members], "labels": [member.label for member in members]}
    raise ConfigError(f"{path.stem}: a pixel has more than {2**32 - 1} events in one frame; use more time steps")


def _write_array(path, dtype, members, count, skipped, show):
    """Written in order, not through a map: a full disk is then an error and not a crash."""
    rows, kept, checksum, shape = [], 0, 0, None
    with open(path, "wb") as file:
        for i, member in enumerate(members):
            show(f"frames {path.stem}", i, len(members))
            rows.append(-1)
            with tolerating(member.id, skipped):
                frames = count(member)
                if frames.dtype.itemsize > dtype.itemsize:
                    raise OverflowError
                if shape is None:
                    shape = frames.shape
                    _header(file, dtype, (len(members), *shape))
                data = np.ascontiguousarray(frames, dtype).data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
                rows[-1], kept = kept, kept + 1
        if shape is None:
            raise ConfigError(f"{path.stem}: none of {len(members)} recordings can be used; prepare the data set again")
        _header(file, dtype, (kept, *shape))
    show(f"frames {path.stem}", len(members), len(members))
    return {"rows": rows, "shape": [kept, *shape], "dtype": dtype.name, "crc32": checksum}


def _header(file, dtype, shape):
    """At the start of the file; numpy leaves room, so that its length does not depend on the number of rows."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _read(target, parameters):
    mend = f"remove {target}, and it is made again"
    try:
        content = json.loads((target / "frames.json").read_text())
        if content["parameters"] != json.loads(json.dumps(parameters)):
            raise ConfigError(f"{target / 'frames.json'}: has other parameters than its folder's name; {mend}")
        for part, about in content["parts"].items():
            array = np.load(target / f"{part}.npy", mmap_mode="r")
            if (list(array.shape), array.dtype.name, _crc32(array)) != (about["shape"], about["dtype"], about["crc32"]):
                raise ConfigError(f"{target / part}.npy: its content has changed; {mend}")
    except ConfigError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{target}: damaged frames ({error}); {mend}") from None
    return content


def _crc32(array, rows=64):
    checksum = 0
    for start in range(0, len(array), rows):
        checksum = zlib.crc32(array[start : start + rows].data, checksum)
    return checksum
