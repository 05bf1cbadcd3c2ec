"""Event data sets as sources of frames: recordings binned once into a cache, and split."""

import functools
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError, Data
from csbp_jax.data.buckets import check_lengths
from csbp_jax.data.events import binning, cochlea, frame_cache, preparation, spoken_digits
from csbp_jax.data.events.readers import Events, IntArray
from csbp_jax.data.events.recordings import DATA_SETS, Recording, index, names_in_file, read
from csbp_jax.data.source import Array, DataSource, Record, Rows
from csbp_jax.data.splits import stratified


def load(config: Config, folder: pathlib.Path) -> Mapping[str, DataSource]:
    """Load train, validation and test of an event data set as frames of counts ``x [T, H, W, 2]``.

    T is ``config.model.time_steps``. Sound has neither height nor polarity: x is ``[T, channels]``. Events are binned
    by ``config.data.bins``; with ``size`` and ``resize="events"`` their coordinates are scaled first. The first call
    bins all recordings, in one process while others wait, and caches the frames in ``folder/frames``.

    Splits. N-MNIST, DVS-Gesture, SHD and SSC have a test split, and SSC a validation split; that of fsdd is one
    speaker (``test_speaker``), or numbers 0 to 4 of all. For CIFAR10-DVS it is a tenth of each class in natural order
    of the files: the last (``split="last"``: files 900-999, as SEW ResNet, TET and CSBP) or the first ("first": 0-99,
    as TEBN and PSN). For N-Caltech101 it is a stratified tenth. Validation is a stratified share of the rest.

    Timestamps decrease in some published recordings. Where the archives were verified, the events of such a recording
    are sorted by time (a stable sort), and the number of recordings is printed; otherwise they are an error.

    Raises:
      ConfigError: the data set is not prepared, a recording cannot be read, or cached frames are damaged; the message
        names the remedy.
    """
    data, name = config.data, config.data.name
    if DATA_SETS[name].is_sound and data.size:
        raise ConfigError(f"data.size: {data.size} is not possible; {name} has no height and width, leave it out")
    marker = preparation.prepared(name, folder)
    parameters = _parameters(config, marker)
    unordered: set[str] = set()
    rule = f"window{data.window}us" if parameters["window"] else data.bins
    readable = f"{name}-T{parameters['T']}-{rule}-{'x'.join(map(str, parameters['shape'][:2]))}"
    target = frame_cache.cache_dir(folder, readable, parameters)
    content = frame_cache.load_or_build(
        target,
        parameters,
        functools.partial(_recordings, name, folder, marker["records"]),
        functools.partial(_frames, parameters, data, unordered),
        skip=data.bad == "skip",
        show=_show,
    )
    if unordered:
        print(f"{name}: timestamps decrease in {len(unordered)} recordings, which were sorted by time", file=sys.stderr)
    if left_out := len(content["skipped"]):
        print(f"{name}: {left_out} recordings left out; {target / 'frames.json'} lists them", file=sys.stderr)
    splits = _split_sources(target, content, data)
    return with_own_lengths(splits, config) if data.bins == "own" else splits


def _recordings(
    name: str, folder: pathlib.Path, records: Mapping[str, int], skipped: dict[str, str] | None = None
) -> Any:
    # An incomplete copy to another machine would train on fewer, and divide them otherwise.
    if (counts := preparation.count_recordings(name, folder)) != records:
        raise ConfigError(
            f"{folder}: holds {counts or 'none'} of the recordings {dict(records)} of {name} that were prepared; run "
            f"csbp_jax data {name} again"
        )
    return index(name, folder, skipped)


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Return the archives' checksums and, for fsdd, the version of the cochlear model."""
    archives = preparation.prepared(config.data.name, folder)["archives"]
    return json.dumps(archives | _encoder(config.data.name), sort_keys=True)


def _encoder(name: str) -> dict[str, Any]:
    return {"encoder": cochlea.VERSION} if name == "fsdd" else {}


def class_names(config: Config, folder: pathlib.Path) -> tuple[str, ...]:
    """Return the classes' names in the order of their labels; those of SSC are in its files.

    Raises:
      ConfigError: a file of SSC cannot be read.
    """
    data_set = DATA_SETS[config.data.name]
    if config.data.name == "ssc":
        return names_in_file(folder / data_set.folder / data_set.splits["train"])
    return data_set.classes


def _parameters(config: Config, marker: preparation.Marker) -> dict[str, Any]:
    """Collect everything that the frames depend on."""
    data, shape = config.data, DATA_SETS[config.data.name].shape
    return (
        {
            "name": data.name,
            "shape": (*data.size, shape[2]) if data.size and data.resize == "events" else shape,
            "archives": marker["archives"],
            "sorted": marker["verified"],
        }
        | binning_of(data.bins, data.window, config.model.time_steps)
        | _encoder(data.name)
    )


