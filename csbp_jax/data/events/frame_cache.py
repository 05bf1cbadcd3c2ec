"""Cache of a data set's frames: one array per split, read by memory map.

A cache is a folder ``NAME-PARAMETERS-HASH``; other parameters have another folder. It holds ``SPLIT.npy`` (uint8, or
the smallest wider type if a count is larger) and ``frames.json``: the parameters, the recordings left out and, for
each split, the ids, labels and rows of all its recordings (row -1: left out). One process writes it atomically, while
others wait.
"""

import functools
import hashlib
import json
import pathlib
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.download.locks import locked, scratch_directory
from csbp_jax.data.events.readers import IntArray
from csbp_jax.data.events.recordings import Recording, Splits, collect_errors, refuse
from csbp_jax.data.source import Array, Batch, DataSource, Record
from csbp_jax.runtime import files

Count = Callable[[Recording], IntArray]
"""Compute a recording's frames ``[T, ...]``, in an unsigned type."""


class CachedFrames(DataSource):
    """Source over rows of a cached array: record i is ``{"x": [T, ...] unsigned counts, "y": a target}``.

    Args:
      path: of the array.
      rows: of the records; -1 for those without frames, which are left out.
      y: their targets.
      classes: number of classes, labels or values.
    """

    events = True

    def __init__(self, path: pathlib.Path, rows: IntArray, y: Array, classes: int):
        usable = rows >= 0
        self.path, self.rows, self.classes = path, rows[usable], classes
        self.y = (y.astype(np.int32) if y.ndim == 1 else y)[usable]

    @functools.cached_property
    def _frames(self) -> IntArray:
        return np.asarray(np.load(self.path, mmap_mode="r"))

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open the array themselves: pickled, it would be a copy in memory.
        return {key: value for key, value in self.__dict__.items() if key != "_frames"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int, /) -> Record:
        return {"x": self._frames[self.rows[i]], "y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Return records ``indices [b]``, stacked; ``uniforms`` are not used."""
        return {"x": self._frames[self.rows[indices]], "y": self.y[indices]}


def cache_dir(folder: pathlib.Path, readable: str, parameters: dict[str, Any]) -> pathlib.Path:
    """Return the directory of the cache for these parameters."""
    text = json.dumps(parameters, sort_keys=True)
    return folder / "frames" / f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def load_or_build(
    target: pathlib.Path,
    parameters: dict[str, Any],
    recordings: Callable[[dict[str, str]], Splits],
    count: Count,
    *,
    skip: bool,
    show: Show,
) -> dict[str, Any]:
    """Return ``frames.json`` of the cache, which is written first if it does not exist.

    Args:
      target: the directory, from ``cache_dir``.
      parameters: everything that the frames depend on.
      recordings: lists the recordings of each split; collects unusable ones in its argument.
      count: computes a recording's frames.
      skip: leave out recordings that cannot be read; otherwise they are an error, once all have been tried.
      show: called with (stage, done, total).

    Raises:
      ConfigError: a recording cannot be read, or the cache is damaged; the message names the remedy.
    """
    if not target.exists():
        with locked(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                with scratch_directory(target.with_name(f"{target.name}.partial")) as partial:
                    skipped: dict[str, str] = {}
                    splits = {
                        split: _write_split(partial / f"{split}.npy", members, count, skipped, show)
                        for split, members in recordings(skipped).items()
                    }
                    if not skip:
                        refuse(skipped)
                    content = {"parameters": parameters, "skipped": skipped, "parts": splits}
                    (partial / "frames.json").write_text(json.dumps(content))
                    partial.rename(target)
    content = _read(target, parameters)
    if (reasons := list(content["skipped"].values())) and not skip:
        raise ConfigError(
            f"{reasons[0]} (one of {len(reasons)} left out of {target}; repair them and remove that folder, or leave "
            "them out: --data.bad skip)"
        )
    return content


def _write_split(
    path: pathlib.Path, members: list[Recording], count: Count, skipped: dict[str, str], show: Show
) -> dict[str, Any]:
    """Write the array of one split, in the smallest type that holds its counts; return its entry of frames.json."""
    for name in ("uint8", "uint16", "uint32"):
        try:
            written = _write_array(path, np.dtype(name), members, count, skipped, show)
        except OverflowError:  # rare, so the split starts again in the next wider type
            continue
        return written | {"ids": [member.id for member in members], "labels": [member.label for member in members]}
    raise ConfigError(f"{path.stem}: a pixel has more than {2**32 - 1} events in one frame; use more time steps")


def _write_array(
    path: pathlib.Path,
    dtype: np.dtype[Any],
    members: list[Recording],
    count: Count,
    skipped: dict[str, str],
    show: Show,
) -> dict[str, Any]:
    """Write frames in order and not through a memory map, on which a full disk would crash instead of raising.

    Raises:
      OverflowError: a count does not fit in ``dtype``.
    """
    rows: list[int] = []
    num_rows, checksum = 0, 0
    shape: tuple[int, ...] | None = None
    with open(path, "wb") as file:
        for i, member in enumerate(members):
            show(f"frames {path.stem}", i, len(members))
            rows.append(-1)
            with collect_errors(member.id, skipped):
                frames = count(member)
                if frames.dtype.itemsize > dtype.itemsize:
                    raise OverflowError
                if shape is None:
                    shape = frames.shape
                    _write_header(file, dtype, (len(members), *shape))
                data = np.ascontiguousarray(frames, dtype).data
                checksum = zlib.crc32(data, checksum)
                file.write(data)
                rows[-1], num_rows = num_rows, num_rows + 1
        if shape is None:
            reason = f"the last: {skipped[members[-1].id]}" if skipped and members else "prepare the data set again"
            raise ConfigError(f"{path.stem}: none of {len(members)} recordings can be used; {reason}")
        _write_header(file, dtype, (num_rows, *shape))
    show(f"frames {path.stem}", len(members), len(members))
    return {"rows": rows, "shape": [num_rows, *shape], "dtype": dtype.name, "crc32": checksum}


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write an npy header at the start; numpy pads it, so that its length does not depend on the number of rows."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _read(target: pathlib.Path, parameters: dict[str, Any]) -> dict[str, Any]:
    remedy = f"remove {target}, and it is made again"
    if not (target / "frames.json").exists():
        raise ConfigError(f"{target}: has no frames.json; {remedy}")
    errors = OSError, EOFError, ValueError, KeyError, TypeError, AttributeError
    with files.readable(target, remedy, errors, "damaged frames"):
        content: dict[str, Any] = files.read_json(target / "frames.json")
        if content["parameters"] != json.loads(json.dumps(parameters)):
            raise ConfigError(f"{target / 'frames.json'}: has other parameters than its folder's name; {remedy}")
        for split, entry in content["parts"].items():
            array = np.load(target / f"{split}.npy", mmap_mode="r")
            expected = [entry[name] for name in ("shape", "dtype", "crc32")]
            if [list(array.shape), array.dtype.name, zlib.crc32(array.data)] != expected:
                raise ConfigError(f"{target / split}.npy: its content has changed; {remedy}")
    return content
