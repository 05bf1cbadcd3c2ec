"""Sources of CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST and ImageNet, as uint8 images.

Small data sets are in memory; ImageNet's JPEGs are decoded on demand. ImageNet's test split is its official validation
split, whose labels are public; the validation split of every data set is taken from its training split.
"""

import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError, extras
from csbp_jax.data.images import augment, autoaugment, records
from csbp_jax.data.images.augment import Images, Uniforms, Window
from csbp_jax.data.images.decode import decode, to_grey
from csbp_jax.data.source import Array, Batch, DataSource, Record
from csbp_jax.data.splits import stratified

_IMAGENET_SIZE = (224, 224)
_IMAGENET_MEAN = np.array([124, 116, 104])
_NONE = np.empty(0)
_CUTOUT_SIDE = {"cifar10": 16, "cifar100": 8}

Step = tuple[int, Callable[[Images, Uniforms], Images]]
"""Uniform numbers per image ``n``, and an augmentation of images ``[b, H, W, C]`` by uniforms ``[b, n]``."""


def load(config: Config, data_dir: pathlib.Path) -> dict[str, DataSource]:
    """Load train, validation and test splits, of which only train is augmented.

    Of ``config.data.augment``, those of :func:`host_steps` are applied here, on the host, in that field's order;
    ImageNet's resized_crop always comes first, since it brings the images to one size. ``config.data.size`` is the size
    of an image: by default the data set's own, for ImageNet 224.

    The number of images skipped during preparation (``bad="skip"``) is printed to stderr.

    Raises:
      ConfigError: not prepared, damaged, or some images were skipped and ``config.data.bad`` is "fail".
    """
    name, size = config.data.name, config.data.size
    directory = _directory(config, data_dir)
    _report_skipped(directory, config.data.bad)
    test = "validation" if name == "imagenet" else "test"
    (x, y), (test_x, test_y) = records.load(directory, ["train", test])
    train, validation = stratified(y, config.data.validation)
    classes = records.info(directory).features["label"].num_classes
    if x is None or test_x is None:
        view = View(size or _IMAGENET_SIZE, resize=resizer(config))
        train_view = dataclasses.replace(view, random="resized_crop" in config.data.augment)
        jpegs, test_jpegs = records.encoded(directory, "train"), records.encoded(directory, test)
        steps = host_steps(config, view.size, lambda: _IMAGENET_MEAN, but="resized_crop")
        return {
            "train": JpegSource(jpegs, train, y[train], classes, train_view, steps),
            "validation": JpegSource(jpegs, validation, y[validation], classes, view),
            "test": JpegSource(test_jpegs, np.arange(len(test_y)), test_y, classes, view),
        }
    x, test_x = _resized(x, size), _resized(test_x, size)
    steps = host_steps(config, (x.shape[1], x.shape[2]), lambda: np.round(x.mean(axis=(0, 1, 2))))
    return {
        "train": ImageArraySource(x, y, classes, steps, train),
        "validation": ImageArraySource(x, y, classes, rows=validation),
        "test": ImageArraySource(test_x, test_y, classes),
    }


def _report_skipped(directory: pathlib.Path, bad: str) -> None:
    skipped = records.skipped(directory)
    if skipped and bad == "fail":
        raise ConfigError(
            f"{skipped[0]['reason']} (one of {len(skipped)} images skipped in {directory}; repair them, remove that "
            "directory and prepare it again, or accept that: --data.bad skip)"
        )
    if skipped:
        images = "1 image" if len(skipped) == 1 else f"{len(skipped)} images"
        print(f"{images} skipped, listed in {directory / 'skipped.json'}", file=sys.stderr)


def fingerprint(config: Config, data_dir: pathlib.Path) -> str:
    """Return version and sizes of the records' files, from ``dataset_info.json``."""
    metadata = records.metadata(_directory(config, data_dir))
    reduced = [metadata["configDescription"]] if config.data.shorter_side else []
    return json.dumps([metadata["version"], metadata["splits"], *reduced])


def class_names(config: Config, data_dir: pathlib.Path) -> list[str]:
    """Return the names of the classes in the order of their labels."""
    return records.info(_directory(config, data_dir)).features["label"].names


def _directory(config: Config, data_dir: pathlib.Path) -> pathlib.Path:
    return records.prepared(data_dir, config.data.name, config.data.shorter_side)


def resizer(config: Config) -> Callable[[Images, Window, tuple[int, int]], Images]:
    """Return the function that resizes a window of an image to a size, by ``config.data.resizer``.

    Raises:
      Missing: its package is not installed.
    """
    if config.data.resizer == "pillow":
        return augment.resize
    extras.need("images", "data.resizer: cykooz (pillow works without)", "cykooz_resizer")
    from csbp_jax.data.images import fast_resize

    return fast_resize.resize


