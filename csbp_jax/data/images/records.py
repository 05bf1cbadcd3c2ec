"""Prepared images: TensorFlow Datasets directories of array_record, with a cache of decoded arrays."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import ConfigError, one_line
from csbp_jax.data.array_files import open_arrays
from csbp_jax.data.download.fetch import RawFile, Show, not_prepared
from csbp_jax.data.images.decode import decode
from csbp_jax.runtime import files, seals

TFDS = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "mnist": "mnist",
    "fashion_mnist": "fashion_mnist",
    "imagenet": "imagenet2012",
}
"""Name of each data set in TensorFlow Datasets."""

IMAGENET = (
    RawFile(
        "ILSVRC2012_img_train.tar",
        147_897_477_120,
        "md5:1d675b47d978889d74fa0da5fadfb00e",
        "https://image-net.org/download-images",
        download=False,
    ),
    RawFile(
        "ILSVRC2012_img_val.tar",
        6_744_924_160,
        "md5:29b22e2961454d5413ddabcf34fc5622",
        "https://image-net.org/download-images",
        download=False,
    ),
)
"""Raw files of ImageNet, which only registered users may download."""


class EncodedImages(Protocol):
    """Random access to encoded images: record i is ``{"image": bytes, "file_name": bytes, ...}``."""

    def __getitems__(self, rows: Sequence[int], /) -> list[dict[str, Any]]: ...


def folder(name: str, side: int | None = None) -> str:
    """Return the path within a data directory that holds the versions of a data set, as in TensorFlow Datasets.

    With a shorter side of its images, it is ``NAME/CONFIG``.
    """
    return TFDS[name] if side is None else f"{TFDS[name]}/shorter_side_{side}"


def find(data_dir: pathlib.Path, name: str, side: int | None = None) -> pathlib.Path | None:
    """Find the newest version of a data set in ``data_dir`` that is stored as array_record (see :func:`folder`)."""
    versions = []
    for file in data_dir.glob(f"{folder(name, side)}/*/dataset_info.json"):
        content = metadata(file.parent)
        # A folder of another name is one that was moved away.
        if content["fileFormat"] == "array_record" and content["version"] == file.parent.name:
            versions.append((tuple(map(int, content["version"].split("."))), file.parent))
    return max(versions)[1] if versions else None


def metadata(directory: pathlib.Path) -> dict[str, Any]:
    """Read ``dataset_info.json`` of a prepared directory.

    Raises:
      ConfigError: damaged.
    """
    path = directory / "dataset_info.json"
    data = files.read_bytes(path)
    with files.readable(path, "prepare or copy it again", (ValueError, KeyError, TypeError), "damaged"):
        content: dict[str, Any] = seals.parse(data)
        content = {key: content[key] for key in ("name", "version", "fileFormat", "splits")} | content
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})*", content["version"]):
            raise ValueError(f"version {content['version']!r}")
        return content


def skipped(directory: pathlib.Path) -> list[dict[str, str]]:
    """Read which records were skipped during preparation, and why.

    Raises:
      ConfigError: ``skipped.json`` is damaged.
    """
    path = directory / "skipped.json"
    with files.readable(path, "prepare the data set again", (ValueError, KeyError, TypeError), "damaged"):
        listed = files.read_json(path) if path.exists() else []
        return [{key: entry[key] for key in ("record", "reason")} for entry in listed]


def prepared(data_dir: pathlib.Path, name: str, side: int | None = None) -> pathlib.Path:
    """Find a prepared data set, as ``find`` does.

    Raises:
      ConfigError: there is none; says how to prepare it.
    """
    if directory := find(data_dir, name, side):
        return directory
    if side is not None and find(data_dir, name):
        raise ConfigError(
            f"{name} is not prepared with a shorter side of {side} in {data_dir}; run: make data DATASET={name} "
            f'ARGS="--data.shorter-side {side}"'
        )
    raise not_prepared(name, data_dir, IMAGENET if name == "imagenet" else ())


def info(directory: pathlib.Path) -> Any:
    """Read features and splits of a prepared directory.

    Raises:
      ConfigError: ``features.json`` is missing or damaged, or names other code than that of TensorFlow Datasets.
    """
    return _builder(directory).info


def _builder(directory: pathlib.Path) -> Any:
    """Return the builder of a directory, whose files are read again only if its metadata have changed."""
    status = (directory / "dataset_info.json").stat()
    return _builder_of(directory, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _builder_of(directory: pathlib.Path, size: int, modified: int) -> Any:
    import tensorflow_datasets as tfds  # in functions: it is slow to import, and a run on other data needs none of it

    features = directory / "features.json"
    with files.readable(features, "prepare or copy the data set again", Exception, "cannot be used"):
        _check_features(features)
        return tfds.builder_from_directory(directory)


def _check_features(path: pathlib.Path) -> None:
    """Check which classes a ``features.json`` names: TensorFlow Datasets imports the module of any.

    Raises:
      ValueError: a class is not a feature of TensorFlow Datasets, or the file is not JSON.
    """
    unchecked: list[Any] = [files.read_json(path)]
    while unchecked:
        value = unchecked.pop()
        if isinstance(value, str):  # versions of the format have JSON in texts
            with contextlib.suppress(ValueError):
                unchecked.append(json.loads(value))
        elif isinstance(value, list):
            unchecked += value
        elif isinstance(value, dict):
            unchecked += value.values()
            for key in _CLASS_KEYS & value.keys():
                if isinstance(value[key], str) and not _FEATURE.fullmatch(value[key]):
                    raise ValueError(f"names {value[key]!r}, which is not a feature of TensorFlow Datasets")


_CLASS_KEYS = {"pythonClassName", "python_class_name", "type"}
_FEATURE = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")


def encoded(directory: pathlib.Path, split: str) -> Any:
    """Open a split as ``EncodedImages`` with a length, which pickles.

    Raises:
      ConfigError: the directory has no such split, or a pipe or device in place of records.
    """
    for file in directory.glob("*.array_record-*"):
        files.check(file)
    builder = _builder(directory)
    if split not in builder.info.splits:
        raise ConfigError(f"{directory}: has no split {split!r}; available are {', '.join(builder.info.splits)}")
    import tensorflow_datasets as tfds

    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def read(source: Any, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Read records of an ``EncodedImages``.

    Raises:
      ConfigError: damaged (names directory, split and records), or a user's file cannot be read (names the file).
    """
    try:
        return source.__getitems__(rows)
    except ConfigError:  # of a file in a user's folder, which its message names
        raise
    except (RuntimeError, ValueError) as error:
        where = f"{source.dataset_info.data_dir}: {source.split} record {', '.join(map(str, rows))}"
        raise ConfigError(f"{where}: damaged ({one_line(error)}); prepare the data set again") from None


