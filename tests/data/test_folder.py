"""Class folders of the user: types of content, splits, order, and errors in one line."""

import functools
import itertools
import os
import pathlib
import pickle
import re
from collections.abc import Callable
from typing import Any

import chex
import numpy as np
import pytest
from PIL import Image

from csbp_jax import configs, data
from csbp_jax.cli import main
from csbp_jax.config import Config, ConfigError, Data, Model
from csbp_jax.data.events import readers
from csbp_jax.data.source import ArraySource
from csbp_jax.data.user import arrays, folder, prediction_inputs
from tests.support import hostile_files
from tests.support.event_formats import nmnist
from tests.support.formats import saved

N = 5


def grey(i):
    return np.full((6, 8), 20 * i, np.uint8)


def picture(path, i):
    Image.fromarray(grey(i)).save(path.with_suffix(".png"))


def photo(path, i, suffix=".jpg"):
    Image.fromarray(np.stack([grey(i)] * 3, -1)).save(path.with_suffix(suffix), quality=95)


def movie(path, i):
    np.save(path.with_suffix(".npy"), np.stack([grey(i), grey(i) + 1, grey(i) + 2])[..., None])


def features(path, i):
    np.savez(path.with_suffix(".npz"), np.linspace(0, i, 5, dtype=np.float32))


def events(path, i):
    x, y = np.arange(i + 2) % 8, np.arange(i + 2) % 6
    np.savez(path.with_suffix(".npz"), x=x, y=y, t=1000 * np.arange(i + 2), p=x % 2, height=6, width=8)


def tonic(path, i):
    """Events as tonic's transforms have them."""
    fields = np.zeros(48, [("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
    fields["x"], fields["y"], fields["t"] = np.arange(48) % 8, np.arange(48) // 8, 1000 * np.arange(48) + i
    np.save(path.with_suffix(".npy"), fields)


def text(path, i):
    lines = [f"{1000 * k + i} {k % 8} {k // 8} {k % 2}" for k in range(48)]
    path.with_suffix(".txt").write_text("\n".join(lines))


PHOTOS = {f"photo{suffix}": functools.partial(photo, suffix=suffix) for suffix in folder.PICTURES[1:]}
CONTENT: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "picture": (picture, (1, 6, 8, 1)),
    **{name: (write, (1, 6, 8, 3)) for name, write in PHOTOS.items()},
    "movie": (movie, (3, 6, 8, 1)),
    "features": (features, (1, 5)),
    **{write.__name__: (write, (3, 6, 8, 2)) for write in (events, tonic, text)},
}


def fill(root, write=picture, classes=("b", "a10", "a2"), splits=("",), n=N):
    """Write n files per class and split."""
    for split, name in itertools.product(splits, classes):
        (root / split / name).mkdir(parents=True)
        for i in range(n):
            write(root / split / name / str(i), i)
    return root


def config(root, **options):
    model = Model(input_shape=(), classes=0, time_steps=3)
    return Config(data=Data(name="folder", dir=str(root), **options), model=model)


def load(root, tmp_path, **options):
    return data.load(config(root, **options), tmp_path / "kept")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "mine"


@pytest.mark.parametrize("name", CONTENT)
def test_types_of_content(name, root, tmp_path):
    write, shape = CONTENT[name]
    splits = load(fill(root, write), tmp_path)
    assert {split: len(source) for split, source in splits.items()} == {"train": 9, "validation": 3, "test": 3}
    for source in splits.values():
        batch = source.take(np.arange(len(source)), np.zeros((len(source), 0), np.float32))
        chex.assert_shape(batch["x"], (len(source), *shape))
        chex.assert_trees_all_equal(np.unique(batch["y"]), np.arange(3))
        assert source.classes == 3 and batch["y"].dtype == np.int32
        assert source.events == (not name.startswith(("picture", "photo")))


def test_shares_of_each_class(root, tmp_path):
    splits = load(fill(root, movie, n=10), tmp_path)
    assert {split: len(source) for split, source in splits.items()} == {"train": 21, "validation": 3, "test": 6}


@pytest.mark.parametrize("write", [picture, movie, events], ids=lambda write: write.__name__)
def test_every_file_is_in_one_split_and_order_is_natural_on_any_file_system(write, root, tmp_path, monkeypatch):
    first = load(fill(root, write), tmp_path)
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda path: map(path.joinpath, sorted(os.listdir(path))[::-1]))
    second = load(root, tmp_path)
    records = []
    for split in first:
        batches = [
            splits[split].take(np.arange(len(splits[split])), np.zeros((len(splits[split]), 0), np.float32))
            for splits in (first, second)
        ]
        chex.assert_trees_all_equal(*batches)
        records += [(y, x.sum()) for x, y in zip(batches[0]["x"], batches[0]["y"], strict=True)]
    assert len(set(records)) == 3 * N
    # a2, a10, b: the label of a file is that of its folder.
    np.testing.assert_array_equal(np.bincount([y for y, _ in records]), [N] * 3)


def test_classes_are_in_natural_order(root, tmp_path):
    fill(root, movie, ("10", "9"))
    np.save(root / "9" / "0.npy", np.full((3, 6, 8, 1), 255, np.uint8))
    splits = load(root, tmp_path)
    records = [source[i] for source in splits.values() for i in range(len(source))]
    assert [record["y"] for record in records if record["x"].min() == 255] == [0]


def test_splits_that_the_user_made(root, tmp_path):
    splits = load(fill(root, splits=("train", "test")), tmp_path, validation=0.2)
    assert [len(source) for source in splits.values()] == [12, 3, 15]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("train", "Validation", "Test")]
)
def test_other_spellings_of_splits(names, root, tmp_path):
    fill(root, splits=names)
    for split, i in zip(names, (1, 2, 3), strict=True):
        Image.fromarray(np.full((6, 8), 250 + i, np.uint8)).save(root / split / "b" / "0.png")
    splits = load(root, tmp_path)
    assert [len(source) for source in splits.values()] == [3 * N] * 3
    assert [max(source[i]["x"].max() for i in range(len(source))) for source in splits.values()] == [251, 252, 253]


