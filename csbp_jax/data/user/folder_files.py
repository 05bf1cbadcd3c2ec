"""Class folders of pictures and of arrays, as sources; see :mod:`csbp_jax.data.user.folder`."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.array_files import ArrayFile, Header, open_arrays
from csbp_jax.data.buckets import check_lengths
from csbp_jax.data.events.readers import SAVE
from csbp_jax.data.events.recordings import LEAVE_OUT, Recording, Splits, collect_errors, refuse
from csbp_jax.data.images import augment, sources
from csbp_jax.data.images.decode import REPLACE, decode, picture_shape
from csbp_jax.data.source import Array, DataSource, Record
from csbp_jax.runtime import files

_GREY = np.array([128, 128, 128])


def load_pictures(
    config: Config, folder: pathlib.Path, splits: Splits, classes: int, problems: dict[str, str]
) -> dict[str, sources.JpegSource]:
    """Load pictures, decoded on access, as :func:`picture_sources`.

    Args:
      config, splits, classes: as of :func:`picture_sources`.
      folder: without effect.
      problems: files that were found to be unusable before.

    Raises:
      ConfigError: files cannot be used, unless ``data.bad`` is "skip", which decodes each file to leave them out.
    """
    del folder
    data = config.data

    def check(path: pathlib.Path) -> None:
        if data.bad == "skip":
            decode(files.read_bytes(path, files.LARGE), str(path))
        elif not (data.size and config.model.input_shape):  # else nothing of the file is needed yet
            picture_shape(path)

    return picture_sources(config, _usable(splits, data.bad, problems, check), classes, f"{REPLACE} {LEAVE_OUT}")


def picture_sources(config: Config, splits: Splits, classes: int, remedy: str) -> dict[str, sources.JpegSource]:
    """Return sources of pictures, decoded on access: in full, or cropped as ImageNet's with resized_crop.

    They have one channel if all files are grey, or the network takes one, and else three.

    Args:
      config: ``data.size``, by default that of all files, and ``data.augment``.
      splits: files that can be read.
      classes: number of classes.
      remedy: what an error says to do with a picture that turns out to be damaged.
    """
    data, paths = config.data, paths_of(splits)
    height, width = data.size or _common_shape(paths, lambda path: picture_shape(path)[:2])
    known = config.model.input_shape[2:]  # of a run that is trained or predicts
    grey = known == (1,) if known else all(picture_shape(path)[2] == 1 for path in paths)
    random = "resized_crop" in data.augment
    window = augment.centre_window if random else augment.full_window
    view = sources.View((height, width), window, resize=sources.resizer(config), grey=grey)
    return {
        split: sources.JpegSource(
            _EncodedFiles([record.path for record in records]),
            np.arange(len(records)),
            labels_of(records),
            classes,
            dataclasses.replace(view, random=random and split == "train"),
            sources.host_steps(config, view.size, lambda: _GREY, but="resized_crop") if split == "train" else (),
            remedy,
        )
        for split, records in splits.items()
    }


class _EncodedFiles:
    """Undecoded pictures, by the interface that :class:`csbp_jax.data.images.sources.JpegSource` reads."""

    def __init__(self, paths: Sequence[pathlib.Path]):
        self.paths = paths

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        paths = (self.paths[i] for i in indices)
        return [{"image": files.read_bytes(path, files.LARGE), "file_name": os.fsencode(path)} for path in paths]


def load_frames(
    config: Config, folder: pathlib.Path, splits: Splits, classes: int, problems: dict[str, str]
) -> dict[str, "ArrayFileSource"]:
    """Load arrays unchanged, one per file; those without a time axis are repeated for T steps.

    Arrays may differ in their time steps, up to the model's T. The arguments are those of :func:`load_pictures`.

    Raises:
      ConfigError: an option is not for frames, a file cannot be read, they differ in shape but for time, or have other
        time steps than the model's T.
    """
    del folder
    data = config.data
    if data.size and data.resize == "events":
        raise ConfigError(
            f"data.size: {data.size} is not possible for frames with data.resize events, which is for recordings; "
            "allowed are nearest, bilinear, antialias"
        )
    shapes: dict[pathlib.Path, tuple[int, ...]] = {}

    def check(path: pathlib.Path) -> None:
        shapes[path] = read_array(path).shape

    splits = _usable(splits, data.bad, problems, check)
    paths, expected = paths_of(splits), config.model.time_steps
    _common_shape(paths, lambda path: shapes[path][1:])
    lengths = np.array([shapes[path][0] for path in paths])
    several = np.ptp(lengths) > 0
    if several:
        check_lengths(lengths, config, data.dir)
    elif lengths[0] not in (1, expected):
        raise ConfigError(
            f"{paths[0]}: has {lengths[0]} time steps, its first axis; expected is model.time_steps ({expected}), or "
            f"1; set --model.time-steps {lengths[0]}, or save other frames"
        )
    return {
        split: ArrayFileSource(
            of_split := [record.path for record in records],
            labels_of(records),
            classes,
            np.array([shapes[path][0] for path in of_split]) if several else None,
        )
        for split, records in splits.items()
    }


class ArrayFileSource(DataSource):
    """Source of one array per file, read on access: record i is ``{"x": [T or 1, ...], "y": int32 or float32 [K]}``."""

    events = True

    def __init__(self, paths: Sequence[pathlib.Path], y: Array, classes: int, lengths: Array | None):
        self.paths, self.y, self.classes, self.lengths = paths, y, classes, lengths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Record:
        return {"x": read_array(self.paths[i]), "y": self.y[i]}


def shapes_of(paths: Iterable[pathlib.Path]) -> Iterator[tuple[pathlib.Path, tuple[int, ...]]]:
    """Yield each file that can be read, and its array's shape."""
    for path in paths:
        with contextlib.suppress(ConfigError):
            yield path, read_array(path).shape


