"""CIFAR, MNIST and ImageNet from files in their true formats to batches, by the unmodified TensorFlow Datasets."""

import io
import itertools
import json
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import chex
import numpy as np
import pytest
import tensorflow_datasets as tfds

from csbp_jax import configs, data
from csbp_jax.config import Config, ConfigError, Data, replaced
from csbp_jax.data.download import locks
from csbp_jax.data.images import preparation, readers, records, sources
from csbp_jax.data.images.decode import decode
from tests.support import formats
from tests.support.formats import quiet
from tests.support.full_disk import full_disk
from tests.support.rows import full_but


def prepare(name, raw, folder, **options):
    settings: dict[str, Any] = {"verify": False, "show": quiet} | options
    preparation.prepare(name, raw, folder, **settings)
    directory = records.prepared(folder, name)
    numbers = {split: info.num_examples for split, info in records.info(directory).splits.items()}
    left_out = len(records.skipped(directory))
    return numbers | ({"skipped": left_out} if left_out else {})


def load(name, folder, **options):
    return sources.load(Config(data=Data(name=name, **options)), folder)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """All five data sets, prepared: their directory, and the content of their raw files."""
    folder, raw = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("raw")
    content: dict[Any, Any] = {}
    writers: dict[str, Callable[..., Any]] = {
        "cifar10": formats.cifar10,
        "cifar100": formats.cifar100,
        "mnist": formats.mnist,
        "fashion_mnist": lambda target: formats.mnist(target, 50, 20),
        "imagenet": formats.imagenet,
    }
    for name, write in writers.items():
        (raw / name).mkdir()
        content[name] = write(raw / name)
        assert prepare(name, raw / name, folder) == COUNTS[name]
        content[name, "raw files"] = raw / name
    return folder, content


@pytest.fixture(scope="module")
def folder(datasets):
    return datasets[0]


@pytest.fixture(scope="module")
def content(datasets):
    return datasets[1]


@pytest.fixture
def directory(folder, tmp_path):
    """A copy of the prepared MNIST in ``tmp_path``, which a test may damage, without its decoded pictures."""
    copied = copy(folder, "mnist", tmp_path)
    (copied / "csbp_train.npz").unlink(missing_ok=True)
    return copied


COUNTS = {
    "cifar10": {"train": 100, "test": 20},
    "cifar100": {"train": 200, "test": 100},
    "mnist": {"train": 60, "test": 30},
    "fashion_mnist": {"train": 50, "test": 20},
    "imagenet": {"train": 12, "validation": 3},
}


@pytest.mark.parametrize("name", full_but(COUNTS.keys() - {"cifar10"}, COUNTS))
def test_a_second_preparation_needs_no_raw_files(folder, name, tmp_path):
    assert prepare(name, tmp_path, folder) == COUNTS[name]
    assert not list(folder.glob("*.part"))