def test_the_folder_may_be_the_working_directory(root, tmp_path, monkeypatch):
    monkeypatch.chdir(fill(root))
    assert sum(map(len, load(".", tmp_path).values())) == 3 * N


def test_system_files_and_plain_files_beside_folders_are_ignored(root, tmp_path):
    fill(root)
    for file in ("b/Thumbs.db", "b/.hidden.png", "a2/desktop.ini", "README.txt"):
        (root / file).write_text("x")
    assert sum(map(len, load(root, tmp_path).values())) == 3 * N


def test_any_file_name(root, tmp_path):
    fill(root)
    os.rename(root / "b" / "3.png", os.fsencode(root / "b") + b"/caf\xe9\n.png")
    splits = load(root, tmp_path)
    for source in splits.values():
        source.take(np.arange(len(source)), np.zeros((len(source), 0), np.float32))
    with open(os.fsencode(root / "b") + b"/caf\xe9\n.png", "wb") as file:
        file.write(b"no picture")
    with pytest.raises(ConfigError, match=r"(?s)caf.*: cannot be decoded"):
        data.read_all(splits, lambda *_: None)


def test_pictures_are_resized_and_augmented_and_their_source_pickles(root, tmp_path):
    splits = load(fill(root), tmp_path, size=(4, 5), augment=("resized_crop", "flip", "cutout"))
    for split, source in splits.items():
        batch = next(data.train_batches(pickle.loads(pickle.dumps(source)), 2, 0))
        chex.assert_shape(batch["x"], (2, 1, 4, 5, 1))
        assert (source.num_uniforms > 0) == (split == "train")


def test_pictures_are_grey_if_all_files_are_or_the_network_takes_one_channel(root, tmp_path):
    fill(root)
    assert load(root, tmp_path)["test"][0]["x"].tolist() == grey(2)[None, ..., None].tolist()
    photo(root / "b" / "9", 4)
    three = load(root, tmp_path)["test"]
    assert [record["x"].shape[-1] for record in (three[0], three[2])] == [3, 3]
    one = Config(data=Data(name="folder", dir=str(root)), model=Model(input_shape=(6, 8, 1), classes=0))
    assert data.load(one, tmp_path)["test"][0]["x"].shape == (1, 6, 8, 1)  # a photo without colours
    Image.new("RGB", (8, 6), "red").save(root / "b" / "9.jpg")
    with pytest.raises(ConfigError, match=r"9.jpg: is coloured, but this run was trained on grey pictures"):
        data.read_all(data.load(one, tmp_path), lambda *_: None)


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


