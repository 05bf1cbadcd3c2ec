"""The records in the original files of CIFAR, MNIST and ImageNet, in the form that the official builders write.

Each function takes the builder, the files by their names and ``show``, and gives a generator of ``(key, record)`` for
each split. Archives are read in place. Raises ConfigError for what is damaged, and names file and record.
"""

import gzip
import io
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from csbp_jax.config import ConfigError
from csbp_jax.data.download.archives import damage, members, read
from csbp_jax.data.download.fetch import Show
from csbp_jax.data.images.decode import by_pillow, decode

Splits = dict[str, Iterator[tuple[Any, dict[str, Any]]]]

# Above any file inside the originals of CIFAR and MNIST, far below what fills a memory.
_LIMIT = 200_000_000


def cifar(builder: Any, paths: dict[str, pathlib.Path], show: Show) -> Splits:
    """The binary version: a byte for each kind of label, then 1024 red, green and blue ones each, row by row."""
    (path,) = paths.values()
    layout, features = builder._cifar_info, builder.info.features
    files = {}
    with damage(path), open(path, "rb") as file:
        for member, content in members(file, path):
            if member.name.startswith(layout.prefix):
                files[member.name.removeprefix(layout.prefix)] = read(content, f"{path}: {member.name}", _LIMIT)
    for name in (*layout.label_files, *layout.train_files, *layout.test_files):
        if name not in files:
            raise ConfigError(f"{path}: holds no {layout.prefix}{name}; fetch it again")
    for key, name in zip(layout.label_keys, layout.label_files, strict=True):
        names = files[name].decode().split()
        if len(names) != features[key].num_classes:
            raise ConfigError(f"{path}: {name} has {len(names)} names for {features[key].num_classes} classes")
        features[key].names = names
    rows = {
        name: _cifar_rows(f"{path}: {name}", files[name], layout.label_keys, features)
        for name in files
        if ".bin" in name
    }
    return {
        "train": _cifar_records(
            "train", np.concatenate([rows[name] for name in layout.train_files]), layout.label_keys, show
        ),
        "test": _cifar_records(
            "test", np.concatenate([rows[name] for name in layout.test_files]), layout.label_keys, show
        ),
    }


def _cifar_rows(where, content, keys, features):
    width = len(keys) + 3072
    if not content or len(content) % width:
        raise ConfigError(f"{where} ends inside record {len(content) // width}; fetch it again")
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    for column, key in enumerate(keys):
        _check_labels(where, rows[:, column], features[key].num_classes)
    return rows


def _cifar_records(split, rows, keys, show):
    for i, row in enumerate(rows):
        show(f"read {split}", i + 1, len(rows))
        picture = row[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
        labels = dict(zip(keys, map(int, row), strict=False))
        yield i, {"id": f"{split}_{i:05d}", "image": Image.fromarray(picture), **labels}


def _check_labels(where, labels, classes):
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise ConfigError(
            f"{where}: record {wrong[0]} has label {labels[wrong[0]]}; labels are 0 to {classes - 1}; fetch it again"
        )


def mnist(builder: Any, paths: dict[str, pathlib.Path], show: Show) -> Splits:
    """IDX files, with or without gzip; also Fashion-MNIST."""
    splits = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        pictures_path, labels_path = (paths[f"{stem}-{kind}-ubyte.gz"] for kind in ("images-idx3", "labels-idx1"))
        pictures, labels = _idx(pictures_path, 3), _idx(labels_path, 1)
        if pictures.shape != (len(labels), 28, 28):
            raise ConfigError(
                f"{pictures_path}: its shape is {pictures.shape}, but {labels_path} has {len(labels)} labels"
            )
        _check_labels(labels_path, labels, builder.info.features["label"].num_classes)
        splits[split] = _mnist_records(split, pictures, labels, show)
    return splits


def _idx(path, axes):
    """Bytes 0 0 8 axes, the length of each axis (4 bytes, big-endian), then the array of bytes."""
    with damage(path), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        content = read(file, str(path), _LIMIT)
    header = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < header:
        raise ConfigError(f"{path}: is no IDX file of bytes with {axes} axes; fetch it again")
    shape = tuple(np.frombuffer(content, ">u4", axes, 4).tolist())
    if len(content) - header != math.prod(shape):
        raise ConfigError(f"{path}: has {len(content) - header:,} bytes of data, but says {shape}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _mnist_records(split, pictures, labels, show):
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        show(f"read {split}", i + 1, len(labels))
        yield i, {"image": Image.fromarray(picture), "label": int(label)}


def imagenet(
    builder: Any, paths: dict[str, pathlib.Path], show: Show, *, bad: str, skipped: list[dict[str, str]]
) -> Splits:
    """Train: a tar of a tar for each class; validation: a tar, with the labels in the order of the file names.

    A picture that cannot be decoded stops it (``bad="fail"``), or is left out and added to ``skipped``.
    """

    def usable(data, record):
        try:
            return _as_jpeg(data, record)
        except ConfigError as error:
            if bad == "fail":
                raise ConfigError(f"{error}, or leave such pictures out (bad=skip)") from None
            skipped.append({"record": record, "reason": str(error)})
            return None

    classes = builder.info.features["label"].names
    return {
        "train": _imagenet_train(paths["ILSVRC2012_img_train.tar"], set(classes), usable, show),
        "validation": _imagenet_validation(paths["ILSVRC2012_img_val.tar"], usable, show),
    }


def _imagenet_train(path, classes, usable, show):
    size = path.stat().st_size
    with damage(path), open(path, "rb") as file:
        for archive, content in members(file, path):
            label = archive.name.removesuffix(".tar")
            if label not in classes:
                raise ConfigError(f"{path}: {archive.name} is the archive of none of the {len(classes)} classes")
            for member, picture in members(content, f"{path}: {archive.name}"):
                show(f"read {path.name}", file.tell(), size)
                if (image := usable(picture.read(), f"{path}: {archive.name}: {member.name}")) is not None:
                    yield member.name, {"file_name": member.name, "image": image, "label": label}


def _imagenet_validation(path, usable, show):
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    size = path.stat().st_size
    with damage(path), open(path, "rb") as file:
        for member, picture in members(file, path):
            show(f"read {path.name}", file.tell(), size)
            number = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", member.name)
            if not number or not 1 <= int(number[1]) <= len(labels):
                raise ConfigError(f"{path}: {member.name} is none of its {len(labels)} pictures")
            if (image := usable(picture.read(), f"{path}: {member.name}")) is not None:
                yield member.name, {"file_name": member.name, "image": image, "label": labels[int(number[1]) - 1]}


def _as_jpeg(data, record):
    """The bytes as they are, or for the one PNG and the 22 CMYK pictures of the real set those of an RGB JPEG."""
    pixels = decode(data, record, by_pillow)
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            return data
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=100)
    return jpeg.getvalue()
