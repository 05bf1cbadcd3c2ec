"""Prepared pictures: TensorFlow Datasets directories of array_record, and what is kept decoded beside the records."""

import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from csbp_jax.config import ConfigError
from csbp_jax.data.decode import decode

TFDS = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "mnist": "mnist",
    "fashion_mnist": "fashion_mnist",
    "imagenet": "imagenet2012",
}


def find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """``folder/NAME/VERSION`` of the newest version that is there as array_record."""
    versions = []
    for file in folder.glob(f"{TFDS[name]}/*/dataset_info.json"):
        about = metadata(file.parent)
        if about["fileFormat"] == "array_record":
            versions.append((tuple(map(int, about["version"].split("."))), file.parent))
    return max(versions)[1] if versions else None


def metadata(place: pathlib.Path) -> dict[str, Any]:
    """What ``dataset_info.json`` says.

    Raises:
      ConfigError: damaged.
    """
    try:
        about = json.loads((place / "dataset_info.json").read_text())
        return {key: about[key] for key in ("name", "version", "fileFormat", "splits")} | about
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{place / 'dataset_info.json'}: damaged ({error!r}); prepare or copy it anew") from None


def prepared(folder: pathlib.Path, name: str) -> pathlib.Path:
    """As ``find``.

    Raises:
      ConfigError: there is none; says how to make it.
    """
    records = find(folder, name)
    if records is None:
        raise ConfigError(
            f"{name} is not prepared in {folder}; run: make data DATASET={name} FROM=folder-with-the-originals"
        )
    return records


def info(records: pathlib.Path) -> Any:
    """Features and splits of a prepared directory."""
    return tfds.builder_from_directory(records).info


def encoded(records: pathlib.Path, split: str) -> Any:
    """Random access to ``{"image": bytes, "label": int, ...}``; pickles.

    Raises:
      ConfigError: the directory has no such split.
    """
    builder = tfds.builder_from_directory(records)
    if split not in builder.info.splits:
        raise ConfigError(f"{records}: it has no part {split!r}; there are {', '.join(builder.info.splits)}")
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def load(
    records: pathlib.Path, split: str, show: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Pictures ``[N, H, W, C]`` uint8, None if they differ in size, and labels ``[N]`` int32 of a split.

    They are read and decoded once, and then kept in ``csbp_SPLIT.npz`` beside the records, where that can be written.

    Raises:
      ConfigError: a record is damaged, or has a label or shape that it should not; names it.
    """
    kept = records / f"csbp_{split}.npz"
    if not kept.exists():
        arrays = _read(records, split, show)
        part = records / f"csbp_{split}.{os.getpid()}.part"
        try:
            with open(part, "wb") as file:
                np.savez(file, **arrays)
            os.replace(part, kept)
        except OSError:  # a folder that is only to be read from
            part.unlink(missing_ok=True)
    else:
        try:
            with np.load(kept) as file:
                arrays = dict(file)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ConfigError(f"{kept}: damaged ({error}); delete it, and it is made anew") from None
    return arrays.get("x"), arrays["y"]


def _read(records, split, show):
    source, features = encoded(records, split), info(records).features
    shape, classes = features["image"].shape, features["label"].num_classes
    y = np.empty(len(source), np.int32)
    arrays = {"y": y}
    if None not in shape:
        arrays["x"] = np.empty((len(source), *shape), np.uint8)
    for i in range(len(source)):
        where = f"{records}: {split} record {i}"
        try:
            record = source[i]
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{where}: damaged ({_first_line(error)}); prepare the data set anew") from None
        if not 0 <= record["label"] < classes:
            raise ConfigError(f"{where}: label {record['label']}, but there are {classes} classes")
        y[i] = record["label"]
        if "x" in arrays:
            picture = decode(record["image"], where)[..., : shape[-1]]
            if picture.shape != shape:
                raise ConfigError(f"{where}: its shape is {picture.shape}, that of the data set {shape}")
            arrays["x"][i] = picture
        if i % 100 == 99 or i + 1 == len(source):
            show(f"read {split}", i + 1, len(source))
    return arrays


def _first_line(error):
    return str(error).splitlines()[0] if str(error) else type(error).__name__
