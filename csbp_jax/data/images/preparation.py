"""Preparation of image data sets: raw files to TensorFlow Datasets' layout as array_record, without TensorFlow.

The official builders write the records, so names, keys, order and metadata are theirs. Only the readers of raw files
are ours, since the official ones need TensorFlow.
"""

import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from csbp_jax.config import ConfigError
from csbp_jax.data.download.fetch import RawFile, Show, fetch
from csbp_jax.data.download.locks import locked, scratch_directory
from csbp_jax.data.images import readers, records, reduced, tfrecord
from csbp_jax.runtime import files

_UNVERIFIED = "unverified"
"""Empty file in a prepared directory whose raw files were not compared with the published ones."""

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# The files without .gz, from a copy whose training images have the md5 6bbc9ace898e44ae57da46a324031adb that others
# state too. If the official .gz files are present, their checksums are verified instead.
_MNIST_UNPACKED = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}

# Of its authors, too; the first has no https.
_FASHION_MNIST = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)


def prepare(
    name: str,
    raw_dir: pathlib.Path | None,
    data_dir: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> None:
    """Write ``data_dir/NAME/VERSION`` completely or not at all, unless it exists already.

    Args:
      name: cifar10, cifar100, mnist, fashion_mnist or imagenet.
      raw_dir: contains the raw files under their official names (MNIST's with or without .gz), or a directory that
        TensorFlow Datasets wrote as tfrecord, which is converted. None downloads to ``data_dir/downloads/NAME``.
      data_dir: directory of prepared data sets.
      verify: check sizes and checksums of the raw files.
      bad: for imagenet: an image that cannot be decoded is an error (fail), or left out (skip) and listed in
        ``skipped.json`` beside the records.
      show: progress callback ``show(stage, done, total)``.

    Raises:
      ConfigError: raw files are missing, damaged or differ from the published ones; names file and record. Or what
        exists was prepared without ``verify``, which is asked for now.
    """
    if raw_dir is not None and (directory := records.find(data_dir, name)):
        print(f"{directory}: is prepared, so {raw_dir} was not read; move it away to prepare it again", file=sys.stderr)
    _once(name, None, data_dir, verify, show, lambda work: _write_raw(name, raw_dir, data_dir, work, verify, bad, show))


def prepare_reduced(
    name: str, side: int, data_dir: pathlib.Path, prepare_original: Callable[[], None], show: Show, *, verify: bool
) -> None:
    """Write ``data_dir/NAME/shorter_side_SIDE/VERSION`` completely or not at all, unless it exists already.

    Its records are those of the original, in their order, with smaller images (:mod:`.reduced`).

    Args:
      name: imagenet.
      side: shorter side, in pixels, to which larger images are reduced.
      data_dir: directory of prepared data sets.
      prepare_original: called first; prepares the original there, which may be removed afterwards.
      show: progress callback ``show(stage, done, total)``.
      verify: as of :func:`prepare`.

    Raises:
      ConfigError: as :func:`prepare`, or an image cannot be decoded.
    """
    if records.find(data_dir, name, side) is None:
        prepare_original()
    _once(name, side, data_dir, verify, show, lambda work: _write_reduced(name, side, data_dir, work, show))


def _once(
    name: str,
    side: int | None,
    data_dir: pathlib.Path,
    verify: bool,
    show: Show,
    write: Callable[[pathlib.Path], pathlib.Path],
) -> None:
    """Let one process write a data set that is not prepared; others wait for it.

    Args:
      name: the data set.
      side: shorter side of reduced images; None for the original.
      data_dir: directory of prepared data sets.
      verify: whether what is prepared has to be of verified files.
      show: progress callback.
      write: writes below a scratch directory, and returns the directory of the records there.

    Raises:
      ConfigError: what is prepared is not of verified files, or has another form.
    """
    if records.find(data_dir, name, side) is None:
        with locked(data_dir / records.TFDS[name] / ".lock"):
            if records.find(data_dir, name, side) is None:
                with scratch_directory(data_dir / f"{records.TFDS[name]}.part") as work:
                    written = write(work)
                    records.load(written, list(records.info(written).splits), show)
                    final = data_dir / records.folder(name, side) / records.metadata(written)["version"]
                    if final.exists():
                        raise ConfigError(
                            f"{final}: contains the data set in another form; move it away, or name another data "
                            "directory"
                        )
                    final.parent.mkdir(exist_ok=True)
                    os.replace(written, final)
    directory = records.prepared(data_dir, name, side)
    if verify and (directory / _UNVERIFIED).exists():
        raise ConfigError(
            f"{directory}: was prepared without verification; move it away to prepare it from verified files, or "
            "accept it: --no-verify"
        )


def _write_reduced(name: str, side: int, data_dir: pathlib.Path, work: pathlib.Path, show: Show) -> pathlib.Path:
    original = records.prepared(data_dir, name)
    builder = tfds.builder(records.TFDS[name], data_dir=work, file_format="array_record")
    splits = {
        split: reduced.reduced_records(records.encoded(original, split), split, side, show)
        for split in records.info(original).splits
    }
    written = _write(builder, splits, show)
    config = {"configName": f"shorter_side_{side}", "configDescription": reduced.description(side)}
    info = records.metadata(written) | {"version": records.metadata(original)["version"]} | config
    files.write_json(written / "dataset_info.json", info)
    for file in ("skipped.json", _UNVERIFIED):
        if (original / file).exists():
            (written / file).write_bytes((original / file).read_bytes())
    return written


def _write_raw(
    name: str,
    raw_dir: pathlib.Path | None,
    data_dir: pathlib.Path,
    work: pathlib.Path,
    verify: bool,
    bad: str,
    show: Show,
) -> pathlib.Path:
    if tfrecords := existing(name, raw_dir):
        written = work / records.TFDS[name] / records.metadata(tfrecords)["version"]
        tfrecord.convert(tfrecords, written, show)
        return written
    builder = tfds.builder(records.TFDS[name], data_dir=work, file_format="array_record")
    paths = fetch(_raw_files(name, builder), raw_dir, data_dir / "downloads" / name, verify, show)
    skipped: list[dict[str, str]] = []
    read: dict[str, Callable[..., readers.Splits]] = {
        "cifar10": readers.cifar,
        "cifar100": readers.cifar,
        "mnist": readers.mnist,
        "fashion_mnist": readers.mnist,
        "imagenet": functools.partial(readers.imagenet, bad=bad, skipped=skipped),
    }
    written = _write(builder, read[name](builder, paths, show), show)
    if skipped:
        (written / "skipped.json").write_text(json.dumps(skipped, indent=1))
    if not verify:
        (written / _UNVERIFIED).touch()
    return written


def existing(name: str, raw_dir: pathlib.Path | None) -> pathlib.Path | None:
    """Find a directory in or under ``raw_dir`` that TensorFlow Datasets wrote as tfrecord.

    Raises:
      ConfigError: there is such a directory, but it needs no conversion.
    """
    if raw_dir is None:
        return None
    for directory in (raw_dir, *sorted(raw_dir.glob(f"{records.TFDS[name]}/*"))):
        info = records.metadata(directory) if (directory / "dataset_info.json").exists() else {}
        if info.get("name") == records.TFDS[name]:
            if info["fileFormat"] != "tfrecord":
                raise ConfigError(
                    f"{directory}: is stored as {info['fileFormat']} already, which needs no preparation; copy or link "
                    f"it to {records.TFDS[name]}/{info['version']} in the data directory"
                )
            return directory
    return None


def _write(builder: Any, generators: readers.Splits, show: Show) -> pathlib.Path:
    """Let a builder of TensorFlow Datasets write records, and return their directory."""
    splits = {split: _checked(split, generator, show) for split, generator in generators.items()}
    builder._split_generators = lambda dl_manager: splits
    builder._log_download_bytes = builder._log_download_done = lambda: None  # would print wrong sizes and paths
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return pathlib.Path(builder.data_path)


def _checked(
    split: str, generator: Iterable[tuple[Any, dict[str, Any]]], show: Show
) -> Iterator[tuple[Any, dict[str, Any]]]:
    keys = set()
    for key, record in generator:
        if key in keys:
            raise ConfigError(f"the raw files contain {key} twice in the {split} split; fetch them again")
        keys.add(key)
        yield key, record
    if not keys:
        raise ConfigError(f"the raw files contain no record of the {split} split; fetch them again")
    show(f"sort and write {split}", 0, 0)  # the builder does not report how far it is


def _raw_files(name: str, builder: Any) -> Sequence[RawFile]:
    if name == "imagenet":
        return records.IMAGENET
    unpacked = {
        f"{file}.gz": RawFile(file, size, f"sha256:{digest}", f"{_MNIST}{file}.gz")
        for file, (size, digest) in (_MNIST_UNPACKED if name == "mnist" else {}).items()
    }
    return [
        RawFile(
            info.filename,
            int(info.size),
            f"sha256:{info.checksum}",
            url.replace(*_FASHION_MNIST),
            unpacked=unpacked.get(info.filename),
        )
        for url, info in builder.url_infos.items()
    ]
