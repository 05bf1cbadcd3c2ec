"""CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and ImageNet, as uint8 pictures.

Small sets are in memory; ImageNet's JPEGs are decoded as they are asked for. ImageNet's test part is its official
validation part, whose labels are public; every validation part is taken from the training part.
"""

import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.images import augment, autoaugment, records
from csbp_jax.data.images.decode import decode
from csbp_jax.data.source import DataSource
from csbp_jax.data.splits import stratified

_IMAGENET_SIZE = (224, 224)
_IMAGENET_MEAN = np.array([124, 116, 104])
_CUTOUT_SIDE = {"cifar10": 16, "cifar100": 8}

# How many uniform numbers a picture needs, and what is done to pictures [b, H, W, C] with them.
Step = tuple[int, Callable[[np.ndarray, np.ndarray], np.ndarray]]


def load(config: Config, folder: pathlib.Path) -> dict[str, Any]:
    """Train, validation and test of the data set, of which only train is augmented.

    Of ``config.data.augment``, crop, flip, cutout, autoaugment and resized_crop are done here, on the host, in their
    order; ImageNet's resized_crop comes first wherever it stands, since it makes the pictures equal in size.
    ``config.data.size`` is the size of a picture: by default the data set's own, for ImageNet 224.

    Pictures that were left out when it was prepared (``bad="skip"``) are counted on stderr.

    Raises:
      ConfigError: it is not prepared, or damaged, or some were left out and ``config.data.bad`` is "fail".
    """
    name, size = config.data.name, config.data.size
    place = records.prepared(folder, name)
    _tell_left_out(place, config.data.bad)
    test = "validation" if name == "imagenet" else "test"
    (x, y), (test_x, test_y) = records.load(place, "train"), records.load(place, test)
    train, validation = stratified(y, config.data.validation)
    classes = records.info(place).features["label"].num_classes
    if x is None or test_x is None:
        photos = functools.partial(JpegSource, classes=classes, size=size or _IMAGENET_SIZE)
        jpegs, random = records.encoded(place, "train"), "resized_crop" in config.data.augment
        steps = host_steps(config, size or _IMAGENET_SIZE, _IMAGENET_MEAN, but="resized_crop")
        return {
            "train": photos(jpegs, train, y[train], random=random, steps=steps),
            "validation": photos(jpegs, validation, y[validation]),
            "test": photos(records.encoded(place, test), np.arange(len(test_y)), test_y),
        }
    x, test_x = _resized(x, size), _resized(test_x, size)
    steps = host_steps(config, x.shape[1:3], np.round(x.mean(axis=(0, 1, 2))))
    return {
        "train": ImageArraySource(x[train], y[train], classes, steps),
        "validation": ImageArraySource(x[validation], y[validation], classes),
        "test": ImageArraySource(test_x, test_y, classes),
    }


def _tell_left_out(place, bad):
    left_out = records.skipped(place)
    if left_out and bad == "fail":
        raise ConfigError(
            f"{left_out[0]['reason']} (one of {len(left_out)} left out of {place}; mend them, remove that folder and "
            "prepare it again, or leave them out: data.bad skip)"
        )
    if left_out:
        pictures = "1 picture" if len(left_out) == 1 else f"{len(left_out)} pictures"
        print(f"{pictures} left out, listed in {place / 'skipped.json'}", file=sys.stderr)


def fingerprint(config: Config, folder: pathlib.Path) -> str:
    """Version and sizes of the records' files, as ``dataset_info.json`` has them."""
    about = records.metadata(records.prepared(folder, config.data.name))
    return json.dumps([about["version"], about["splits"]])


def class_names(config: Config, folder: pathlib.Path) -> list[str]:
    return records.info(records.prepared(folder, config.data.name)).features["label"].names


class ImageArraySource(DataSource):
    """Pictures in memory: record i is ``{"x": [1, H, W, C] uint8, "y": int32}``; ``take`` also augments them."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int, steps: Sequence[Step] = ()):
        self.x, self.y, self.classes, self.steps = x, y, classes, steps
        self.num_uniforms = sum(draws for draws, _ in steps)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"x": self.x[i][None], "y": self.y[i]}

    def take(self, indices: np.ndarray, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        """Records ``indices [b]``, augmented by ``uniforms [b, num_uniforms]`` in [0, 1)."""
        return {"x": _augmented(self.x[indices], self.steps, uniforms)[:, None], "y": self.y[indices]}


class JpegSource(DataSource):
    """JPEGs of any size, each brought to one size: record i is ``{"x": [1, H, W, 3] uint8, "y": int32}``, its centre.

    Args:
      jpegs: of ``records.encoded``.
      rows: [N], the k of each record.
      y: [N] labels.
      classes: how many there are.
      size: height and width.
      random: ``take`` shows a random window (random-resized-crop) instead of the centre.
      steps: what ``take`` does afterwards.
      window: the part of a picture that is shown otherwise.
    """

    def __init__(
        self,
        jpegs: Any,
        rows: np.ndarray,
        y: np.ndarray,
        classes: int,
        size: tuple[int, int],
        random: bool = False,
        steps: Sequence[Step] = (),
        window: Callable = augment.centre_window,
    ):
        self.window = window
        self.jpegs, self.rows, self.y, self.classes, self.size, self.steps = jpegs, rows, y, classes, size, steps
        self.window_draws = augment.RESIZED_CROP_DRAWS if random else 0
        self.num_uniforms = self.window_draws + sum(draws for draws, _ in steps)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        (jpeg,) = records.read(self.jpegs, [int(self.rows[i])])
        return {"x": self._view(jpeg, self.window, self.size)[None], "y": self.y[i]}

    def take(self, indices: np.ndarray, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        """Records ``indices [b]``, augmented by ``uniforms [b, num_uniforms]`` in [0, 1)."""
        first, rest = np.split(uniforms, [self.window_draws], axis=1)
        jpegs = records.read(self.jpegs, self.rows[indices].tolist())
        if self.window_draws:
            views = [self._view(jpeg, augment.random_window, row) for jpeg, row in zip(jpegs, first, strict=True)]
        else:
            views = [self._view(jpeg, self.window, self.size) for jpeg in jpegs]
        return {"x": _augmented(np.stack(views), self.steps, rest)[:, None], "y": self.y[indices]}

    def _view(self, jpeg, window, argument):
        picture = decode(jpeg["image"], os.fsdecode(jpeg["file_name"]))
        return augment.resize(picture, window(*picture.shape[:2], argument), self.size)


def host_steps(config: Config, size: tuple[int, int], mean: np.ndarray, but: str = "") -> list[Step]:
    """The host's share of ``config.data.augment``; ``mean [C]`` is the colour of what is left empty."""
    side = _CUTOUT_SIDE.get(config.data.name, min(size) // 2)
    steps: dict[str, Step] = {
        "crop": (2, augment.crop),
        "flip": (1, augment.flip),
        "cutout": (2, functools.partial(augment.cutout, side=side, fill=mean)),
        "autoaugment": (autoaugment.DRAWS, functools.partial(autoaugment.autoaugment, fill=mean)),
        "resized_crop": (augment.RESIZED_CROP_DRAWS, augment.resized_crop),
    }
    return [steps[name] for name in config.data.augment if name in steps and name != but]


def _augmented(x, steps, uniforms):
    for draws, step in steps:
        x, uniforms = step(x, uniforms[:, :draws]), uniforms[:, draws:]
    return x


def _resized(x, size):
    if size is None or size == x.shape[1:3]:
        return x
    return np.stack([augment.resize(picture, (0, 0, *x.shape[1:3]), size) for picture in x])
