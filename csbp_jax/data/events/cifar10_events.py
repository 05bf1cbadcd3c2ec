"""``cifar10_events``: pictures of CIFAR-10 as recordings of the synthetic event camera in ``camera``.

Recorded are the first 1,000 training pictures of each class, in the order of the prepared data set, and all test
pictures. Of the 1,000, a tenth is for validation, and another tenth is spare: no split of ``load`` has it.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.events import camera, frame_cache, sources
from csbp_jax.data.events.readers import Events, IntArray
from csbp_jax.data.events.recordings import Recording
from csbp_jax.data.images import records
from csbp_jax.data.images import sources as images
from csbp_jax.data.source import DataSource

VERSION = 1
"""Part of the data's fingerprint: change it when the camera or the binning changes what it records."""

OF_CLASS = 1_000
"""Most training pictures of a class that are recorded."""
SPLITS = ("train", "validation", "spare", "test")
_CHUNK = 25  # pictures that are recorded at once, in which numpy is efficient


def prepare(
    name: str,
    raw_dir: pathlib.Path | None,
    folder: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> None:
    """Prepare CIFAR-10, whose pictures are recorded when they are first loaded.

    Raises:
      ConfigError: as :func:`csbp_jax.data.images.preparation.prepare`.
    """
    from csbp_jax.data.images import preparation

    del name
    preparation.prepare("cifar10", raw_dir, folder, verify=verify, bad=bad, show=show)


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Return the fingerprint of the pictures, and the version of the camera that records them."""
    return f"{images.fingerprint(_of_pictures(config), folder)} {VERSION}"


def class_names(config: Config, folder: pathlib.Path) -> list[str]:
    """Return the names of the classes in the order of their labels."""
    return images.class_names(_of_pictures(config), folder)


def _of_pictures(config: Config) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, name="cifar10"))


def load(config: Config, folder: pathlib.Path) -> Mapping[str, DataSource]:
    """Load train, validation and test: event counts ``x [T, 32, 32, 2]``.

    With ``size`` and ``resize="events"`` coordinates are scaled first. At first use the recordings are simulated, in
    some minutes, and their frames cached in ``folder/frames``.

    Raises:
      ConfigError: CIFAR-10 is not prepared, or the cached frames are damaged; the message names the remedy.
    """
    splits = load_all(config, folder)
    used = {split: splits[split] for split in ("train", "validation", "test")}
    return sources.with_own_lengths(used, config) if config.data.bins == "own" else used


def load_all(config: Config, folder: pathlib.Path) -> dict[str, frame_cache.CachedFrames]:
    """Load all of ``SPLITS``, the spare recordings too; raises as :func:`load`."""
    data, T = config.data, config.model.time_steps
    shape = (*(data.size if data.size and data.resize == "events" else camera.LOOP.sensor), 2)
    parameters = {"shape": shape, "pictures": fingerprint(config, folder)}
    parameters |= sources.binning_of(data.bins, data.window, T)
    target = frame_cache.cache_dir(folder, f"cifar10_events-T{T}-{data.bins}-{shape[0]}x{shape[1]}", parameters)
    pictures = functools.cache(functools.partial(_pictures, folder))

    def members(skipped: dict[str, str]) -> dict[str, list[Recording]]:
        del skipped
        _, labels, of_splits = pictures()
        path = records.prepared(folder, "cifar10")
        return {
            split: [Recording(str(number), path, int(labels[number])) for number in numbers]
            for split, numbers in of_splits.items()
        }

    @functools.cache
    def recorder() -> Recorder:
        x, _, of_splits = pictures()
        return Recorder(x, np.concatenate(list(of_splits.values())))

    content = frame_cache.load_or_build(
        target,
        parameters,
        members,
        lambda member: sources.bin_events(recorder().recording(int(member.id)), data, T, shape),
        skip=False,
        show=_show,
    )
    of_splits = {split: content["parts"][split] for split in SPLITS}
    return {
        split: frame_cache.CachedFrames(
            target / f"{split}.npy", np.array(part["rows"]), np.array(part["labels"]), classes=10
        )
        for split, part in of_splits.items()
    }


class Recorder:
    """Records numbered pictures, some at a time.

    Args:
      pictures: grey values ``[N, 32, 32]``.
      order: numbers of those that will be asked for, in this order.
    """

    def __init__(self, pictures: NDArray[np.uint8], order: IntArray):
        self.pictures, self.order = pictures, order
        self._place = {int(number): place for place, number in enumerate(order)}
        self._events: dict[int, Events] = {}

    def recording(self, number: int) -> Events:
        """Return the events of a picture, which depend on nothing but its grey values and its number."""
        if number not in self._events:
            first = self._place[number] // _CHUNK * _CHUNK
            chunk = self.order[first : first + _CHUNK]
            events = camera.record(self.pictures[chunk], chunk, camera.LOOP)
            self._events = dict(zip(map(int, chunk), events, strict=True))
        return self._events[number]


def _pictures(folder: pathlib.Path) -> tuple[NDArray[np.uint8], IntArray, dict[str, IntArray]]:
    """Return grey values and labels of all pictures, those of test last, and the numbers of those of each split."""
    (x, y), (test_x, test_y) = records.load(records.prepared(folder, "cifar10"), ["train", "test"])
    assert x is not None and test_x is not None  # pictures of one size are in memory
    of_splits = split_training(y) | {"test": np.arange(len(y), len(y) + len(test_y))}
    return grey(np.concatenate([x, test_x])), np.concatenate([y, test_y]), of_splits


def split_training(y: IntArray) -> dict[str, IntArray]:
    """Choose training pictures by their labels ``[N]``: ascending numbers of train, validation and spare.

    Of the first ``OF_CLASS`` of each class, the last tenth is spare, and the tenth before it is for validation.
    """
    numbers: dict[str, list[int]] = {"train": [], "validation": [], "spare": []}
    for label in np.unique(y):
        recorded = np.flatnonzero(y == label)[:OF_CLASS]
        held_out = max(1, len(recorded) // 10)
        ends = len(recorded) - 2 * held_out, len(recorded) - held_out
        for split, part in zip(numbers, np.split(recorded, ends), strict=True):
            numbers[split] += part.tolist()
    return {split: np.sort(of_split).astype(int) for split, of_split in numbers.items()}


def grey(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma of RGB pictures ``[..., 3]`` by ITU-R BT.601, ``0.299 R + 0.587 G + 0.114 B``, rounded."""
    weights = np.array([299, 587, 114], np.uint32)
    luma = (pictures.astype(np.uint32) @ weights + 500) // 1000
    return luma.astype(np.uint8)


def _show(stage: str, done: int, total: int) -> None:
    if done == 0:
        split = stage.removeprefix("frames ")
        print(f"cifar10_events: making {total} recordings of {split}, once", file=sys.stderr, flush=True)