def read_to_predict(root, paths, **options):
    """Read files as records for a run on a folder; also whether its records have several lengths."""
    of_run = config(root, **options).replace("model.input_shape", (6, 8, 2))
    read, _, several = prediction_inputs.reader(of_run, paths)
    return [read(path).shape for path in paths], several()


def test_a_recording_to_predict_of_a_run_on_own_lengths_is_a_sequence_even_of_one_frame(root):
    fill(root, events)
    for bins in ("own", "window"):
        shape = {"own": (1, 6, 8, 2), "window": (3, 6, 8, 2)}[bins]
        assert read_to_predict(root, [root / "b" / "0.npz"], bins=bins) == ([shape], bins == "own")


def test_frames_to_predict_are_compared_with_a_file_trained_on_that_can_be_read(root):
    first = fill(root, movie) / "a2" / "0.npy"
    first.write_bytes(first.read_bytes()[:-30])
    assert read_to_predict(root, [root / "b" / "0.npy"], bad="skip") == ([(3, 6, 8, 1)], False)
    np.save(root / "b" / "1.npy", np.zeros((2, 6, 8, 1), np.uint8))
    assert read_to_predict(root, [root / "b" / "1.npy"], bad="skip") == ([(2, 6, 8, 1)], True)


def of_a_preset(name):
    return lambda root, path: prediction_inputs.reader(configs.load(name), [path])[0]


def of_a_folder(root, path):
    return prediction_inputs.reader(config(root).replace("model.input_shape", (6, 8, 1)), [path])[0]


def of_own_data(root, path):
    records = np.zeros((1, 3, 6, 8, 1), np.uint8)
    return arrays.reader(ArraySource(records, np.zeros(1, np.int32), 2))


PROMISED = 2**30
TO_PREDICT: dict[str, tuple[Callable[[pathlib.Path, pathlib.Path], Any], str]] = {
    "picture": (of_a_preset("digits"), f"is 1x{PROMISED}, but this run's pictures with a time axis are 1x8x8x1"),
    "sequence": (of_a_preset("watch"), f"is {PROMISED}, but a step of this run's data is 6"),
    "recording": (of_a_preset("digits_events"), rf"is uint8 \({PROMISED},\); save numpy.savez"),
    "frames": (of_a_folder, f"is 1x{PROMISED}, but .*0.npy, trained on, is 3x6x8x1"),
    "own": (of_own_data, rf"is \(1, {PROMISED}\) with its time steps, but this run's records are \(3, 6, 8, 1\)"),
}


@pytest.mark.parametrize("kind", TO_PREDICT)
def test_an_array_of_another_shape_is_refused_by_its_header(kind, root, tmp_path):
    """Its data are not there: whoever reads them gets another error, and would allocate 1 GiB first."""
    fill(root, movie)
    make_reader, message = TO_PREDICT[kind]
    path = tmp_path / "promised.npy"
    path.write_bytes(hostile_files.npz_bomb(PROMISED, 1_000_000))
    with pytest.raises(ConfigError, match=f"promised.npy: {message}"):
        make_reader(root, path)(path)


@pytest.mark.parametrize("member, message", [
    ("height", r"height is uint8 \(1073741824,\); save one whole number"),
    ("t", "holds 1,073,741,824 events; allowed are 268,435,456; divide it"),
])  # fmt: skip
def test_an_array_of_events_that_is_too_large_is_refused_by_its_header(member, message, tmp_path):
    of_camera = {"width": 8} if member == "height" else {}
    path = tmp_path / "promised.npz"
    path.write_bytes(hostile_files.npz_bomb(PROMISED, 1_000_000, member, **of_camera))
    with pytest.raises(ConfigError, match=f"promised.npz: {message}"):
        readers.read_file(path)


def spots(path, *pixels, **more):
    """Events at these pixels (x, y), one per millisecond, in a format that need not state the camera's size."""
    x, y = np.array(pixels).T
    t, p = 1000 * np.arange(len(x)), np.ones(len(x), int)
    if path.suffix == ".bin":
        path.write_bytes(nmnist(x, y, t, p))
    else:
        np.savez(path, x=x, y=y, t=t, p=p, **more)


