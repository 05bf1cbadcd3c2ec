"""A user's own class folders: kinds of files, parts, order, and what is wrong told in one line."""

import itertools
import os
import pathlib
import pickle

import chex
import numpy as np
import pytest
from PIL import Image

from csbp_jax import cli, data
from csbp_jax.config import Config, ConfigError, Data, Model

N = 10


def grey(i):
    return np.full((6, 8), 20 * i, np.uint8)


def picture(path, i):
    Image.fromarray(grey(i)).save(path.with_suffix(".png"))


def photo(path, i):
    Image.fromarray(np.stack([grey(i)] * 3, -1)).save(path.with_suffix(".jpg"), quality=95)


def movie(path, i):
    np.save(path.with_suffix(".npy"), np.stack([grey(i), grey(i) + 1])[..., None])


def features(path, i):
    np.savez(path.with_suffix(".npz"), np.linspace(0, i, 5, dtype=np.float32))


def events(path, i):
    x, y = np.arange(i + 2) % 8, np.arange(i + 2) % 6
    np.savez(path.with_suffix(".npz"), x=x, y=y, t=1000 * np.arange(i + 2), p=x % 2, height=6, width=8)


KINDS = {picture: (1, 6, 8, 3), photo: (1, 6, 8, 3), movie: (2, 6, 8, 1), features: (1, 5), events: (3, 6, 8, 2)}


def fill(root, write=picture, classes=("b", "a10", "a2"), parts=("",)):
    for part, name in itertools.product(parts, classes):
        (root / part / name).mkdir(parents=True)
        for i in range(N):
            write(root / part / name / str(i), i)
    return root


def config(root, **options):
    model = Model(input_shape=(), classes=0, time_steps=3)
    return Config(data=Data(name="folder", dir=str(root), **options), model=model)


def load(root, tmp_path, **options):
    return data.load(config(root, **options), tmp_path / "kept")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "mine"


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
def test_kinds_of_files(write, root, tmp_path):
    parts = load(fill(root, write), tmp_path)
    assert {part: len(source) for part, source in parts.items()} == {"train": 21, "validation": 3, "test": 6}
    for source in parts.values():
        batch = data.take(source, np.arange(len(source)), np.zeros((len(source), 0), np.float32))
        chex.assert_shape(batch["x"], (len(source), *KINDS[write]))
        chex.assert_trees_all_equal(np.unique(batch["y"]), np.arange(3))
        assert source.classes == 3 and batch["y"].dtype == np.int32
        assert source.__class__.__name__ == "Photos" or source.events


@pytest.mark.parametrize("write", [picture, movie, events], ids=lambda write: write.__name__)
def test_every_file_is_in_one_part_and_order_is_natural_on_any_file_system(write, root, tmp_path, monkeypatch):
    first = load(fill(root, write), tmp_path)
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda path: map(path.joinpath, sorted(os.listdir(path))[::-1]))
    second = load(root, tmp_path)
    seen = []
    for part in first:
        batches = [
            data.take(parts[part], np.arange(len(parts[part])), np.zeros((len(parts[part]), 0), np.float32))
            for parts in (first, second)
        ]
        chex.assert_trees_all_equal(*batches)
        seen += [(y, x.sum()) for x, y in zip(batches[0]["x"], batches[0]["y"], strict=True)]
    assert len(set(seen)) == 3 * N
    # a2, a10, b: the label of a file is that of its folder.
    np.testing.assert_array_equal(np.bincount([y for y, _ in seen]), [N] * 3)


def test_classes_are_in_natural_order(root, tmp_path):
    fill(root, movie, ("10", "9"))
    np.save(root / "9" / "0.npy", np.full((2, 6, 8, 1), 255, np.uint8))
    parts = load(root, tmp_path)
    records = [source[i] for source in parts.values() for i in range(len(source))]
    assert [record["y"] for record in records if record["x"].min() == 255] == [0]


def test_parts_that_the_user_made(root, tmp_path):
    parts = load(fill(root, parts=("train", "validation", "test")), tmp_path)
    assert [len(source) for source in parts.values()] == [3 * N] * 3
    parts = load(fill(tmp_path / "two", parts=("train", "test")), tmp_path, validation=0.2)
    assert [len(source) for source in parts.values()] == [24, 6, 30]


def test_pictures_are_augmented_brought_to_a_size_and_pickle(root, tmp_path):
    parts = load(fill(root), tmp_path, size=(4, 5), augment=("resized_crop", "flip", "cutout"))
    for part, source in parts.items():
        batch = next(data.train_batches(pickle.loads(pickle.dumps(source)), 2, 0))
        chex.assert_shape(batch["x"], (2, 1, 4, 5, 3))
        assert (source.draws > 0) == (part == "train")


def test_frames_of_events_are_counted_once_and_again_when_a_file_changes(root, tmp_path):
    first = load(fill(root, events), tmp_path)
    assert sum(source[i]["x"].sum() for source in first.values() for i in range(len(source))) == 3 * sum(
        range(2, N + 2)
    )
    load(root, tmp_path)
    assert len(list((tmp_path / "kept" / "frames").glob("mine-*/"))) == 1
    events(root / "b" / "0", 100)
    load(root, tmp_path)
    assert len([path for path in (tmp_path / "kept" / "frames").iterdir() if path.is_dir()]) == 2


