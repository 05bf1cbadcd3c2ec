"""ImageNet's records with smaller images: prepared from records in their true format, and read by tfds."""

import dataclasses
import io
import json
import shutil
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from csbp_jax import data
from csbp_jax.cli.main import main
from csbp_jax.config import Config, ConfigError, Data, Model, run_name
from csbp_jax.data.images import augment, records, reduced
from csbp_jax.data.images.decode import decode
from csbp_jax.data.user import prediction_inputs
from csbp_jax.training import run_dir
from tests.support import formats

ORIGINAL = Config(data=Data(name="imagenet", size=(24, 24), augment=("resized_crop",)))
SMALL = dataclasses.replace(ORIGINAL, data=dataclasses.replace(ORIGINAL.data, shorter_side=32))
SIZES = [(40, 64), (90, 50), (20, 100), (64, 48)]
"""Heights and widths; the third is no larger than 32."""


def picture(seed):
    height, width = SIZES[seed % 4]
    waves = np.add.outer(np.sin(np.arange(height) / 9 + seed), np.cos(np.arange(width) / 7))
    pixels = (127 + 60 * waves[..., None] * [1, 0.5, -0.7]).astype(np.uint8)
    return formats.encoded(pixels, quality=97)


def prepare(config, raw, folder, show=lambda *_: None):
    data.prepare(config, raw, folder, verify=False, show=show)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data directory with the original and the reduced records."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")
    train = {f"{wnid}_{n}.JPEG": picture(n) for wnid in formats.WNIDS for n in range(4)}
    validation = {f"ILSVRC2012_val_{n:08d}.JPEG": picture(n) for n in (1, 2, 3)}
    formats.imagenet(raw, train, validation)
    prepare(SMALL, raw, folder)
    return folder


def stored(folder, side, split):
    directory = records.prepared(folder, "imagenet", side)
    source = tfds.builder_from_directory(directory).as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return list(source)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_records_are_those_of_the_original_with_smaller_images(prepared, split):
    original, small = stored(prepared, None, split), stored(prepared, 32, split)
    assert len(original) == {"train": 12, "validation": 3}[split]
    for before, after in zip(original, small, strict=True):  # in the same order
        assert (before["file_name"], before["label"]) == (after["file_name"], after["label"])
        image = Image.open(io.BytesIO(before["image"]))
        if min(image.size) <= 32:
            assert after["image"] == before["image"]
            continue
        reduced_image = Image.open(io.BytesIO(after["image"]))
        scale = 32 / min(image.size)
        assert reduced_image.size == (round(scale * image.width), round(scale * image.height))
        expected = np.asarray(image.resize(reduced_image.size, Image.Resampling.LANCZOS), int)
        assert np.abs(np.asarray(reduced_image, int) - expected).mean() < 3  # the error of JPEG


def test_tfds_names_the_reduced_records(prepared):
    builder = tfds.builder_from_directory(records.prepared(prepared, "imagenet", 32))
    assert builder.info.full_name == "imagenet2012/shorter_side_32/5.1.0"
    assert builder.builder_config.description == reduced.description(32)
    assert "quality 95" in builder.builder_config.description
    assert records.find(prepared, "imagenet") == prepared / "imagenet2012" / "5.1.0"


def test_a_run_on_reduced_images_is_another_run_on_other_data(prepared):
    digests = {run_dir.fingerprint_digest(data.fingerprint(config, prepared)) for config in (ORIGINAL, SMALL)}
    assert len(digests) == 2
    assert run_name(ORIGINAL) != run_name(SMALL)
    other = dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, shorter_side=48))
    with pytest.raises(ConfigError, match=r'side of 48 in .*run: make data DATASET=imagenet ARGS="--data.shorter-side'):
        data.load(other, prepared)


def test_reduced_records_need_the_original_no_more(prepared, tmp_path):
    shutil.copytree(prepared / "imagenet2012" / "shorter_side_32", tmp_path / "imagenet2012" / "shorter_side_32")
    prepare(SMALL, tmp_path, tmp_path)  # there are no raw files either
    splits: Any = data.load(SMALL, tmp_path)
    originals: Any = data.load(ORIGINAL, prepared)
    for split, source in splits.items():
        assert [int(label) for label in source.y] == [int(label) for label in originals[split].y]
    batch = splits["train"].take(np.arange(4), np.full((4, splits["train"].num_uniforms), 0.5, np.float32))
    assert batch["x"].shape == (4, 1, 24, 24, 3)
    with pytest.raises(ConfigError, match="imagenet is not prepared in"):
        data.load(ORIGINAL, tmp_path)