def stated_shape(path: pathlib.Path) -> tuple[int, ...]:
    """Return the shape of :func:`read_array`'s result, from the file's header alone.

    A small file can state an array of 2 GiB: a caller that knows the shape which it needs compares it first.

    Raises:
      ConfigError: as :func:`read_array`, except for values.
    """
    with open_arrays(path) as content:
        return _with_time(_frames_header(content).shape)


def read_array(path: pathlib.Path) -> Array:
    """Read the only array of an npy or npz file, with a time axis.

    Raises:
      ConfigError: the file is damaged, holds several arrays, or one that cannot be frames; the message names it.
    """
    with open_arrays(path) as content:
        _frames_header(content)
        x = content.read(content.names[0])
    with np.errstate(over="ignore"):
        if x.dtype.kind == "f" and not np.isfinite(x.astype(np.float32)).all():
            raise ConfigError(f"{path}: holds values that are not finite in float32; replace it")
    if _lists_events(x):
        raise ConfigError(f"{path}: seems to be a list of events; save {SAVE}")
    return x.reshape(_with_time(x.shape))


def _frames_header(content: ArrayFile) -> Header:
    """Return the header of the only array of a file.

    Raises:
      ConfigError: there are several, or it cannot be frames.
    """
    if len(content.names) != 1:
        names = ", ".join(content.names[:10]) or "nothing"
        raise ConfigError(f"{content.path}: holds {names}; save one array of frames, or events by {SAVE}")
    shape, dtype = header = content.header(content.names[0])
    if len(shape) not in (1, 2, 3, 4) or 0 in shape or dtype.kind not in "buif":
        raise ConfigError(
            f"{content.path}: is {dtype} {shape}; save numbers as [T, H, W, C], [H, W, C], [T, F] or [F]; events: "
            f"{SAVE}"
        )
    return header


def _with_time(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of frames or features with their time axis, which those of a single time step may lack."""
    return shape if len(shape) in (2, 4) else (1, *shape)


def _lists_events(x: Array) -> bool:
    """Return whether four columns look like x, y, a non-decreasing time and a polarity, rather than features."""
    if x.ndim != 2 or x.shape[1] != 4 or x.dtype.kind not in "iu":
        return False
    t, p = x[:, 2], x[:, 3]
    possible = (x[:, :3] >= 0).all() and (t[1:] >= t[:-1]).all() and np.isin(p, (-1, 0, 1)).all()
    # Spikes and counts of a channel may rise as well, but hardly by as much as times do.
    return bool(possible) and int(t[-1]) - int(t[0]) >= 100


def fingerprint(splits: Splits) -> str:
    """Return a checksum of the files' names, splits, sizes and modification times."""
    listed = [(split, record.id, record.path.stat()) for split, records in splits.items() for record in records]
    text = repr([(split, name, stat.st_size, stat.st_mtime_ns) for split, name, stat in listed])
    return hashlib.sha256(text.encode()).hexdigest()


def paths_of(splits: Splits) -> list[pathlib.Path]:
    """Return the paths of all splits in one list."""
    return [record.path for records in splits.values() for record in records]


def labels_of(records: Sequence[Recording]) -> Array:
    """Return the targets of records: classes as int32 ``[N]``, numbers as float32 ``[N, K]``."""
    labels = np.array([record.label for record in records])
    return labels.astype(np.int32 if labels.dtype.kind == "i" else np.float32)


def _common_shape(paths: Sequence[pathlib.Path], measure: Callable[[pathlib.Path], tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape that all files share."""
    shape = measure(paths[0])
    for path in paths[1:]:
        if (other := measure(path)) != shape:
            raise ConfigError(
                f"{path}: is {'x'.join(map(str, other))}, but {paths[0]} is {'x'.join(map(str, shape))}; give them one "
                "shape, or for pictures set a size (--data.size HEIGHT WIDTH)"
            )
    return shape


def _usable(splits: Splits, bad: str, problems: dict[str, str], check: Callable[[pathlib.Path], None]) -> Splits:
    """Return the files that ``check`` does not refuse.

    The others, with those in ``problems``, are printed if ``bad`` is "skip"; else they are an error.
    """
    problems = dict(problems)
    usable: Splits = {split: [] for split in splits}
    for split, records in splits.items():
        for record in records:
            with collect_errors(record.id, problems):
                check(record.path)
                usable[split].append(record)
        if not usable[split] and bad == "skip":
            raise ConfigError(f"{split}: none of {len(records)} files can be used; the last: {problems[record.id]}")
    if bad == "fail":
        refuse(problems)
    print_skipped(problems)
    return usable


def print_skipped(skipped: dict[str, str]) -> None:
    """Print one line that lists the files left out, if any."""
    if skipped:
        names = ", ".join(skipped).replace("\n", "\\n")
        count = f"{len(skipped)} files" if len(skipped) > 1 else "1 file"
        print(f"left out {count} that cannot be read: {names}", file=sys.stderr)