def test_a_sensor_that_files_do_not_tell_is_as_large_as_all_coordinates(root, tmp_path):
    def write(path, i):
        np.savez(path.with_suffix(".npz"), x=np.array([i]), y=np.array([3]), t=np.array([0]), p=np.array([1]))

    assert load(fill(root, write), tmp_path)["test"][0]["x"].shape == (3, 4, N, 2)


def broken(root):
    fill(root)
    (root / "b" / "3.png").write_bytes(b"no picture")


def cut(root):
    fill(root, events)
    content = (root / "b" / "3.npz").read_bytes()
    (root / "b" / "3.npz").write_bytes(content[: len(content) // 2])


def mixed(root):
    fill(root)
    movie(root / "b" / "3", 3)


def stranger(root):
    fill(root)
    (root / "b" / "notes.txt").write_text("mine")


def sizes(root):
    fill(root)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(root / "b" / "3.png")


def shapes(root):
    fill(root, movie)
    np.save(root / "b" / "3.npy", np.zeros((3, 6, 8, 1), np.uint8))


def several(root):
    fill(root, movie)
    np.savez(root / "b" / "3.npz", a=np.zeros(3), b=np.zeros(3))


def words(root):
    fill(root, movie)
    np.save(root / "b" / "3.npy", np.array(["word"]))


def infinite(root):
    fill(root, features)
    np.savez(root / "b" / "3.npz", np.full(5, np.nan))


def pickled(root):
    fill(root, movie)
    np.save(root / "b" / "3.npy", np.array([{}]), allow_pickle=True)


WRONG = {
    lambda root: None: r"data.dir: there is no folder .*mine; name one",
    lambda root: root.mkdir(): r"mine: has 0 class folders; it needs a folder for each class, at least two",
    lambda root: fill(root, classes=("a",)): r"has 1 class folders",
    lambda root: fill(root, parts=("train",)): r"mine: has train but no test",
    lambda root: (fill(root, parts=("train",)), fill(root, classes=("a2", "b"), parts=("test",))): r"test: has no "
    r"folder 'a10', but another part has",
    lambda root: (fill(root), (root / "empty").mkdir()): r"empty: is empty; put files of this class there",
    broken: r"3.png: is no picture, or a damaged one; replace it",
    cut: r"3.npz: cannot be read",
    mixed: r"more than one kind: pictures \(.*0.png\), frames \(.*3.npy\); keep one",
    stranger: r"notes.txt: not a file of a known kind; allowed are .png, .jpg",
    sizes: r"3.png: is 5x5, but .*0.png is 6x8; make them alike, or for pictures give a size",
    shapes: r"3.npy: is 3x6x8x1, but .*0.npy is 2x6x8x1",
    several: r"3.npz: holds a, b; save one array of frames, or events x, y, t, p",
    words: r"3.npy: is <U4 \(1,\); save numbers as",
    infinite: r"3.npz: holds values that are not finite",
    pickled: r"3.npy: cannot be read",
}


@pytest.mark.parametrize("make", WRONG)
def test_what_is_wrong_is_told_in_one_line(make, root, tmp_path):
    make(root)
    with pytest.raises(ConfigError, match=WRONG[make]) as told:
        load(root, tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("make", "left"), [(broken, "b/3.png"), (infinite, "b/3.npz"), (words, "b/3.npy")])
def test_files_that_cannot_be_read_are_left_out_and_told(make, left, root, tmp_path, capsys):
    make(root)
    parts = load(root, tmp_path, bad="skip")
    assert sum(map(len, parts.values())) == 3 * N - 1
    assert f"left out 1 files that cannot be read: {left}" in capsys.readouterr().err


def test_recordings_that_cannot_be_read_are_left_out_and_told(root, tmp_path, capsys):
    fill(root, events)
    np.savez(
        root / "b" / "3.npz", x=np.array([9]), y=np.array([0]), t=np.array([0]), p=np.array([0]), height=6, width=8
    )
    with pytest.raises(ConfigError, match=r"3.npz: event 0 has x = 9, outside of 0 to 7"):
        load(root, tmp_path)
    parts = load(root, tmp_path, bad="skip")
    assert sum(map(len, parts.values())) == 3 * N - 1 and "left out 1 files" in capsys.readouterr().err


def test_reading_all_finds_a_damaged_picture_before_training_does(root, tmp_path, capsys):
    path = fill(root) / "a10" / "7.png"
    line = ["data", "folder", "--data.dir", str(root), "--data.size", "6", "8", "--data-dir", str(tmp_path / "kept")]
    assert cli.main([*line, "--read-all"]) == 0
    assert "folder: train 21, validation 3, test 6 records" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:40])
    assert cli.main(line) == 0
    assert cli.main([*line, "--read-all"]) == 2
    told = capsys.readouterr().err
    assert f"{path}: cannot be decoded" in told and told.count("\n") == 1