def test_a_stopped_preparation_leaves_nothing_and_can_be_repeated(prepared, tmp_path):
    """Images that were skipped stay listed."""
    shutil.copytree(prepared / "imagenet2012" / "5.1.0", tmp_path / "imagenet2012" / "5.1.0")
    entry = [{"record": "x.JPEG", "reason": "it is empty"}]
    (tmp_path / "imagenet2012" / "5.1.0" / "skipped.json").write_text(json.dumps(entry))

    def stop(stage, done, total):
        if stage == "reduce validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(SMALL, None, tmp_path, stop)
    assert records.find(tmp_path, "imagenet", 32) is None
    assert not list(tmp_path.glob("*.part"))
    prepare(SMALL, None, tmp_path)
    again, before = (records.prepared(folder, "imagenet", 32) for folder in (tmp_path, prepared))
    shards = list(before.glob("*array_record*"))
    assert len(shards) == 2
    assert all((again / shard.name).read_bytes() == shard.read_bytes() for shard in shards)
    assert records.skipped(again) == entry


def test_from_the_command_line(prepared, capsys):
    line = ["data", "imagenet", "--data.shorter-side", "32", "--data-dir", str(prepared)]
    assert main(line) == 2 and "shorter_side_32/5.1.0: was prepared without verification" in capsys.readouterr().err
    line.append("--no-verify")
    assert main(line) == 0
    assert "train 9, validation 3, test 3 records" in capsys.readouterr().out


def test_the_faster_resizer_differs_from_pillow_by_at_most_one(prepared):
    pytest.importorskip("cykooz_resizer")
    from csbp_jax.data.images import fast_resize

    draw = np.random.default_rng(0)
    for size in [(37, 61), (500, 375), (224, 224), (30, 700)]:
        image = draw.integers(0, 256, (*size, 3), np.uint8)
        for u in draw.random((20, augment.RESIZED_CROP_UNIFORMS), np.float32):
            window = augment.random_window(*size, u)
            expected, found = (resize(image, window, (32, 48)) for resize in (augment.resize, fast_resize.resize))
            assert found.shape == expected.shape and found.dtype == expected.dtype
            assert np.abs(found.astype(int) - expected).max() <= 1
    fast = dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, resizer="cykooz"))
    slow_test, fast_test = (data.load(config, prepared)["test"] for config in (SMALL, fast))
    assert all(np.abs(slow_test[i]["x"].astype(int) - fast_test[i]["x"]).max() <= 1 for i in range(3))


def test_a_picture_to_predict_is_resized_as_in_the_test_split(prepared, tmp_path):
    pytest.importorskip("cykooz_resizer")
    model = Model(input_shape=(24, 24, 3))
    pictures = []
    for resizer in ("pillow", "cykooz"):
        config = dataclasses.replace(ORIGINAL, data=dataclasses.replace(ORIGINAL.data, resizer=resizer), model=model)
        for i, record in enumerate(stored(prepared, None, "validation")):
            path = tmp_path / f"{i}.jpg"
            path.write_bytes(record["image"])
            read, *_ = prediction_inputs.reader(config, [path])
            pictures.append(read(path))
            np.testing.assert_array_equal(pictures[-1], data.load(config, prepared)["test"][i]["x"])
    assert not np.array_equal(pictures[:3], pictures[3:])


def test_a_missing_resizer_is_reported(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    with pytest.raises(ConfigError, match=r"^data\.resizer: cykooz .*: needs the package cykooz_resizer; "):
        data.load(dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, resizer="cykooz")), prepared)


def test_a_damaged_image_is_reported_by_name():
    with pytest.raises(ConfigError, match=r"n01440764_3\.JPEG: cannot be decoded"):
        reduced.reduce(picture(0)[:100], 32, "n01440764_3.JPEG")
    assert decode(reduced.reduce(picture(1), 32, "x"), "x").shape == (58, 32, 3)