Arrays = tuple[NDArray[np.uint8] | None, NDArray[np.int32]]
"""Images ``[N, H, W, C]``, or None if they differ in size, and labels ``[N]``."""


def load(directory: pathlib.Path, splits: Sequence[str], show: Show = lambda *_: None) -> list[Arrays]:
    """Load splits.

    They are decoded once and cached in ``csbp_SPLIT.npz`` beside the records, if that can be written. The cache is
    discarded if the files beside it have changed.

    Raises:
      ConfigError: a record is damaged, or has an invalid label or shape; names it.
    """
    fingerprint = _fingerprint(directory)
    return [_load(directory, split, fingerprint, show) for split in splits]


def _load(directory: pathlib.Path, split: str, fingerprint: NDArray[np.str_], show: Show) -> Arrays:
    cache = directory / f"csbp_{split}.npz"
    arrays = _read_cache(cache)
    if not ({"made_from", "y"} <= arrays.keys() and np.array_equal(arrays["made_from"], fingerprint)):
        arrays = _decode_all(directory, split, show)
        with (
            contextlib.suppress(OSError),  # a full disk, or a read-only directory
            files.replacing(cache, shared=True) as temporary,
            open(temporary, "wb") as out,
        ):
            np.savez(out, made_from=fingerprint, **arrays)  # type: ignore[arg-type]  # numpy types one option
    return arrays.get("x"), arrays["y"]


def _fingerprint(directory: pathlib.Path) -> NDArray[np.str_]:
    """Return a digest of names, sizes and both ends of the files of a directory, except of its caches.

    Not of their times: a copy from a bucket has others, and a disk that is read only could not keep a new cache.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in directory.iterdir() if file.is_file() and not file.name.startswith("csbp_")):
        with open(file, "rb") as content:
            first, size = content.read(_END), content.seek(0, os.SEEK_END)
            content.seek(max(size - _END, 0))
            digest.update(repr((file.name, size, first, content.read())).encode())
    return np.array(digest.hexdigest())


_END = 4096  # bytes


def _read_cache(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        return {}
    try:
        with open_arrays(path) as content:
            return {name: content.read(name) for name in ("made_from", "x", "y") if name in content.names}
    except ConfigError as error:  # whose remedy, after the last semicolon, is for a file of the user
        reason = str(error).removeprefix(f"{path}: ").rpartition("; ")[0]
        raise ConfigError(f"{path}: damaged ({reason}); delete it, and it will be made again") from None


def _decode_all(directory: pathlib.Path, split: str, show: Show) -> dict[str, NDArray[Any]]:
    source, features = encoded(directory, split), info(directory).features
    with files.readable(directory / "features.json", "prepare or copy the data set again", Exception, "cannot be used"):
        shape, classes = features["image"].shape, features["label"].num_classes
    y = np.empty(len(source), np.int32)
    x = None if None in shape else np.empty((len(source), *shape), np.uint8)
    for i in range(len(source)):
        (record,), where = read(source, [i]), f"{directory}: {split} record {i}"
        if not 0 <= record["label"] < classes:
            raise ConfigError(f"{where}: has label {record['label']}; allowed are 0 to {classes - 1}")
        y[i] = record["label"]
        if x is not None:
            pixels = decode(record["image"], where)[..., : shape[-1]]
            if pixels.shape != shape:
                raise ConfigError(f"{where}: has shape {pixels.shape}, the data set {shape}")
            x[i] = pixels
        if i % 100 == 99 or i + 1 == len(source):
            show(f"decode {split}", i + 1, len(source))
    return {"y": y} if x is None else {"y": y, "x": x}