def binning_of(bins: str, window: int, T: int) -> dict[str, Any]:
    """Return what frames depend on beside the events and their pixels; own and window have the same frames."""
    is_window = bins in ("window", "own")
    return {"T": T, "bins": "window" if is_window else bins, "window": window if is_window else None}


def _show(stage: str, done: int, total: int) -> None:
    """Print a line at each quarter."""
    if done * 4 // max(total, 1) > (done - 1) * 4 // max(total, 1):
        print(f"{stage}: {done} of {total} recordings", file=sys.stderr, flush=True)


def _frames(parameters: dict[str, Any], data: Data, unordered: set[str], recording: Recording) -> IntArray:
    """Bin one recording into frames, and add its id to ``unordered`` if its events had to be sorted."""
    name, T, shape = (parameters[key] for key in ("name", "T", "shape"))
    # Decreasing timestamps in verified archives are the publisher's, not damage.
    events = read(name, recording, unordered if parameters["sorted"] else None)
    counts = bin_events(events, data, T, shape)
    return counts.reshape(T, -1) if DATA_SETS[name].is_sound else counts


def bin_events(events: Events, data: Data, T: int, shape: tuple[int, int, int]) -> IntArray:
    """Bin events by ``data.bins`` into counts ``[T, H, W, C]``, scaling coordinates from the sensor to ``shape``."""
    binning.check_grid(T, shape, "data.size")
    x, y, t, p, (height, width) = events  # raises if the sensor's size is unknown, which must not be guessed
    if data.bins in ("window", "own"):
        edges = binning.by_window(t, T, data.window)
    else:
        edges = {"number": binning.by_number, "time": binning.by_time}[data.bins](t, T)
    x, y = binning.rescale(x, width, shape[1]), binning.rescale(y, height, shape[0])
    return binning.count(x, y, p, edges, shape)


class _UntilLastEvent(Rows):
    """Frames of a source, each recording's up to its last event."""

    def __init__(self, source: DataSource):
        super().__init__(source)
        self.lengths = np.array([len(until_last_event(source[i]["x"])) for i in range(len(source))])

    def __getitem__(self, i: int) -> Record:
        record = super().__getitem__(i)
        return record | {"x": until_last_event(record["x"])}


def until_last_event(counts: Array) -> Array:
    """Return the frames ``[T, ...]`` up to the last that has an event, at least one."""
    busy = np.flatnonzero(counts.any(axis=tuple(range(1, counts.ndim))))
    return counts[: max(busy, default=0) + 1]


def with_own_lengths(splits: Mapping[str, DataSource], config: Config) -> Mapping[str, DataSource]:
    """Return the sources with each recording's frames up to its last event, for ``data.bins`` own.

    Raises:
      ConfigError: an option looks at a recording as a whole.
    """
    own = {split: _UntilLastEvent(source) for split, source in splits.items()}
    check_lengths(np.concatenate([source.lengths for source in own.values()]), config, config.data.name)
    return own


def _split_sources(target: pathlib.Path, content: dict[str, Any], data: Data) -> dict[str, frame_cache.CachedFrames]:
    """Split all recordings and then drop those left out, so that they do not move others between splits."""
    entries = content["parts"]
    labels = {name: np.array(entry["labels"]) for name, entry in entries.items()}
    members = {name: (name, np.arange(len(y))) for name, y in labels.items()}
    if "all" in entries:
        rest, test = (
            spoken_digits.split_off_test(entries["all"]["ids"], data.test_speaker)
            if data.name == "fsdd"
            else split_off_test(data.name, labels["all"], data.split)
        )
        members = {"train": ("all", rest), "test": ("all", test)}
    name, rest = members["train"]
    if "validation" not in members:
        train, validation = stratified(labels[name][rest], data.validation)
        members |= {"train": (name, rest[train]), "validation": (name, rest[validation])}
    classes = len(DATA_SETS[data.name].classes)
    sources = {}
    for split in ("train", "validation", "test"):
        name, indices = members[split]
        rows = np.array(entries[name]["rows"])[indices]
        sources[split] = frame_cache.CachedFrames(target / f"{name}.npy", rows, labels[name][indices], classes)
    return sources


def split_off_test(name: str, y: IntArray, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split a data set without a published test split: ascending indices (rest, test).

    Args:
      name: cifar10_dvs or ncaltech101.
      y: labels [N] in natural order of the files.
      split: cifar10_dvs only: the "last" or the "first" tenth of each class.
    """
    if name == "ncaltech101":
        return stratified(y, 0.1)
    test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        tenth = max(1, len(members) // 10)
        test[members[:tenth] if split == "first" else members[-tenth:]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