@pytest.mark.parametrize("ending", [".npz", ".bin"])
@pytest.mark.parametrize("size", [None, (17, 17)])
def test_coordinates_are_those_of_the_camera(ending, size, root, tmp_path):
    """Files that do not state their camera's size share one, whatever area of it their events cover."""
    corner = [33, 20, 7, 3]
    write = lambda path, i: spots(path.with_suffix(ending), (5, 4), (corner[i % 4], 6))  # noqa: E731
    splits = load(fill(root, write), tmp_path, size=size)
    height, width = size or (7, 34)
    expected = {((4 * height // 7, 5 * width // 34), (6 * height // 7, c * width // 34)) for c in corner}
    actual = {
        tuple(map(tuple, np.argwhere(source[i]["x"].sum((0, 3))).tolist()))
        for source in splits.values()
        for i in range(len(source))
    }
    assert actual == expected
    chex.assert_shape(splits["test"][0]["x"], (3, height, width, 2))


def test_the_size_that_one_file_states_holds_for_all(root, tmp_path):
    def write(path, i):
        spots(path.with_suffix(".npz"), (5, 4), **({"height": 9, "width": 12} if i == 3 else {}))

    splits = load(fill(root, write), tmp_path)
    assert {(*np.argwhere(source[0]["x"].sum(0))[0], *source[0]["x"].shape) for source in splits.values()} == {
        (4, 5, 1, 3, 9, 12, 2)
    }


def test_the_window_is_in_the_frames_key(root, tmp_path):
    write = lambda path, i: spots(path.with_suffix(".npz"), (0, 0), (1, 1), (2, 2))  # noqa: E731
    fill(root, write)
    counts = [
        load(root, tmp_path, bins="window", window=w)["test"][0]["x"].sum((1, 2, 3)).tolist() for w in (1000, 9000)
    ]
    assert counts == [[1, 1, 1], [3, 0, 0]]


def test_the_fingerprint_changes_with_a_files_modification_time(root, tmp_path):
    fill(root, events)
    before = data.fingerprint(config(root), tmp_path)
    path = root / "b" / "3.npz"
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert data.fingerprint(config(root), tmp_path) != before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data.fingerprint(config(root), tmp_path) == before
    picture(root / "a2" / "99", 3)
    assert data.fingerprint(config(root), tmp_path) != before


def test_spikes_of_four_channels_are_no_list_of_events(root, tmp_path):
    spikes = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]], np.uint8)
    fill(root, lambda path, i: np.save(path, spikes))
    np.testing.assert_array_equal(load(root, tmp_path)["test"][0]["x"], spikes)


