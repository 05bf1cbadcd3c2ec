"""Pictures of CIFAR-10 as recordings, from a small archive in its true format."""

import re

import numpy as np
import pytest

from csbp_jax import configs, data
from csbp_jax.config import Config, ConfigError, Data, Model
from csbp_jax.data.events import camera, cifar10_events
from csbp_jax.data.images import records
from tests.support import formats

CONFIG = configs.load("cifar10_events")
COUNTS = {"train": 30, "validation": 10, "spare": 10, "test": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data of 5 training pictures and one test picture of each class, with their recordings."""
    originals, folder = tmp_path_factory.mktemp("originals"), tmp_path_factory.mktemp("data")
    formats.cifar10(originals, per_file=10)
    data.prepare(CONFIG, originals, folder, verify=False)
    data.load(CONFIG, folder)
    return folder


def test_frames_are_those_of_recordings_of_the_grey_pictures(folder):
    splits = cifar10_events.load_all(CONFIG, folder)
    assert {split: len(source) for split, source in splits.items()} == COUNTS
    (x, y), (test_x, test_y) = records.load(records.prepared(folder, "cifar10"), ["train", "test"])
    grey = cifar10_events.grey(np.concatenate([x, test_x]))
    numbers = cifar10_events.split_training(y) | {"test": 50 + np.arange(10)}
    for split, source in splits.items():
        np.testing.assert_array_equal(source.y, np.concatenate([y, test_y])[numbers[split]])
        number = numbers[split][-1]
        (events,) = camera.record(grey[[number]], np.array([number]), camera.LOOP)
        frames = source[len(source) - 1]["x"]
        assert frames.shape == (10, 16, 16, 2) and frames.dtype == np.uint8 and source.events
        assert frames.sum() == len(events.t)
        np.testing.assert_array_equal(
            frames.sum((0, 3)), np.histogram2d(events.y // 2, events.x // 2, [np.arange(17)] * 2)[0]
        )


def test_a_second_load_makes_no_recordings_and_leaves_the_spare_ones_out(folder, capsys):
    splits = data.load(CONFIG, folder)
    assert {split: len(source) for split, source in splits.items()} == {s: n for s, n in COUNTS.items() if s != "spare"}
    assert capsys.readouterr().err == ""
    assert data.classes(CONFIG, folder) == [f"class{n}" for n in range(10)]


def test_the_fingerprint_is_of_the_pictures_and_of_the_camera(folder, monkeypatch):
    before = data.fingerprint(CONFIG, folder)
    assert data.fingerprint(Config(data=Data(name="cifar10")), folder) in before
    monkeypatch.setattr(cifar10_events, "VERSION", 2)
    assert data.fingerprint(CONFIG, folder) != before


def test_pictures_that_are_not_prepared_are_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"cifar10 is not prepared in {tmp_path}; run: make data")):
        data.load(CONFIG, tmp_path)


def test_frames_of_other_sizes_hold_the_same_events(folder):
    whole = Config(data=Data(name="cifar10_events", bins="time"), model=Model(time_steps=3))
    source, small = data.load(whole, folder)["test"], data.load(CONFIG, folder)["test"]
    for i in range(3):
        assert source[i]["x"].shape == (3, 32, 32, 2)
        assert source[i]["x"].sum() == small[i]["x"].sum()


def test_training_pictures_are_the_first_of_each_class():
    y = np.random.default_rng(0).permutation(np.repeat([0, 1], 1_200))
    numbers = cifar10_events.split_training(y)
    assert {split: len(of_split) for split, of_split in numbers.items()} == {
        "train": 1_600,
        "validation": 200,
        "spare": 200,
    }
    for label in (0, 1):
        of_class = [numbers[split][y[numbers[split]] == label] for split in ("train", "validation", "spare")]
        np.testing.assert_array_equal(np.concatenate(of_class), np.flatnonzero(y == label)[:1_000])


def test_a_recording_depends_on_its_picture_and_number_alone(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32)).astype(np.uint8)
    monkeypatch.setattr(cifar10_events, "_CHUNK", 2)
    forwards, backwards = (cifar10_events.Recorder(pictures, order) for order in (np.arange(5), np.arange(5)[::-1]))
    for number in (0, 3, 1):
        np.testing.assert_array_equal(
            np.stack(forwards.recording(number)[:4]), np.stack(backwards.recording(number)[:4])
        )


def test_grey_is_rounded_luma():
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 2, 3], [0, 0, 0]], np.uint8)
    assert cifar10_events.grey(colours).tolist() == [255, 76, 150, 29, 2, 0]


def test_what_is_recorded_changes_with_the_version_only():
    """Other events under the same version would let a stopped run resume on other data."""
    picture = np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)
    (events,) = camera.record(picture, np.array([50_000]), camera.LOOP)
    sums = [len(events.t), *(int(column.sum()) for column in events[:4])]
    assert (cifar10_events.VERSION, sums) == (1, [9157, 132006, 136893, 941921379, 4382])
