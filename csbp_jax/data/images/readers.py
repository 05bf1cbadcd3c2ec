"""Readers of the raw files of CIFAR, MNIST and ImageNet, which yield records as the official builders write them.

Each function takes a TensorFlow Datasets builder, the raw files by their names and a progress callback, and returns a
generator of ``(key, record)`` for each split. Archives are read without unpacking. They raise ConfigError for damaged
data, which names file and record.
"""

import functools
import gzip
import io
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from PIL import Image

from csbp_jax.config import ConfigError
from csbp_jax.data.download.archives import damage, members, read
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.images.decode import by_pillow, decode, open_image

Bytes = NDArray[np.uint8]
Paths = dict[str, pathlib.Path]
Records = Iterator[tuple[Any, dict[str, Any]]]
Splits = dict[str, Records]

# Above any file inside the raw files, far below what fills a memory.
_LIMIT = 200_000_000


def cifar(builder: Any, paths: Paths, show: Show) -> Splits:
    """Read CIFAR's binary version: a byte per kind of label, then 1024 red, green and blue bytes each, row by row."""
    (path,) = paths.values()
    layout, features = builder._cifar_info, builder.info.features
    keys = layout.label_keys
    wanted = (*layout.label_files, *layout.train_files, *layout.test_files)
    files = {}
    with damage(path), open(path, "rb") as file:
        for member, content in members(file, path):
            name = member.name.removeprefix(layout.prefix)
            if member.name.startswith(layout.prefix) and name in wanted:
                files[name] = read(content, f"{path}: {member.name}", _LIMIT)
    if missing := [name for name in wanted if name not in files]:
        raise ConfigError(f"{path}: does not contain {layout.prefix}{missing[0]}; fetch it again")
    for key, name in zip(keys, layout.label_files, strict=True):
        names = files[name].decode(errors="replace").split()
        if len(names) != features[key].num_classes:
            raise ConfigError(f"{path}: {name} has {len(names)} names for {features[key].num_classes} classes")
        features[key].names = names
    # All are checked, before any record is written.
    rows = {name: _cifar_rows(f"{path}: {name}", files[name], keys, features) for name in files if ".bin" in name}
    return {
        split: _cifar_records(split, np.concatenate([rows[name] for name in names]), keys, show)
        for split, names in (("train", layout.train_files), ("test", layout.test_files))
    }


def _cifar_rows(where: str, content: bytes, keys: Sequence[str], features: Any) -> Bytes:
    width = len(keys) + 3072
    if not content or len(content) % width:
        raise ConfigError(f"{where} ends inside record {len(content) // width}; fetch it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    for column, key in enumerate(keys):
        _check_labels(where, rows[:, column], features[key].num_classes)
    return rows


def _cifar_records(split: str, rows: Bytes, keys: Sequence[str], show: Show) -> Records:
    for i, row in enumerate(rows):
        show(f"read {split}", i + 1, len(rows))
        pixels = row[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
        labels = dict(zip(keys, map(int, row), strict=False))
        yield i, {"id": f"{split}_{i:05d}", "image": Image.fromarray(pixels), **labels}


def _check_labels(where: str | pathlib.Path, labels: Bytes, classes: int) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise ConfigError(
            f"{where}: record {wrong[0]} has label {labels[wrong[0]]}; labels are 0 to {classes - 1}; fetch it again"
        )


def mnist(builder: Any, paths: Paths, show: Show) -> Splits:
    """Read the IDX files of MNIST or Fashion-MNIST, with or without gzip."""
    splits = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images_path, labels_path = (paths[f"{stem}-{kind}-ubyte.gz"] for kind in ("images-idx3", "labels-idx1"))
        images, labels = _idx(images_path, 3), _idx(labels_path, 1)
        if images.shape != (len(labels), 28, 28):
            raise ConfigError(f"{images_path}: has shape {images.shape}, but {labels_path} has {len(labels)} labels")
        _check_labels(labels_path, labels, builder.info.features["label"].num_classes)
        splits[split] = _mnist_records(split, images, labels, show)
    return splits


def _idx(path: pathlib.Path, axes: int) -> Bytes:
    """Read an IDX file: bytes 0 0 8 axes, the length of each axis (4 bytes, big-endian), then the array of bytes."""
    with damage(path), gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        content = read(file, str(path), _LIMIT)
        if content[:4] != bytes([0, 0, 8, axes]):
            raise ConfigError(f"{path}: is not an IDX file of bytes with {axes} axes; fetch it again")
        shape = np.frombuffer(content, ">u4", axes, 4).tolist()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _mnist_records(split: str, images: Bytes, labels: Bytes, show: Show) -> Records:
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        show(f"read {split}", i + 1, len(labels))
        yield i, {"image": Image.fromarray(pixels), "label": int(label)}


def imagenet(builder: Any, paths: Paths, show: Show, *, bad: str, skipped: list[dict[str, str]]) -> Splits:
    """Read ImageNet's archives: train is a tar of a tar per class, validation a tar in which file names give the order.

    An image that cannot be decoded is an error (``bad="fail"``), or it is left out and appended to ``skipped``.
    """
    usable = functools.partial(_as_jpeg, bad=bad, skipped=skipped)
    classes = builder.info.features["label"].names
    return {
        "train": _imagenet_train(paths["ILSVRC2012_img_train.tar"], set(classes), usable, show),
        "validation": _imagenet_validation(paths["ILSVRC2012_img_val.tar"], usable, show),
    }


Usable = Callable[[bytes, str], bytes | None]


def _imagenet_train(path: pathlib.Path, classes: set[str], usable: Usable, show: Show) -> Records:
    size = path.stat().st_size
    with damage(path), open(path, "rb") as file:
        for archive, content in members(file, path):
            label = archive.name.removesuffix(".tar")
            if label not in classes:
                raise ConfigError(f"{path}: {archive.name} is not the archive of any of the {len(classes)} classes")
            for member, image in members(content, f"{path}: {archive.name}"):
                show(f"read {path.name}", file.tell(), size)
                where = f"{path}: {archive.name}: {member.name}"
                if (jpeg := usable(read(image, where, _LIMIT), where)) is not None:
                    yield member.name, {"file_name": member.name, "image": jpeg, "label": label}


def _imagenet_validation(path: pathlib.Path, usable: Usable, show: Show) -> Records:
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    size = path.stat().st_size
    with damage(path), open(path, "rb") as file:
        for member, image in members(file, path):
            show(f"read {path.name}", file.tell(), size)
            number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", member.name)
            if not number or not 1 <= int(number[1]) <= len(labels):
                raise ConfigError(f"{path}: {member.name} is not among its {len(labels)} images")
            where = f"{path}: {member.name}"
            if (jpeg := usable(read(image, where, _LIMIT), where)) is not None:
                yield member.name, {"file_name": member.name, "image": jpeg, "label": labels[int(number[1]) - 1]}


def _as_jpeg(data: bytes, record: str, bad: str, skipped: list[dict[str, str]]) -> bytes | None:
    """Return an RGB or grey JPEG unchanged, and re-encode others: one PNG and 22 CMYK images of the real set."""
    try:
        pixels = decode(data, record, by_pillow)
    except ConfigError as error:
        if bad == "fail":
            raise ConfigError(f"{error}, or skip such images (--data.bad skip)") from None
        skipped.append({"record": record, "reason": str(error)})
        return None
    with open_image(io.BytesIO(data)) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            return data
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=100)
    return jpeg.getvalue()
