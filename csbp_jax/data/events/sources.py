"""Data sets of events as frames: recordings, counted once into a cache, split, and handed out as compact counts."""

import functools
import json
import pathlib
import sys
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError, Data
from csbp_jax.data.events import binning, frame_cache, preparation
from csbp_jax.data.events.readers import Events
from csbp_jax.data.events.recordings import DATA_SETS, Recording, index, read, read_sorted
from csbp_jax.data.splits import stratified


def load(config: Config, folder: pathlib.Path) -> dict[str, frame_cache.Frames]:
    """Train, validation and test of a data set of events: ``x [T, H, W, 2]`` counts, T = ``config.model.time_steps``.

    SHD has no height and no polarity: its x is ``[T, 700]``. Events are binned by ``config.data.bins``; with ``size``
    and ``resize="events"`` their coordinates are scaled first. The frames are counted at the first call, in one process
    while others wait, and kept in ``folder/frames``.

    Splits. N-MNIST, DVS-Gesture and SHD have a test part. Of CIFAR10-DVS it is a tenth of each class in the natural
    order of files: the last (``split="last"``: files 900-999, as SEW ResNet, TET and CSBP) or the first ("first": 0-99,
    as TEBN and PSN). N-Caltech101 has none: a stratified tenth. Validation is a stratified share of the rest.

    Times fall in some published recordings. Where the archives were verified, such a recording is sorted by time (a
    stable sort), and the number of them is told; elsewhere it is an error.

    Raises:
      ConfigError: not prepared, a recording that cannot be read, or damaged frames; says what to do.
    """
    data, name = config.data, config.data.name
    if name == "shd" and data.size:
        raise ConfigError(f"data.size: {data.size} is not possible; shd has no height and width, leave it out")
    marker = preparation.prepared(name, folder)
    parameters = _parameters(config, marker)
    unordered: set[str] = set()
    rule = f"window{data.window}us" if data.bins == "window" else data.bins
    readable = f"{name}-T{parameters['T']}-{rule}-{'x'.join(map(str, parameters['shape'][:2]))}"
    target = frame_cache.folder_of(folder, readable, parameters)
    content = frame_cache.cached(
        target,
        parameters,
        functools.partial(index, name, folder),
        functools.partial(_count, parameters, data, unordered),
        skip=data.bad == "skip",
        show=_show,
    )
    if unordered:
        print(f"{name}: times fall in {len(unordered)} recordings; these were sorted by time", file=sys.stderr)
    if left_out := len(content["skipped"]):
        print(f"{name}: {left_out} recordings left out; {target / 'frames.json'} says which and why", file=sys.stderr)
    return _split(target, content, data)


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """The archives' checksums."""
    return json.dumps(preparation.prepared(config.data.name, folder)["archives"], sort_keys=True)


def class_names(config: Config, folder: pathlib.Path) -> tuple[str, ...]:
    del folder
    return DATA_SETS[config.data.name].classes


def _parameters(config, marker):
    """All that the frames depend on."""
    data, shape = config.data, DATA_SETS[config.data.name].shape
    return {
        "name": data.name,
        "T": config.model.time_steps,
        "bins": data.bins,
        "window": data.window if data.bins == "window" else None,
        "shape": (*data.size, shape[2]) if data.size and data.resize == "events" else shape,
        "archives": marker["archives"],
        "sorted": marker["verified"],
    }


def _show(stage, done, total):
    """A line at each quarter."""
    if done * 4 // max(total, 1) > (done - 1) * 4 // max(total, 1):
        print(f"{stage}: {done} of {total} recordings", file=sys.stderr, flush=True)


def _count(parameters: dict[str, Any], data: Data, unordered: set[str], recording: Recording) -> np.ndarray:
    """The frames of one recording. Times that fall are the publisher's own where its archives have been verified."""
    name, T, shape = (parameters[key] for key in ("name", "T", "shape"))
    if parameters["sorted"]:
        events, falls = read_sorted(name, recording)
        unordered |= {recording.id} if falls else set()
    else:
        events = read(name, recording)
    counts = binned(events, data, T, shape)
    return counts.reshape(T, -1) if name == "shd" else counts


def binned(events: Events, data: Data, T: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Counts ``[T, H, W, C]`` by ``data.bins``, coordinates brought from the events' sensor to ``shape``."""
    x, y, t, p, (height, width) = events  # fails where the sensor is not known: nothing is stretched by a guess
    if data.bins == "window":
        edges = binning.by_window(t, T, data.window)
    else:
        edges = {"number": binning.by_number, "time": binning.by_time}[data.bins](t, T)
    x, y = binning.resized(x, width, shape[1]), binning.resized(y, height, shape[0])
    return binning.count(x, y, p, edges, shape)


def _split(target: pathlib.Path, content: dict[str, Any], data: Data) -> dict[str, frame_cache.Frames]:
    """Decided on all recordings; those left out are taken away afterwards, so that no other one changes its part."""
    parts = content["parts"]
    labels = {part: np.array(about["labels"]) for part, about in parts.items()}
    if "all" in parts:
        rest, test = held_out(data.name, labels["all"], data.split)
        places = {"train": ("all", rest), "test": ("all", test)}
    else:
        places = {part: (part, np.arange(len(y))) for part, y in labels.items()}
    part, rest = places["train"]
    train, validation = stratified(labels[part][rest], data.validation)
    places |= {"train": (part, rest[train]), "validation": (part, rest[validation])}
    sources = {}
    for split in ("train", "validation", "test"):
        part, members = places[split]
        rows = np.array(parts[part]["rows"])[members]
        used = rows >= 0
        classes = len(DATA_SETS[data.name].classes)
        sources[split] = frame_cache.Frames(target / f"{part}.npy", rows[used], labels[part][members][used], classes)
    return sources


def held_out(name: str, y: np.ndarray, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices (rest, test) of a data set without a test part, each ascending.

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