NO_FILES: dict[str, Callable[[pathlib.Path], Any]] = {
    "b/x.png": lambda path: path.symlink_to("nowhere.png"),
    "b/y.png": os.mkfifo,
    "b/notes.txt": lambda path: path.write_text("mine"),
    "c": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("left", NO_FILES)
def test_what_is_not_a_file_of_a_supported_format_is_left_out_and_listed(left, root, tmp_path, capsys):
    NO_FILES[left](fill(root) / left)
    with pytest.raises(ConfigError, match=r"\(or leave such records out: --data.bad skip\)"):
        load(root, tmp_path)
    splits = load(root, tmp_path, bad="skip")
    assert sum(map(len, splits.values())) == 3 * N
    err = capsys.readouterr().err
    assert err.count("left out") == 1 and re.search(rf"left out 1 file that cannot be read: (.*/)?{left}$", err.strip())
    assert data.fingerprint(Config(data=Data(name="folder", dir=str(root), bad="skip")), tmp_path)


PACKED = saved(np.savez_compressed, np.arange(1000.0))
UNREADABLE = {
    picture: hostile_files.PICTURES | {"text.png": (b"no picture", "cannot be decoded")},
    features: hostile_files.ARRAYS
    | {
        "nan.npz": (saved(np.savez, np.full(5, np.nan)), "holds values that are not finite in float32"),
        "packed.npz": (PACKED[:100] + bytes(100) + PACKED[200:], "cannot be read"),  # within the compressed bytes
        "word.npy": (saved(np.save, np.array(["word"])), r"is <U4 \(1,\); save numbers"),
    },
    events: hostile_files.EVENTS
    | {
        "cut.npz": (hostile_files.EVENTS["sides.npz"][0][:500], "not a zip file"),
        "far.npz": (  # its coordinates make the camera too large
            saved(np.savez, x=[8191], y=[8191], t=[0], p=[0]),
            "3 frames of 8192x8192x2 are more than 268,435,456 counts; set",
        ),
    },
}


@pytest.mark.parametrize(("write", "name"), [(write, name) for write, files in UNREADABLE.items() for name in files])
def test_files_that_cannot_be_read_are_refused_or_left_out(write, name, root, tmp_path, capsys):
    fill(root, write)
    content, message = UNREADABLE[write][name]
    (root / "b" / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"b/{name}.*{message}") as error:
        load(root, tmp_path)
    assert "\n" not in str(error.value)
    splits = load(root, tmp_path, bad="skip")
    assert sum(map(len, splits.values())) == 3 * N
    assert f"left out 1 file that cannot be read: b/{name}" in capsys.readouterr().err
    assert splits["train"][0]["x"].size < 1000


@pytest.mark.parametrize("write", [picture, features, events], ids=lambda write: write.__name__)
@pytest.mark.parametrize("count", [1, 2, 10, 12])
def test_all_files_that_cannot_be_used_are_named_at_once(count, write, root, tmp_path):
    """Up to ten of them; also those of another format, which are found before any is opened."""
    fill(root, write, n=12)
    suffix = next((root / "b").iterdir()).suffix
    bad = [root / "a2" / "notes.doc", *(root / "b" / f"{i}{suffix}" for i in range(count - 1))]
    for path in bad:
        path.write_bytes(b"x")
    with pytest.raises(ConfigError) as error:
        load(root, tmp_path)
    text = str(error.value)
    assert text.startswith(f"{bad[0]}: unsupported file format .doc; allowed are ")
    assert text.endswith(" (or leave such records out: --data.bad skip)") and "fetch it again" not in text
    assert [path.name for path in bad[1:] if f"b/{path.name}" in text] == [path.name for path in bad[1:10]]
    others = {1: "", 2: "; nor can 1 other be used: ", 10: "; nor can 9 others be used: "}
    assert others.get(count, "; nor can 11 others be used: ") in text
    assert (f"b/8{suffix} and 2 more (or" in text) == (count == 12)


@pytest.mark.parametrize("write", [picture, features, events], ids=lambda write: write.__name__)
def test_no_readable_file(write, root, tmp_path):
    for path in fill(root, write, splits=("train", "test")).glob("test/*/*"):
        path.write_bytes(b"x")
    with pytest.raises(ConfigError, match="test: none of 15 "):
        load(root, tmp_path, bad="skip")
    for path in root.glob("train/*/*"):
        path.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"(train|data.dir|test): none of (12|30|15) ") as error:
        load(root, tmp_path, bad="skip")
    assert "\n" not in str(error.value)


def test_labels_of_frames_counted_before_are_those_of_the_present_classes(root, tmp_path):
    fill(root, events, classes=("a", "c"))
    for labels in ({0, 1}, {0, 2}):
        train = load(root, tmp_path, bad="skip")["train"]
        assert {int(train[i]["y"]) for i in range(len(train))} == labels
        (root / "b").mkdir(exist_ok=True)
        (root / "b" / "x.raw").write_bytes(b"x")
    assert len(list((tmp_path / "kept" / "frames").glob("mine-*/"))) == 1


def test_reading_all_finds_a_damaged_picture_before_training_does(root, tmp_path, capsys, refused):
    path = fill(root) / "a10" / "3.png"
    line = ["data", "folder", "--data.dir", str(root), "--data.size", "6", "8", "--data-dir", str(tmp_path / "kept")]
    assert main.main([*line, "--read-all"]) == 0
    assert "folder: train 9, validation 3, test 3 records" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-30])
    assert main.main(line) == 0
    problem = refused(*line, "--read-all")
    assert f"{path}: cannot be decoded" in problem
    assert problem.endswith("; replace it (or leave such records out: --data.bad skip)\n")