class ImageArraySource(DataSource):
    """Images in memory: record i is ``{"x": [1, H, W, C] uint8, "y": int32}``; ``take`` also augments them.

    Args:
      x: ``[N, H, W, C]``; sources may share it.
      y: labels ``[N]``.
      classes: number of classes.
      steps: augmentations, in order.
      rows: which of the images are the records, in order; by default all.
    """

    def __init__(
        self, x: Images, y: Array, classes: int, steps: Sequence[Step] = (), rows: NDArray[np.intp] | None = None
    ):
        self._images, self._rows = x, np.arange(len(y)) if rows is None else rows
        self.y, self.classes, self.steps = y[self._rows], classes, steps
        self.num_uniforms = sum(n for n, _ in steps)

    @property
    def x(self) -> Images:
        """A copy of the images of all records."""
        return self._images[self._rows]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Record:
        return {"x": self._images[self._rows[i]][None], "y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack records and augment them by ``uniforms``."""
        images = self._images[self._rows[indices]]
        return {"x": _augmented(images, self.steps, uniforms)[:, None], "y": self.y[indices]}


@dataclasses.dataclass(frozen=True)
class View:
    """The window in which images of any size are seen, resized to one size."""

    size: tuple[int, int]
    """Height and width after resizing."""
    window: Callable[[int, int, tuple[int, int]], Window] = augment.centre_window
    """``window(height, width, size)`` of a record as it is."""
    random: bool = False
    """Whether training batches show random windows instead (random-resized-crop)."""
    resize: Callable[[Images, Window, tuple[int, int]], Images] = augment.resize
    """``resize(image, window, size)``."""
    grey: bool = False
    """Whether records have one channel; coloured images are then refused."""


class JpegSource(DataSource):
    """Encoded images of any size, brought to one size: record i is ``{"x": [1, H, W, 3 or 1] uint8, "y": int32}``.

    Args:
      jpegs: encoded images.
      rows: ``[N]``, the row of each record in ``jpegs``.
      y: labels ``[N]``.
      classes: number of classes.
      view: window and size.
      steps: augmentations that ``take`` applies afterwards, in order.
      remedy: what an error says to do with a damaged image.
    """

    def __init__(
        self,
        jpegs: records.EncodedImages,
        rows: NDArray[np.integer],
        y: Array,
        classes: int,
        view: View,
        steps: Sequence[Step] = (),
        remedy: str = "fetch it again",
    ):
        self.jpegs, self.rows, self.y, self.classes, self.view, self.steps = jpegs, rows, y, classes, view, steps
        self.remedy = remedy
        self.window_uniforms = augment.RESIZED_CROP_UNIFORMS if view.random else 0
        self.num_uniforms = self.window_uniforms + sum(n for n, _ in steps)
        self.channels = 1 if view.grey else 3

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Record:
        (jpeg,) = records.read(self.jpegs, [int(self.rows[i])])
        return {"x": self._shown(jpeg)[None, ..., : self.channels], "y": self.y[i]}

    def take(self, indices: Array, uniforms: Array) -> Batch:
        """Stack records and augment them by ``uniforms``."""
        first, rest = np.split(uniforms, [self.window_uniforms], axis=1)
        jpegs = records.read(self.jpegs, self.rows[indices].tolist())
        views = [self._shown(jpeg, row) for jpeg, row in zip(jpegs, first, strict=True)]
        x = _augmented(np.stack(views), self.steps, rest)  # three equal channels stay equal
        return {"x": x[:, None, ..., : self.channels], "y": self.y[indices]}

    def _shown(self, jpeg: dict[str, Any], uniforms: Uniforms = _NONE) -> Images:
        """Decode an image and resize its window, which is random if there are uniforms to draw it by."""
        name, view = os.fsdecode(jpeg["file_name"]), self.view
        image = decode(jpeg["image"], name, remedy=self.remedy)
        if view.grey:
            to_grey(image, name)
        height, width = image.shape[:2]
        drawn = augment.random_window(height, width, uniforms) if len(uniforms) else None
        return view.resize(image, drawn or view.window(height, width, view.size), view.size)


def host_steps(config: Config, size: tuple[int, int], mean: Callable[[], NDArray[Any]], but: str = "") -> list[Step]:
    """Return the augmentations of ``config.data.augment`` that run on the host, in that field's order.

    Args:
      config: ``data.augment`` and the options of its augmentations, and ``data.name`` for the side of cutout.
      size: height and width of the images.
      mean: returns ``[C]``, the colour of pixels without content; called if an augmentation fills pixels.
      but: an augmentation to leave out.
    """
    side = _CUTOUT_SIDE.get(config.data.name, min(size) // 2)
    steps: dict[str, Step] = {
        "crop": (2, functools.partial(augment.crop, padding=config.data.crop_padding)),
        "flip": (1, augment.flip),
        "resized_crop": (augment.RESIZED_CROP_UNIFORMS, augment.resized_crop),
    }
    filling: dict[str, tuple[int, Callable[..., Images]]] = {
        "cutout": (2, functools.partial(augment.cutout, side=side)),
        "autoaugment": (autoaugment.UNIFORMS, autoaugment.autoaugment),
        "randaugment": (
            autoaugment.OPERATION_UNIFORMS * config.data.randaugment_operations,
            functools.partial(autoaugment.randaugment, magnitude=config.data.randaugment_magnitude),
        ),
        "random_erasing": (augment.ERASING_UNIFORMS, augment.random_erasing),
    }
    names = [name for name in config.data.augment if name != but]
    if filling.keys() & set(names):
        fill = mean()
        steps |= {name: (n, functools.partial(step, fill=fill)) for name, (n, step) in filling.items()}
    return [steps[name] for name in names if name in steps]


def _augmented(x: Images, steps: Sequence[Step], uniforms: Uniforms) -> Images:
    for n, step in steps:
        x, uniforms = step(x, uniforms[:, :n]), uniforms[:, n:]
    return x


def _resized(x: Images, size: tuple[int, int] | None) -> Images:
    if size is None or size == x.shape[1:3]:
        return x
    window = (0, 0, x.shape[1], x.shape[2])
    return np.stack([augment.resize(image, window, size) for image in x])
