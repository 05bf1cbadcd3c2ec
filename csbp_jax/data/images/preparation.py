"""Still pictures from their original files to TensorFlow Datasets' layout, as array_record, without TensorFlow.

The official builders write the records, so names, keys, order and metadata are theirs; only the reading of the
originals is ours, since theirs needs TensorFlow.
"""

import functools
import json
import os
import pathlib

import tensorflow_datasets as tfds

from csbp_jax.config import ConfigError
from csbp_jax.data.download.fetch import RawFile, Show, fetch
from csbp_jax.data.download.locks import locked, workplace
from csbp_jax.data.images import readers, records, tfrecord

_IMAGENET = (
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
# Of the files without .gz; taken from a copy whose training pictures have the md5 6bbc9ace898e44ae57da46a324031adb that
# others state too. Where the official .gz are there, theirs are checked.
_MNIST_UNPACKED = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


def prepare(
    name: str,
    originals: pathlib.Path | None,
    folder: pathlib.Path,
    *,
    verify: bool = True,
    bad: str = "fail",
    show: Show,
) -> dict[str, int]:
    """Writes ``folder/NAME/VERSION``, whole or not at all; if it is there already, only says what it holds.

    Args:
      name: cifar10, cifar100, mnist, fashion_mnist or imagenet.
      originals: holds the original files under their official names (MNIST's with or without .gz), or a directory that
        TensorFlow Datasets wrote as tfrecord, which is converted. None downloads into ``folder/downloads``.
      folder: where prepared data are kept.
      verify: check sizes and checksums of the originals.
      bad: imagenet: stop at a picture that cannot be decoded (fail), or leave it out (skip), listed in
        ``skipped.json`` beside the records.
      show: ``show(stage, done, total)``.

    Returns:
      The number of records of each split; and of those ``skipped``, if there are any.

    Raises:
      ConfigError: originals are missing, damaged or not the originals; names file and record.
    """
    if records.find(folder, name) is None:
        with locked(folder / records.TFDS[name] / ".lock"):
            if records.find(folder, name) is None:
                _prepare(name, originals, folder, verify, bad, show)
    return counts(records.prepared(folder, name))


def _prepare(name, originals, folder, verify, bad, show):
    written = existing(name, originals)
    with workplace(folder / f"{records.TFDS[name]}.part") as work:
        if written:
            place = work / records.TFDS[name] / records.metadata(written)["version"]
            tfrecord.convert(written, place, show)
        else:
            place = _write(name, originals, folder, work, verify, bad, show)
        for split in records.info(place).splits:
            records.load(place, split, show)
        final = folder / place.relative_to(work)
        if final.exists():
            raise ConfigError(f"{final}: holds the data set in another form; move it away, or name another folder")
        os.replace(place, final)


def counts(place: pathlib.Path) -> dict[str, int]:
    """The number of records of each split in a prepared directory; and of those ``skipped``, if there are any."""
    splits = records.info(place).splits
    numbers = {split: info.num_examples for split, info in splits.items()}
    left_out = len(records.skipped(place))
    return numbers | ({"skipped": left_out} if left_out else {})


def existing(name: str, originals: pathlib.Path | None) -> pathlib.Path | None:
    """The directory in or under ``originals`` that TensorFlow Datasets wrote as tfrecord, if there is one.

    Raises:
      ConfigError: there is one, but it needs no conversion.
    """
    if originals is None:
        return None
    for place in (originals, *sorted(originals.glob(f"{records.TFDS[name]}/*"))):
        if (
            not (place / "dataset_info.json").exists()
            or (info := records.metadata(place))["name"] != records.TFDS[name]
        ):
            continue
        if info["fileFormat"] != "tfrecord":
            raise ConfigError(
                f"{place}: is in {info['fileFormat']} form already, which needs no preparation; copy or link it to "
                f"{records.TFDS[name]}/{info['version']} in the data folder"
            )
        return place
    return None


def _write(name, originals, folder, work, verify, bad, show):
    """Lets the official builder write the records of the originals under ``work``; the folder that holds them."""
    builder = tfds.builder(records.TFDS[name], data_dir=work, file_format="array_record")
    paths = fetch(_originals(name, builder), originals, folder / "downloads", verify, show)
    skipped = []
    read = {
        "cifar10": readers.cifar,
        "cifar100": readers.cifar,
        "mnist": readers.mnist,
        "fashion_mnist": readers.mnist,
        "imagenet": functools.partial(readers.imagenet, bad=bad, skipped=skipped),
    }[name]
    splits = {split: _checked(split, generator, show) for split, generator in read(builder, paths, show).items()}
    builder._split_generators = lambda dl_manager: splits
    builder._log_download_bytes = builder._log_download_done = lambda: None  # print sizes and places that are not so
    tfds.disable_progress_bar()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    place = pathlib.Path(builder.data_path)
    if skipped:
        (place / "skipped.json").write_text(json.dumps(skipped, indent=1))
    return place


def _checked(split, generator, show):
    keys = set()
    for key, record in generator:
        if key in keys:
            raise ConfigError(f"the originals hold {key} twice in their {split} part; fetch them again")
        keys.add(key)
        yield key, record
    if not keys:
        raise ConfigError(f"the originals hold no record for the {split} part; fetch them again")
    show(f"sort and write {split}", 0, 1)


def _originals(name, builder):
    if name == "imagenet":
        return _IMAGENET
    unpacked = {}
    if name == "mnist":
        for file, (size, digest) in _MNIST_UNPACKED.items():
            url = f"https://storage.googleapis.com/cvdf-datasets/mnist/{file}.gz"
            unpacked[f"{file}.gz"] = RawFile(file, size, f"sha256:{digest}", url)
    return [
        RawFile(info.filename, int(info.size), f"sha256:{info.checksum}", url, unpacked=unpacked.get(info.filename))
        for url, info in builder.url_infos.items()
    ]