def test_other_raw_files_of_what_is_prepared_are_not_read_and_this_is_said(folder, tmp_path, capfd):
    copy(folder, "mnist", tmp_path)
    prepare("mnist", tmp_path / "corrected", tmp_path)
    said = f"3.0.1: is prepared, so {tmp_path / 'corrected'} was not read; move it away to prepare it again"
    assert said in capfd.readouterr().err
    # Moved away within its folder it is no longer the data set.
    (tmp_path / "mnist" / "3.0.1").rename(tmp_path / "mnist" / "3.0.1.old")
    assert records.find(tmp_path, "mnist") is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_the_unmodified_library_reads_the_content_of_the_raw_files(folder, content, name):
    x, y, *coarse = content[name]
    directory = records.prepared(folder, name)
    assert directory.parent == folder / name
    builder = tfds.builder_from_directory(directory)
    assert builder.info.name == name
    count = COUNTS[name]["train"]
    for split, want_x, want_y in (("train", x[:count], y[:count]), ("test", x[count:], y[count:])):
        stored = list(builder.as_data_source(split))
        order = [np.flatnonzero((want_x == record["image"]).all((1, 2, 3))).item() for record in stored]
        assert sorted(order) == list(range(len(want_y)))
        np.testing.assert_array_equal([record["label"] for record in stored], want_y[order])
        if name.startswith("cifar"):
            assert [record["id"].decode() for record in stored] == [f"{split}_{i:05d}" for i in order]
        if coarse:
            np.testing.assert_array_equal([record["coarse_label"] for record in stored], want_y[order] // 5)
    if name == "cifar10":
        assert builder.info.features["label"].names == [f"class{n}" for n in range(10)]


def test_the_unmodified_library_reads_imagenet(folder, content):
    train, validation = content["imagenet"]
    builder = tfds.builder_from_directory(records.find(folder, "imagenet"))
    assert builder.info.full_name == "imagenet2012/5.1.0"
    jpeg = {"image": tfds.decode.SkipDecoding()}
    stored = {r["file_name"].decode(): r for r in builder.as_data_source("train", decoders=jpeg)}
    assert {name: record["image"] for name, record in stored.items()} == train
    names = builder.info.features["label"].names
    assert all(names[record["label"]] == name.split("_")[0] for name, record in stored.items())
    stored = {r["file_name"].decode(): r for r in builder.as_data_source("validation", decoders=jpeg)}
    assert {name: record["image"] for name, record in stored.items()} == validation
    labels = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
    for n in (1, 2, 3):
        assert names[stored[f"ILSVRC2012_val_{n:08d}.JPEG"]["label"]] == labels[n - 1]


def test_mnist_without_gz(tmp_path, capfd):
    x, y = formats.mnist(tmp_path, pack=False)
    assert prepare("mnist", tmp_path, tmp_path / "data") == COUNTS["mnist"]
    assert capfd.readouterr() == ("", "")
    test = load("mnist", tmp_path / "data")["test"]
    order = [np.flatnonzero((x == image).all((1, 2, 3))).item() for image in test.x]
    np.testing.assert_array_equal(y[order], test.y)


def test_downloads_of_one_data_set_are_not_taken_for_another(content, tmp_path, monkeypatch):
    """Those of MNIST and Fashion-MNIST have the same names."""

    def download(file, directory, show, otherwise, verify):
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(content["fashion_mnist" if "fashion" in file.url else "mnist", "raw files"] / file.name, directory)

    monkeypatch.setattr("csbp_jax.data.download.fetch.download", download)
    for name in ("mnist", "fashion_mnist"):
        assert prepare(name, None, tmp_path) == COUNTS[name]


ROW = bytes(3073)


@pytest.mark.parametrize("replaced, message", [
    ({"data_batch_3__bin": ROW * 4 + ROW[:9]}, r"data_batch_3.bin ends inside record 4; fetch it again"),
    ({"data_batch_3__bin": b""}, r"data_batch_3.bin ends inside record 0; fetch it again"),
    ({"test_batch__bin": ROW * 2 + b"\x0a" + ROW[1:]}, r"test_batch.bin: record 2 has label 10; labels are 0 to 9"),
    ({"data_batch_5__bin": None}, r"does not contain cifar-10-batches-bin/data_batch_5.bin; fetch it again"),
    ({"batches__meta__txt": b"a\nb\n"}, r"batches.meta.txt has 2 names for 10 classes"),
    ({"batches__meta__txt": b"\xff\n"}, r"batches.meta.txt has 1 names for 10 classes"),
])  # fmt: skip
def test_wrong_cifar(tmp_path, replaced, message):
    formats.cifar10(tmp_path, 5, **replaced)
    with pytest.raises(ConfigError, match=message):
        prepare("cifar10", tmp_path, tmp_path / "data")
    assert records.find(tmp_path / "data", "cifar10") is None


def test_other_files_in_the_archive_of_cifar_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_LIMIT", 20_000)
    formats.cifar10(tmp_path, 5, readme__html=bytes(30_000))
    assert prepare("cifar10", tmp_path, tmp_path / "data") == {"train": 25, "test": 5}


def test_a_picture_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_LIMIT", 1000)
    name = formats.WNIDS[0]
    formats.imagenet(tmp_path, {f"{name}_1.JPEG": bytes(5000)}, {"ILSVRC2012_val_00000001.JPEG": bytes(5000)})

    def usable(data, record):
        pytest.fail(f"{record}: {len(data)} bytes were read")

    train, validation = tmp_path / "ILSVRC2012_img_train.tar", tmp_path / "ILSVRC2012_img_val.tar"
    for read in (
        readers._imagenet_train(train, {name}, usable, quiet),
        readers._imagenet_validation(validation, usable, quiet),
    ):
        with pytest.raises(ConfigError, match=r"1.JPEG: has more than 1,000 bytes when unpacked"):
            list(read)


GOOD = formats.encoded(formats.photo(1), quality=95)
BAD = {"n01440764_10.JPEG": GOOD[:500], "n01440764_11.JPEG": b"", "n01443537_2.JPEG": b"<html>"}


ONE = formats.tarred({"n01440764_1.JPEG": GOOD}, "w")
TWICE = ONE[: 512 + len(GOOD) + -len(GOOD) % 512] + ONE  # without the end of the first


@pytest.mark.parametrize("train, validation, options, message", [
    (BAD, None, {}, r"_train.tar: n01440764.tar: n01440764_10.JPEG: cannot be decoded .*\(--data.bad skip\)$"),
    (BAD, None, {"bad": "skip"}, "the raw files contain no record of the train split"),
    (formats.tarred({"n01440764.tar": TWICE}, "w"), None, {}, "n01440764_1.JPEG twice in the train split"),
    (formats.tarred({"n01440764.tar": ONE}, "w")[:3000], None, {}, "ILSVRC2012_img_train.tar.*: damaged or truncated"),
    ({"n99999999_1.JPEG": GOOD}, None, {}, "n99999999.tar is not the archive of any of the 1000 classes"),
    (None, {"ILSVRC2012_val_00050001.JPEG": GOOD}, {}, "ILSVRC2012_val_00050001.JPEG is not among its 50000 images"),
])  # fmt: skip
def test_wrong_imagenet(tmp_path, train, validation, options, message):
    is_archive = isinstance(train, bytes)
    formats.imagenet(tmp_path, None if is_archive else train, validation)
    if is_archive:
        (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(train)
    with pytest.raises(ConfigError, match=message):
        prepare("imagenet", tmp_path, tmp_path / "data", **options)


@pytest.mark.parametrize("bad, message", [(1, "1 image skipped"), (3, "3 images skipped")])
def test_undecodable_images_are_skipped_and_listed_and_counted_at_every_load(tmp_path, capsys, bad, message):
    good = {f"{wnid}_{n}.JPEG": GOOD for wnid in ("n01440764", "n01443537") for n in (20, 21)}
    formats.imagenet(tmp_path, good | dict(list(BAD.items())[:bad]))
    for raw in (tmp_path, None):
        counts = prepare("imagenet", raw, tmp_path / "data", bad="skip")
        assert counts == {"train": 4, "validation": 3, "skipped": bad}
    listed = tmp_path / "data/imagenet2012/5.1.0/skipped.json"
    entries = json.loads(listed.read_text())
    assert [entry["record"].rsplit(" ", 1)[1] for entry in entries] == list(BAD)[:bad]
    assert all("cannot be decoded" in entry["reason"] for entry in entries)
    assert len(load("imagenet", tmp_path / "data", bad="skip", validation=0.5)["train"]) == 2
    assert capsys.readouterr().err == f"{message}, listed in {listed}\n"
    with pytest.raises(
        ConfigError, match=rf"10.JPEG: cannot be decoded .* \(one of {bad} images skipped in .*5.1.0; repair"
    ):
        load("imagenet", tmp_path / "data", validation=0.5)
    listed.write_text("{")
    with pytest.raises(ConfigError, match=r"skipped.json: damaged .*; prepare the data set again"):
        load("imagenet", tmp_path / "data", bad="skip")


def test_cmyk_and_png_become_rgb_jpegs(tmp_path):
    pixels = formats.photo(5)
    cmyk = formats.photo(6)
    odd = {
        "n01440764_1.JPEG": formats.encoded(pixels, "PNG"),
        "n01440764_2.JPEG": formats.cmyk(cmyk),
        "n01440764_3.JPEG": formats.encoded(pixels[..., 0], quality=95),
    }
    formats.imagenet(tmp_path, odd)
    prepare("imagenet", tmp_path, tmp_path / "data")
    source = tfds.builder_from_directory(records.find(tmp_path / "data", "imagenet")).as_data_source("train")
    images = {record["file_name"].decode(): record["image"] for record in source}
    for name, expected in (("n01440764_1.JPEG", pixels), ("n01440764_2.JPEG", cmyk)):
        assert images[name].shape == expected.shape and np.abs(images[name].astype(int) - expected).mean() < 3
    jpegs = {
        r["file_name"].decode(): r["image"]
        for r in records.encoded(records.prepared(tmp_path / "data", "imagenet"), "train")
    }
    assert jpegs["n01440764_3.JPEG"] == odd["n01440764_3.JPEG"]  # grey is not encoded again
    assert jpegs["n01440764_2.JPEG"][:2] == b"\xff\xd8"


def test_an_interrupted_preparation_leaves_nothing_and_starts_again(tmp_path):
    """The remains of one that was killed are removed as well."""
    formats.cifar10(tmp_path)
    remains = tmp_path / "data" / "cifar10.part" / "cifar10" / "3.0.2.incomplete"
    remains.mkdir(parents=True)
    (remains / "cifar10-train.array_record").write_bytes(b"cut off")

    def stop(stage, done, total):
        if stage == "read test" and done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("cifar10", tmp_path, tmp_path / "data", show=stop)
    with pytest.raises(ConfigError, match=r"cifar10 is not prepared in .*; run: make data DATASET=cifar10 .*FROM="):
        load("cifar10", tmp_path / "data")
    assert prepare("cifar10", tmp_path, tmp_path / "data") == COUNTS["cifar10"]
    assert os.listdir(tmp_path / "data") == ["cifar10"]


def test_a_second_process_waits_and_takes_the_result_of_the_first(folder, tmp_path, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with ThreadPoolExecutor() as pool:
        with locks.locked(tmp_path / "mnist" / ".lock"):
            second = pool.submit(prepare, "mnist", tmp_path, tmp_path)  # without raw files
            deadline = time.monotonic() + 60
            while not stderr.getvalue().endswith("\n"):
                assert time.monotonic() < deadline and not second.done()
                time.sleep(0.01)
            notice = f"{tmp_path}/mnist/.lock: another process holds this lock; waiting for it\n"
            assert stderr.getvalue() == notice
            copy(folder, "mnist", tmp_path)
            assert not second.done()
        assert second.result(60) == COUNTS["mnist"]


@pytest.mark.parametrize("form", ["raw files", "tfrecord"])
def test_a_full_disk(folder, content, tmp_path, form):
    source = content["cifar10", "raw files"]
    if form == "tfrecord":
        source = tmp_path / "old"
        formats.tfrecords(records.find(folder, "cifar10"), source)
    message = r"^.*/cifar10.part: cannot be written \(.*File too large.*\); free disk space"
    with full_disk(30_000), pytest.raises(ConfigError, match=message):
        prepare("cifar10", source, tmp_path / "data")
    assert os.listdir(tmp_path / "data") == ["cifar10"]
    assert os.listdir(tmp_path / "data" / "cifar10") == [".lock"]


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_tfrecord_directories_are_converted(folder, tmp_path, name):
    directory = records.prepared(folder, name)
    formats.tfrecords(directory, tmp_path / "old" / directory.relative_to(folder))
    counts = prepare(name, tmp_path / "old", tmp_path / "data", verify=True)
    assert counts == COUNTS[name]
    for split in counts:
        skip = {"image": tfds.decode.SkipDecoding()}
        new, old = (
            tfds.builder_from_directory(records.find(root, name)).as_data_source(split, decoders=skip)
            for root in (tmp_path / "data", folder)
        )
        chex.assert_trees_all_equal(list(new), list(old))


def test_conversion_of_a_damaged_directory(folder, tmp_path):
    formats.tfrecords(records.find(folder, "mnist"), tmp_path / "old")
    shard = tmp_path / "old" / "mnist-train.tfrecord-00000-of-00001"
    intact = shard.read_bytes()
    shard.write_bytes(intact[:-3])
    with pytest.raises(ConfigError, match=r"mnist-train.tfrecord-00000-of-00001: ends inside record 59"):
        prepare("mnist", tmp_path / "old", tmp_path / "data")
    assert records.find(tmp_path / "data", "mnist") is None
    shard.write_bytes(intact)
    (tmp_path / "old/dataset_info.json").write_text("{")
    with pytest.raises(ConfigError, match=r"dataset_info.json: damaged"):
        prepare("mnist", tmp_path / "old", tmp_path / "data")


INFO = {"name": "mnist", "version": "3.0.1", "fileFormat": "array_record", "splits": []}


@pytest.mark.parametrize("content", [
    "{", "[]", "3", "{}", json.dumps(INFO | {"version": "x"}), json.dumps(INFO | {"version": 3}), "[" * 100_000
])  # fmt: skip
def test_damaged_metadata_are_one_line(content, tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text(content)
    with pytest.raises(ConfigError, match=r"dataset_info.json: damaged \([^\n]*\); prepare or copy it again"):
        records.find(tmp_path, "mnist")


def test_a_tfrecord_directory_is_not_overwritten(folder, tmp_path):
    formats.tfrecords(records.find(folder, "mnist"), tmp_path / "mnist" / "3.0.1")
    with pytest.raises(ConfigError, match=r"mnist/3.0.1: contains the data set in another form; move it away"):
        prepare("mnist", tmp_path, tmp_path)


@pytest.mark.parametrize("name, shape", [("cifar10", (32, 32, 3)), ("cifar100", (32, 32, 3)), ("mnist", (28, 28, 1))])
def test_splits_of_small_data_sets(folder, content, name, shape):
    splits = load(name, folder)
    x, y, *_ = content[name]
    label = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    counts = {split: len(source) for split, source in splits.items()}
    assert counts["train"] + counts["validation"] == COUNTS[name]["train"] and counts["test"] == COUNTS[name]["test"]
    shown = set()
    for source in splits.values():
        assert source.classes == (100 if name == "cifar100" else 10)
        for i in range(len(source)):
            record = source[i]
            assert record["x"].shape == (1, *shape) and record["x"].dtype == np.uint8 and record["y"].dtype == np.int32
            assert record["y"] == label[record["x"].tobytes()]
            shown.add(record["x"].tobytes())
    assert len(shown) == len(x)
    assert np.all(np.bincount(splits["validation"].y) == max(1, round(0.1 * COUNTS[name]["train"] / source.classes)))


AUGMENT = ("crop", "flip", "autoaugment", "cutout", "randaugment", "random_erasing")


@pytest.mark.parametrize("name, augment", [("cifar10", AUGMENT), ("imagenet", ("resized_crop", "flip"))])
def test_batches_are_a_function_of_seed_and_step(folder, name, augment):
    source = load(name, folder, augment=augment, size=(32, 32))["train"]
    intact = list(itertools.islice(data.train_batches(source, 4, seed=3), 9))
    again = list(itertools.islice(data.train_batches(source, 4, seed=3, start_step=5), 4))
    two_threads = data.Readers(threads=2)
    chex.assert_trees_all_equal(intact[5:], again)
    chex.assert_shape([batch["x"] for batch in intact], (4, 1, 32, 32, 3))
    halves = [
        next(data.train_batches(source, 4, seed=3, start_step=5, rows=rows, readers=two_threads))
        for rows in np.array([[0, 1], [2, 3]])
    ]
    chex.assert_trees_all_equal(again[0], {key: np.concatenate([rows[key] for rows in halves]) for key in ("x", "y")})


def test_augmentations_follow_the_order_of_the_config(folder):
    rows = np.arange(50) % 10
    first = load("cifar10", folder, augment=("cutout", "flip"))["train"]
    second = load("cifar10", folder, augment=("flip", "cutout"))["train"]
    u = np.random.default_rng(0).random((50, 3), np.float32)
    assert first.num_uniforms == second.num_uniforms == 3
    swapped = second.take(rows, u[:, [2, 0, 1]])["x"]
    same = (first.take(rows, u)["x"] == swapped).all((1, 2, 3, 4))
    np.testing.assert_array_equal(same, u[:, 2] >= 0.5)


def test_only_training_is_augmented_and_only_by_the_augmentations_of_the_host(folder):
    for name, augment in (("cifar10", ("crop", "mixup", "flip")), ("imagenet", ("resized_crop", "cutmix"))):
        splits = load(name, folder, augment=augment)
        assert splits["train"].num_uniforms == (3 if name == "cifar10" else 22)
        for split in ("validation", "test"):
            assert splits[split].num_uniforms == 0
            taken = splits[split].take(np.array([1]), np.zeros((1, 0), np.float32))
            chex.assert_trees_all_equal({key: value[0] for key, value in taken.items()}, splits[split][1])


@pytest.mark.parametrize("augment, counted", [(("crop", "flip"), 0), (("cutout", "random_erasing"), 1)])
def test_the_mean_colour_is_computed_for_augmentations_that_fill(augment, counted):
    mean = mock.Mock(return_value=np.zeros(3))
    steps = sources.host_steps(replaced(configs.load("cifar10"), "data.augment", augment), (32, 32), mean)
    assert (len(steps), mean.call_count) == (len(augment), counted)


def test_cutout_has_the_published_side(folder):
    for name, side in (("cifar10", 16), ("cifar100", 8), ("mnist", 14)):
        source = load(name, folder, augment=("cutout",))["train"]
        changed = source.take(np.array([0]), np.full((1, 2), 0.5, np.float32))["x"][0, 0] != source.x[0]
        assert side - 1 <= changed.any(-1).any(0).sum() <= side


def test_cutout_fills_imagenets_mean_colour(folder):
    source = load("imagenet", folder, size=(32, 32), augment=("cutout",))["train"]
    cut = source.take(np.array([0]), np.full((1, 2), 0.5, np.float32))["x"][0, 0]
    # 255 times 0.485, 0.456, 0.406.
    np.testing.assert_array_equal(cut[16, 16], [124, 116, 104])


def test_splits_of_imagenet(folder):
    splits = load("imagenet", folder, size=(48, 64))
    assert {split: len(source) for split, source in splits.items()} == {"train": 9, "validation": 3, "test": 3}
    assert sorted(splits["train"].y) == sorted([0, 1, 999] * 3)
    assert splits["test"][0]["x"].shape == (1, 48, 64, 3)
    assert load("imagenet", folder)["train"][0]["x"].shape == (1, 224, 224, 3)
    assert load("imagenet", folder, augment=("resized_crop",))["train"].classes == 1000


def test_imagenet_shows_the_centre_for_evaluation(folder, content):
    splits = load("imagenet", folder, size=(35, 35))
    _, validation = content["imagenet"]
    shown = splits["test"].take(np.arange(3), np.zeros((3, 0), np.float32))["x"][:, 0]
    # Of 60 x 80 pixels the middle 52 or 53 squared, to 35.
    for image in shown:
        distances = [
            np.abs(decode(jpeg, "a")[4:56, 14:66][::3, ::3].astype(int) - image[::2, ::2]).mean()
            for jpeg in validation.values()
        ]
        assert min(distances) < 12 and sorted(distances)[1] > 25


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_sources_pickle(folder, name):
    augment = ("resized_crop", "crop", "flip", "cutout", "autoaugment", "randaugment", "random_erasing")
    source = load(name, folder, augment=augment)["train"]
    u = np.random.default_rng(0).random((3, source.num_uniforms), np.float32)
    rows = np.array([2, 0, 5])
    chex.assert_trees_all_equal(source.take(rows, u), pickle.loads(pickle.dumps(source)).take(rows, u))


def test_images_are_resized_to_the_configured_size(folder):
    splits = load("cifar10", folder, size=(48, 40))
    assert all(source[0]["x"].shape == (1, 48, 40, 3) for source in splits.values())


def copy(folder, name, target):
    original = records.prepared(folder, name)
    return shutil.copytree(original, target / original.relative_to(folder))


def test_a_damaged_cache(folder, tmp_path):
    cache = copy(folder, "mnist", tmp_path) / "csbp_train.npz"
    intact = cache.read_bytes()
    for changed in (b"", intact[:1000], intact[:5000] + b"!" + intact[5001:]):
        cache.write_bytes(changed)
        with pytest.raises(ConfigError, match=r"csbp_train.npz: damaged .*; delete it, and it will be made again"):
            load("mnist", tmp_path)
    cache.unlink()
    np.testing.assert_array_equal(load("mnist", tmp_path)["train"].x, load("mnist", folder)["train"].x)


def test_a_cache_of_other_arrays_is_discarded(directory, folder, tmp_path):
    cache, expected = directory / "csbp_train.npz", load("mnist", folder)["train"].x
    with open(cache, "wb") as file:
        np.save(file, np.zeros(3))
    np.testing.assert_array_equal(load("mnist", tmp_path)["train"].x, expected)
    np.savez(cache, made_from=records._fingerprint(directory))
    np.testing.assert_array_equal(load("mnist", tmp_path)["train"].x, expected)


def test_images_are_decoded_once_even_if_their_files_are_copied_without_their_times(directory, tmp_path, monkeypatch):
    """As from a bucket to a disk that is read only: each host of a pod would read all records at each start."""
    expected = load("mnist", tmp_path)["train"].x
    for file in directory.iterdir():
        os.utime(file, (1, 1))
    monkeypatch.setattr(records, "_decode_all", None)
    np.testing.assert_array_equal(load("mnist", tmp_path)["train"].x, expected)


def test_a_cache_is_discarded_with_its_records(folder, tmp_path):
    """Another data set is copied over a prepared one, with the same number of images and the same file sizes."""
    (tmp_path / "raw").mkdir()
    x, _ = formats.mnist(tmp_path / "raw", pack=False)
    for stem, split in (("train", slice(60)), ("t10k", slice(60, None))):
        formats.idx(tmp_path / "raw" / f"{stem}-images-idx3-ubyte", 255 - x[split, ..., 0], pack=False)
    prepare("mnist", tmp_path / "raw", tmp_path / "other")
    directory = copy(folder, "mnist", tmp_path / "data")
    before = load("mnist", tmp_path / "data")["test"].x
    for file in records.prepared(tmp_path / "other", "mnist").glob("*[!z]"):
        shutil.copy2(file, directory)
    for _ in range(2):
        after = load("mnist", tmp_path / "data")["test"].x
        np.testing.assert_array_equal(np.sort(255 - after, axis=0), np.sort(before, axis=0))


def test_damaged_records(directory, tmp_path):
    shard = directory / "mnist-train.array_record-00000-of-00001"
    intact = shard.read_bytes()
    at = intact.index(b"\x89PNG", 20_000) + 100
    for content in (intact[:at] + bytes(100) + intact[at + 100 :], intact[:3000], b"", intact[:-100]):
        shard.write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"3.0.1: train record \d+: damaged .*; prepare the data set again"
        ) as error:
            load("mnist", tmp_path)
        assert "\n" not in str(error.value)


def test_records_with_a_wrong_label(folder, tmp_path):
    formats.tfrecords(
        records.find(folder, "mnist"), tmp_path / "old", lambda payload: payload.replace(LABEL_7, LABEL_11)
    )
    with pytest.raises(ConfigError, match=r"3.0.1: (train|test) record \d+: has label 11; allowed are 0 to 9"):
        prepare("mnist", tmp_path / "old", tmp_path / "data")


# In a tf.train.Example: the key, then a feature that is a list of one intact number.
LABEL_7, LABEL_11 = (b"\n\x05label\x12\x05\x1a\x03\n\x01" + bytes([label]) for label in (7, 11))


@pytest.mark.parametrize("old, new, message", [
    ('"28"', '"27"', r"train record 0: has shape \(28, 28, 1\), the data set \(27, 27, 1\)"),
    ('"label"', '"digit"', r"features.json: cannot be used \('label'\); prepare or copy the data set again"),
])  # fmt: skip
def test_features_of_other_records(directory, tmp_path, old, new, message):
    (directory / "features.json").write_text((directory / "features.json").read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load("mnist", tmp_path)


FEATURES_DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
OTHER_CODE = {
    "as now": {"pythonClassName": "payload_xyz.X"},
    "as first": {"type": FEATURES_DICT, "content": {"a": {"type": "payload_xyz.X", "content": {}}}},
    "in a text": {
        "pythonClassName": FEATURES_DICT,
        "jsonFeature": {"json": json.dumps({"a": {"python_class_name": "payload_xyz.X"}})},
    },
}


@pytest.mark.parametrize("kind", OTHER_CODE)
def test_other_code_that_features_name_is_not_imported(directory, tmp_path, monkeypatch, kind):
    (tmp_path / "payload_xyz.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    (directory / "features.json").write_text(json.dumps(OTHER_CODE[kind]))
    with pytest.raises(
        ConfigError, match=r"features.json: cannot be used \(names 'payload_xyz.X', which is not a feat"
    ):
        records.info(directory)


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, None, "[]", "{}", "5", "null", '"a"', f'{{"pythonClassName": "{FEATURES_DICT}x"}}'],
)
def test_damaged_features_are_one_line(directory, text):
    (directory / "features.json").unlink()
    if text is not None:
        (directory / "features.json").write_text(text)
    with pytest.raises(
        ConfigError,
        match=r"features.json: (cannot be used \([^\n]*\); prepare or copy the data set again|there is no such file)$",
    ):
        records.info(directory)


def test_a_cache_that_cannot_be_written(directory, folder, tmp_path):
    (directory / f"csbp_train.npz.{os.getpid()}.part").mkdir()  # in the way of the file
    np.testing.assert_array_equal(load("mnist", tmp_path)["train"].x, load("mnist", folder)["train"].x)
    assert not (directory / "csbp_train.npz").exists()


def test_the_newest_version_is_read(directory, folder, tmp_path):
    for version in ("2.0.0", "10.0.0"):
        directory.rename(directory.with_name(version))
        directory = directory.with_name(version)
        info = json.loads((directory / "dataset_info.json").read_text()) | {"version": version}
        (directory / "dataset_info.json").write_text(json.dumps(info))
        copy(folder, "mnist", tmp_path / version)
    copy(folder, "mnist", tmp_path)
    assert records.prepared(tmp_path, "mnist").name == "10.0.0"
