"""Prepared pictures: TensorFlow Datasets directories of array_record, and what is kept decoded beside the records."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from csbp_jax.config import ConfigError
from csbp_jax.data.images.decode import decode

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


def skipped(place: pathlib.Path) -> list[dict[str, str]]:
    """The records, and reasons, that were left out when ``place`` was prepared.

    Raises:
      ConfigError: ``skipped.json`` is damaged.
    """
    path = place / "skipped.json"
    try:
        return [{key: entry[key] for key in ("record", "reason")} for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error!r}); prepare the data set anew") from None


def prepared(folder: pathlib.Path, name: str) -> pathlib.Path:
    """As ``find``.

    Raises:
      ConfigError: there is none; says how to make it.
    """
    place = find(folder, name)
    if place is None:
        raise ConfigError(
            f"{name} is not prepared in {folder}; run: make data DATASET={name} FROM=folder-with-the-originals"
        )
    return place


def info(place: pathlib.Path) -> Any:
    """Features and splits of a prepared directory."""
    return tfds.builder_from_directory(place).info


def encoded(place: pathlib.Path, split: str) -> Any:
    """Random access to ``{"image": bytes, "label": int, ...}``; pickles.

    Raises:
      ConfigError: the directory has no such split.
    """
    builder = tfds.builder_from_directory(place)
    if split not in builder.info.splits:
        raise ConfigError(f"{place}: it has no part {split!r}; there are {', '.join(builder.info.splits)}")
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def read(source: Any, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Records ``rows`` of what ``encoded`` gives.

    Raises:
      ConfigError: damaged; names the folder, the split and the records.
    """
    try:
        return source.__getitems__(rows)
    except (RuntimeError, ValueError) as error:
        where = f"{source.dataset_info.data_dir}: {source.split} record {', '.join(map(str, rows))}"
        told = " ".join(str(error).split())
        raise ConfigError(f"{where}: damaged ({told}); prepare the data set anew") from None


def load(
    place: pathlib.Path, split: str, show: Callable[[str, int, int], None] = lambda *_: None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Pictures ``[N, H, W, C]`` uint8, None if they differ in size, and labels ``[N]`` int32 of a split.

    They are read and decoded once, and then kept in ``csbp_SPLIT.npz`` beside the records, where that can be written.
    If other files lie there since, they are read anew.

    Raises:
      ConfigError: a record is damaged, or has a label or shape that it should not; names it.
    """
    kept, made_from = place / f"csbp_{split}.npz", _fingerprint(place)
    arrays = _kept(kept)
    if arrays.pop("made_from", None) != made_from:
        arrays = _read(place, split, show)
        part = place / f"csbp_{split}.{os.getpid()}.part"
        try:
            with open(part, "wb") as out:
                np.savez(out, made_from=made_from, **arrays)
            os.replace(part, kept)
        except OSError:  # a full disk, or a folder that is only to be read from
            with contextlib.suppress(OSError):
                part.unlink()
    return arrays.get("x"), arrays["y"]


def _fingerprint(place):
    """Of what lies in a folder beside what is kept there: names, sizes and times."""
    files = sorted(file for file in place.iterdir() if not file.name.startswith("csbp_"))
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return np.array(json.dumps(about))


def _kept(path):
    if not path.exists():
        return {}
    try:
        with open(path, "rb") as file, np.load(file) as content:
            return dict(content)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ConfigError(f"{path}: damaged ({error}); delete it, and it is made anew") from None


def _read(place, split, show):
    source, features = encoded(place, split), info(place).features
    shape, classes = features["image"].shape, features["label"].num_classes
    y = np.empty(len(source), np.int32)
    arrays = {"y": y}
    if None not in shape:
        arrays["x"] = np.empty((len(source), *shape), np.uint8)
    for i in range(len(source)):
        (record,), where = read(source, [i]), f"{place}: {split} record {i}"
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
