"""Event data sets, from archives in their original formats to batches, and all kinds of damage to them."""

import contextlib
import functools
import json
import os
import pickle
import random
import re
import sys
import urllib.error
import urllib.request
from importlib import resources
from typing import Any

import chex
import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tonic.datasets
import tonic.io

from csbp_jax.config import Config, ConfigError, Data, Model
from csbp_jax.data.download.fetch import digest
from csbp_jax.data.events import archives, preparation, readers, recordings, sources
from csbp_jax.data.events.readers import Events, read_file, sort_by_time
from csbp_jax.data.images.preparation import _raw_files
from csbp_jax.data.images.records import TFDS
from csbp_jax.data.splits import stratified
from tests.support.event_formats import aedat, aedat4, gesture, nmnist, recording, shd, tarred, trees, zipped
from tests.support.formats import quiet
from tests.support.full_disk import full_disk
from tests.support.server import serving

URLOPEN = urllib.request.urlopen
NAMES = ["nmnist", "ncaltech101", "dvs_gesture", "cifar10_dvs", "cifar10_dvs_aedat", "shd", "ssc", "fsdd"]
SOUND = {"shd": 700, "ssc": 700, "fsdd": 64}
OF_TONIC = [name for name in NAMES if name not in ("cifar10_dvs_aedat", "fsdd")]


def config(name, T=3, **data):
    return Config(data=Data(name=name.removesuffix("_aedat"), **{"validation": 0.2} | data), model=Model(time_steps=T))


def prepare(name, originals, folder, **options):
    settings: dict[str, Any] = {"verify": False, "show": quiet} | options
    preparation.prepare(name.removesuffix("_aedat"), originals, folder, **settings)
    marker = preparation.prepared(name.removesuffix("_aedat"), folder)
    return marker["records"] | ({"skipped": len(marker["skipped"])} if marker["skipped"] else {})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """name -> (recordings written, directory of raw files, directory of prepared data), made at first use."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        truth = trees(name, folder / "originals")
        counts = prepare(name, folder / "originals", folder / "data")
        assert counts == {part: len(files) for part, files in truth.items()}
        return truth, folder / "originals", folder / "data"

    return make


@pytest.fixture
def small(tmp_path):
    """A prepared N-MNIST that the test may damage."""
    trees("nmnist", tmp_path / "originals")
    prepare("nmnist", tmp_path / "originals", tmp_path)
    return tmp_path


def natural(files):
    return sorted(files, key=recordings.natural_key)


def counted(shape, *index):
    """Frames of events by their definition."""
    frames = np.zeros(shape, int)
    np.add.at(frames, index, 1)
    return frames


def rows(source):
    """The records as bytes, to compare sources whatever their order."""
    return [source[i]["x"].tobytes() for i in range(len(source))]


@pytest.mark.parametrize("name", NAMES)
def test_frames_count_the_events_that_were_written(made, name):
    truth, _, folder = made(name)
    shape = recordings.DATA_SETS[name.removesuffix("_aedat")].shape
    parts = sources.load(config(name), folder)
    expected = {}
    for files in truth.values():
        for label, (x, y, _, p) in files.values():
            frame = np.minimum(np.arange(len(x)) // (len(x) // 3), 2)
            expected[counted((3, *shape), frame, y, x, p).astype(np.uint8).tobytes()] = label
    shown: dict[bytes, int] = {}
    for source in parts.values():
        batch = source.take(np.arange(len(source)), np.zeros((len(source), 0), np.float32))
        chex.assert_shape(batch["x"], (len(source), 3, *((SOUND[name],) if name in SOUND else shape)))
        assert batch["x"].dtype == np.uint8 and batch["y"].dtype == np.int32 and type(batch["x"]) is np.ndarray
        shown |= dict(zip(map(bytes, batch["x"]), batch["y"].tolist(), strict=True))
    assert shown == expected
    assert sum(map(len, parts.values())) == sum(map(len, truth.values()))
    assert not set(rows(parts["train"])) & {*rows(parts["validation"]), *rows(parts["test"])}


@pytest.mark.full
@pytest.mark.parametrize("name", OF_TONIC)
def test_tonic_reads_the_same_tree_without_a_network(made, name, monkeypatch):
    _, _, folder = made(name)
    form = recordings.DATA_SETS[name]
    enough = lambda *arguments: True  # noqa: E731  tonic counts files to guess whether it has to unpack
    monkeypatch.setattr(tonic.dataset.Dataset, "_folder_contains_at_least_n_files_of_type", enough)
    by_tonic = {}
    options_of: dict[int, list[dict[str, Any]]] = {
        1: [{}],
        2: [{"train": True}, {"train": False}],
        3: [{"split": s} for s in ("train", "valid", "test")],
    }
    for options in options_of[len(form.splits)]:
        data = getattr(tonic.datasets, form.folder)(folder, **options)
        for i in range(len(data)):
            events, label = data[i]
            path = os.path.relpath(data.data[i], folder / form.folder) if data.data else f"{data.data_filename}/{i}"
            by_tonic[path] = (form.classes.index(label) if name == "ncaltech101" else int(label)), events
    ours = [member for members in recordings.index(name, folder).values() for member in members]
    assert len(ours) == len(by_tonic)
    for member in ours:
        events, (label, same) = recordings.read(name, member), by_tonic[member.id]
        assert member.label == label
        np.testing.assert_array_equal(events.x, same["x"])
        np.testing.assert_array_equal(events.t - events.t[0], (same["t"] - same["t"][0]).astype(int))
        if name not in SOUND:
            np.testing.assert_array_equal(events.y, same["y"])
            np.testing.assert_array_equal(events.p, same["p"])


@pytest.mark.parametrize("name", NAMES)
def test_order_does_not_depend_on_the_file_system(made, name, monkeypatch):
    truth, _, folder = made(name)
    walk, shuffle = os.walk, random.Random(0).shuffle

    def shuffled(*arguments, **options):
        for path, folders, files in walk(*arguments, **options):
            shuffle(folders)
            shuffle(files)
            yield path, folders, files

    monkeypatch.setattr(os, "walk", shuffled)
    for _ in range(2):
        splits = recordings.index(name.removesuffix("_aedat"), folder)
        for part, files in truth.items():
            assert [member.id for member in splits[part]] == natural(files)
            assert [member.label for member in splits[part]] == [files[file][0] for file in natural(files)]


def test_natural_order():
    order = ["B_3", "a_1", "a_9", "a_010", "a_10", "a_10_1", "a_010_2", "a_10_2", "b"]
    for seed in range(20):
        assert natural(random.Random(seed).sample(order, len(order))) == order


@pytest.mark.parametrize("split", ["last", "first"])
def test_splits_of_cifar10_dvs_are_those_of_the_manifest(tmp_path, monkeypatch, split):
    numbers, root = np.random.default_rng(0).permutation(1000), tmp_path / "CIFAR10DVS"
    tree: list[tuple[str, list[str], list[str]]]
    tree = [(str(root / c), [], [f"cifar10_{c}_{number}.aedat4" for number in numbers]) for c in recordings.CIFAR10]
    monkeypatch.setattr(os, "walk", lambda path: tree)  # 10,000 files would take seconds to create
    members = recordings.index("cifar10_dvs", tmp_path)["all"]
    y = np.array([member.label for member in members])
    rest, test = sources.split_off_test("cifar10_dvs", y, split)
    train, validation = stratified(y[rest], Data().validation)
    manifest = json.loads(resources.files("csbp_jax.data").joinpath("manifests/cifar10_dvs_splits.json").read_text())
    for name, indices in {"test": test, "validation": rest[validation]}.items():
        for label in recordings.CIFAR10:
            ids = [members[i].id for i in indices if members[i].id.startswith(label)]
            assert ids == [f"{label}/cifar10_{label}_{number}.aedat4" for number in manifest[split][name]]
    assert sorted([*rest[train], *rest[validation], *test]) == list(range(10_000))


@pytest.mark.parametrize("split, number", [("last", 100), ("first", 1)])
def test_cifar10_dvs_takes_its_test_split_from_the_named_end(made, split, number):
    truth, _, folder = made("cifar10_dvs_aedat")
    test: Any = sources.load(config("cifar10_dvs", split=split), folder)["test"]
    expected = [truth["all"][f"{c}/cifar10_{c}_{number}.aedat"][1] for c in recordings.CIFAR10]
    assert test.y.tolist() == list(range(10))
    for i, (x, y, _, p) in enumerate(expected):
        np.testing.assert_array_equal(test[i]["x"].sum(0), counted((128, 128, 2), y, x, p))


@pytest.mark.parametrize("bins, T", [("time", 4), ("window", 4), ("number", 1)])
@pytest.mark.parametrize("size, resize, shape", [
    (None, "events", (34, 34)), ((17, 12), "events", (17, 12)), ((17, 12), "nearest", (34, 34))  # resized later
])  # fmt: skip
def test_bins_and_sizes_reach_the_frames(made, bins, T, size, resize, shape):
    truth, _, folder = made("nmnist")
    settings = config("nmnist", T, bins=bins, window=60_000, size=size, resize=resize)
    source, (height, width) = sources.load(settings, folder)["test"], shape
    for i, file in enumerate(natural(truth["test"])):
        x, y, t, p = truth["test"][file][1]
        since, span = t - t[0], t[-1] - t[0] + 1
        frame = {"time": since * T // span, "window": np.minimum(since // 60_000, T - 1), "number": 0 * t}[bins]
        expected = counted((T, height, width, 2), frame, y * height // 34, x * width // 34, p)
        np.testing.assert_array_equal(source[i]["x"], expected)


def test_sources_pickle_small_and_unopened(made):
    source = sources.load(config("nmnist"), made("nmnist")[2])["train"]
    before = source[3]
    data = pickle.dumps(source)
    assert len(data) < 3000
    chex.assert_trees_all_equal(pickle.loads(data)[3], before)


# Preparing.


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cifar10_dvs_aedat"])
def test_missing_archives_are_all_named(tmp_path, name):
    with pytest.raises(ConfigError) as error:
        prepare(name, tmp_path, tmp_path / "data")
    for archive in archives.expected(name):
        assert archive.name in str(error.value) and archive.url in str(error.value)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_package_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(ConfigError, match=r"^nmnist: needs the package tonic; pip install 'csbp_jax\[events\]'$"):
        archives.expected("nmnist")


def test_every_download_is_by_https_from_an_address_that_serves_programs():
    events = [archive for name in recordings.DATA_SETS for archive in archives.expected(name)]
    images = [
        file
        for name, builder in TFDS.items()
        for file in _raw_files(name, tfds.builder(builder) if name != "imagenet" else None)
    ]
    assert all(file.url.startswith("https://") for file in (*events, *images))
    assert all(file.size and file.checksum.startswith("sha256:") for file in images if file.download)
    figshare = [file.url for file in events if "figshare" in file.url]  # the address that serves programs
    assert len(figshare) == 3 and all(url.startswith("https://ndownloader.figshare.com/files/") for url in figshare)


@pytest.fixture
def server(made, monkeypatch):
    """N-MNIST's archives, served under tonic's names for them."""
    _, originals, _ = made("nmnist")
    monkeypatch.setattr(urllib.request, "urlopen", URLOPEN)
    with serving({file: (originals / file).read_bytes() for file in ("Train.zip", "Test.zip")}) as handler:
        for split, file in (("train", "Train.zip"), ("test", "Test.zip")):
            monkeypatch.setattr(tonic.datasets.NMNIST, f"{split}_url", f"{handler.url}/{file}")
            monkeypatch.setattr(tonic.datasets.NMNIST, f"{split}_md5", digest(originals / file, "md5", quiet))
        yield handler


def test_a_download(server, tmp_path, monkeypatch, capfd):
    assert prepare("nmnist", None, tmp_path) == {"train": 15, "test": 15}
    assert not (tmp_path / "NMNIST" / ".download").exists()
    monkeypatch.setattr(tonic.datasets.NMNIST, "train_md5", "0" * 32)
    with pytest.raises(ConfigError, match=r"train.zip.part: its md5 is .*; fetch it again from .*/Train.zip"):
        prepare("nmnist", None, tmp_path / "other", verify=True)
    assert list((tmp_path / "other" / "NMNIST" / ".download").iterdir()) == []
    assert prepare("nmnist", None, tmp_path / "other") == {"train": 15, "test": 15}  # as the message says, --no-verify
    assert capfd.readouterr() == ("", "")  # libraries print no progress bar of their own


def test_archives_downloaded_before_an_interruption_are_reused(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "extract", None)
        with pytest.raises(TypeError):
            prepare("nmnist", None, tmp_path)
    assert prepare("nmnist", None, tmp_path) == {"train": 15, "test": 15} and len(server.requested) == 2


@pytest.mark.parametrize("location, reached", [(".", True), ("any", True), ("any/deeper", False), (".hidden", False)])
def test_how_deep_archives_are_searched(made, tmp_path, location, reached):
    _, originals, _ = made("nmnist")
    (tmp_path / "originals" / location).mkdir(parents=True)
    missing = pytest.raises(ConfigError, match=r"missing in .*: train.zip")
    for file in ("Train.zip", "Test.zip"):
        (tmp_path / "originals" / location / file.upper()).write_bytes((originals / file).read_bytes())
    with contextlib.nullcontext() if reached else missing:
        assert prepare("nmnist", tmp_path / "originals", tmp_path / "data") == {"train": 15, "test": 15}


def test_other_archives_have_other_frames_and_another_fingerprint(small):
    """The cache of the frames depends on the archives, not only on the options."""
    before, fingerprint = (
        sources.load(config("nmnist"), small)["train"][0]["x"],
        sources.fingerprint(config("nmnist"), small),
    )
    assert fingerprint == sources.fingerprint(config("nmnist", T=7), small)
    content = {f"Train/{digit}/{number:05d}.bin": nmnist(*recording(number)) for digit in (0, 3) for number in range(9)}
    (small / "originals" / "Train.zip").write_bytes(zipped(content))
    prepare("nmnist", small / "originals", small)
    after = sources.load(config("nmnist"), small)["train"]
    assert len(after) + len(sources.load(config("nmnist"), small)["validation"]) == 18
    assert not np.array_equal(before, after[0]["x"]) and sources.fingerprint(config("nmnist"), small) != fingerprint


@pytest.mark.parametrize("size, limit", [(10, 1 << 30), (1 << 25, 50 << 25)])
def test_no_archive_unpacks_to_more_than_fifty_times_its_size(tmp_path, size, limit):
    with open(tmp_path / "a.zip", "wb") as file:
        file.truncate(size)
    assert preparation._limit(tmp_path / "a.zip") == limit


def test_inner_archives_share_one_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_limit", lambda path: 100_000)
    inner = zipped({"Caltech101/a": bytes(60_000)})
    (tmp_path / "a.zip").write_bytes(zipped({f"{number}/Caltech101.zip": inner for number in range(2)}))
    with pytest.raises(ConfigError, match=r"Caltech101.zip: has more than 40,000 bytes when unpacked"):
        preparation._unpack(tmp_path / "a.zip", tmp_path / "t")


def test_checksums_are_those_of_tonic(made, tmp_path, monkeypatch):
    truth, originals, _ = made("nmnist")
    with pytest.raises(
        ConfigError,
        match=r"Train.zip: its md5 is .*, that of the published file 20959b8e.*; fetch it again.*--no-verify",
    ):
        prepare("nmnist", originals, tmp_path, verify=True)
    assert not (tmp_path / "NMNIST" / "prepared.json").exists()
    for split, file in (("train", "Train.zip"), ("test", "Test.zip")):
        monkeypatch.setattr(tonic.datasets.NMNIST, f"{split}_md5", digest(originals / file, "md5", quiet))
    with pytest.raises(
        ConfigError, match=r"holds {'train': 15, 'test': 15} recordings, but nmnist has {'train': 60000.*--no-verify"
    ):
        prepare("nmnist", originals, tmp_path, verify=True)
    form = recordings.DATA_SETS["nmnist"]._replace(num_records={part: len(files) for part, files in truth.items()})
    monkeypatch.setitem(recordings.DATA_SETS, "nmnist", form)
    assert prepare("nmnist", originals, tmp_path, verify=True) == {"train": 15, "test": 15}
    assert prepare("nmnist", None, tmp_path, verify=True) == {"train": 15, "test": 15}


def test_preparation_is_repeated_only_for_what_changed(small):
    file = small / "NMNIST" / "Train" / "0" / "00001.bin"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    assert prepare("nmnist", small / "originals", small) == {"train": 15, "test": 15}
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    file.unlink()
    assert prepare("nmnist", small / "originals", small) == {"train": 15, "test": 15} and file.exists()
    (small / "originals" / "Train.zip").write_bytes(zipped({"Train/7/00001.bin": nmnist(*recording(0))}))
    assert prepare("nmnist", small / "originals", small) == {"train": 1, "test": 15} and not file.exists()


def test_an_incomplete_copy_of_the_recordings_does_not_train(small):
    """It would have fewer, divided otherwise, and the same fingerprint."""
    file = small / "NMNIST" / "Train" / "0" / "00001.bin"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(
        ConfigError, match=r"holds {'train': 14, 'test': 15} of the recordings .*; run csbp_jax data nmn"
    ):
        sources.load(config("nmnist"), small)
    file.write_bytes(content)
    assert sum(map(len, sources.load(config("nmnist"), small).values())) == 30


@pytest.mark.parametrize("content", ["", "{}", "[1]", "3", '{"verified": true}', '{"archives": 1, "verified": true}'])
def test_a_damaged_marker_does_not_look_prepared(small, content):
    (small / "NMNIST" / "prepared.json").write_text(content)
    with pytest.raises(ConfigError, match="not prepared"):
        sources.load(config("nmnist"), small)
    assert prepare("nmnist", small / "originals", small) == {"train": 15, "test": 15}


def test_a_prepared_data_set_does_not_need_its_archives(small):
    for file in ("train.zip", "test.zip"):
        (small / "NMNIST" / file).unlink()
    assert prepare("nmnist", None, small) == {"train": 15, "test": 15}
    with pytest.raises(ConfigError, match="cannot be downloaded"):
        prepare("nmnist", None, small, verify=True)


@pytest.mark.parametrize("prepared_before", [False, True])
def test_an_interrupted_preparation_does_not_look_prepared(tmp_path, prepared_before):
    trees("nmnist", tmp_path / "originals")
    if prepared_before:
        prepare("nmnist", tmp_path / "originals", tmp_path)
        (tmp_path / "originals" / "Train.zip").write_bytes(zipped({"Train/7/00001.bin": nmnist(*recording(0))}))

    def stop(stage, done, total):
        if (stage, done) == ("unpack nmnist", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("nmnist", tmp_path / "originals", tmp_path, show=stop)
    with pytest.raises(ConfigError, match="not prepared"):
        sources.load(config("nmnist"), tmp_path)
    counts = prepare("nmnist", tmp_path / "originals", tmp_path)
    assert counts == {"train": 1 if prepared_before else 15, "test": 15}
    assert {path.name for path in (tmp_path / "NMNIST").iterdir()} == {
        ".lock", "Train", "Test", "train.zip", "test.zip", "prepared.json"
    }  # fmt: skip


@pytest.mark.parametrize("written", ["archives", "frames"])
def test_a_full_disk(small, tmp_path, written):
    (small / "originals" / "Train.zip").write_bytes(zipped({"Train/7/00001.bin": bytes(10_000)}))
    message = r"/(.unpacking|nmnist-.*partial): cannot be written \(.*File too large"
    with full_disk(6000), pytest.raises(ConfigError, match=message):
        if written == "archives":
            prepare("nmnist", small / "originals", small)
        else:
            sources.load(config("nmnist"), small)
    assert not list(small.rglob("*partial")) and not list(small.rglob(".unpacking"))


def test_an_archive_without_its_splits_is_refused(tmp_path):
    for file in ("Train.zip", "Test.zip"):
        (tmp_path / file).write_bytes(zipped({"Else/0/1.bin": b"x"}))
    with pytest.raises(ConfigError, match=r"holds no Train, Test; fetch the original$"):
        prepare("nmnist", tmp_path, tmp_path / "data")
    assert not list(tmp_path.rglob("prepared.json")) and not list(tmp_path.rglob("Else"))


# Unreadable recordings.


def changed(**fields):
    """A recording whose first event has other fields."""
    arrays = dict(zip("xytp", recording(0), strict=True))
    for field, value in fields.items():
        arrays[field][0] = value
    return arrays.values()


BAD = [
    (lambda: nmnist(*recording(0))[:-2], "cannot be read"),
    (lambda: b"", "holds no events"),
    (lambda: nmnist(*(array[:0] for array in recording(0))), "holds no events"),
    (lambda: nmnist(*changed(x=34)), "event 0 has x = 34, outside of 0 to 33"),
    (lambda: nmnist(*changed(y=77)), "event 0 has y = 77, outside of 0 to 33"),
    (lambda: nmnist(*changed(t=299_999)), "timestamps decrease at event 1, from 299999 to"),
]


@pytest.mark.parametrize("content, message", BAD)
def test_unreadable_recordings_are_reported_or_left_out(small, capsys, content, message):
    file = small / "NMNIST" / "Train" / "3" / "00010.bin"
    before = sources.load(config("nmnist", T=2), small)
    file.write_bytes(content())
    with pytest.raises(
        ConfigError, match=rf"{re.escape(str(file))}: {message}.* leave such records out: --data.bad skip"
    ):
        sources.load(config("nmnist"), small)
    after = sources.load(config("nmnist", bad="skip"), small)
    assert "nmnist: 1 recordings left out; " in capsys.readouterr().err
    cache = next((small / "frames").glob("nmnist-T3-*/frames.json"))
    assert list(json.loads(cache.read_text())["skipped"]) == ["Train/3/00010.bin"]
    assert sum(map(len, after.values())) == sum(map(len, before.values())) - 1
    for split, source in after.items():  # no other recording moves to another split
        totals = [before[split][i]["x"].sum(0).tobytes() for i in range(len(before[split]))]
        assert {source[i]["x"].sum(0).tobytes() for i in range(len(source))} <= set(totals)
    with pytest.raises(ConfigError, match=r"00010.bin: .* \(one of 1 left out of .*; repair them and remove"):
        sources.load(config("nmnist"), small)


def test_decreasing_timestamps_in_verified_archives_are_sorted_and_reported(small, capsys):
    member = "NMNIST/Train/3/00010.bin"
    x, y, t, p = recording(5)
    order = np.random.default_rng(0).permutation(len(t))
    (small / member).write_bytes(nmnist(*(array[order] for array in (x, y, t, p))))
    with pytest.raises(ConfigError, match=r"00010.bin: timestamps decrease at event"):
        sources.load(config("nmnist"), small)
    marker = small / "NMNIST" / "prepared.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"verified": True}))
    splits = sources.load(config("nmnist", bins="time"), small)
    assert "nmnist: timestamps decrease in 1 recordings, which were sorted by time\n" in capsys.readouterr().err
    expected = counted((3, 34, 34, 2), (t - t[0]) * 3 // (t[-1] - t[0] + 1), y, x, p)
    assert expected.astype(np.uint8).tobytes() in [row for source in splits.values() for row in rows(source)]
    assert sum(map(len, splits.values())) == 30
    sources.load(config("nmnist", bins="time"), small)
    assert "timestamps decrease" not in capsys.readouterr().err


def test_events_with_equal_timestamps_keep_their_order():
    """Otherwise frames would depend on numpy's sorting algorithm."""
    x = np.random.default_rng(0).permutation(700)
    t = np.repeat([3, 1, 2, 0], 175)
    ordered = sort_by_time(Events(x, 0 * x, t, 0 * x, (1, 700)))
    np.testing.assert_array_equal(ordered.x, x.reshape(4, 175)[[3, 1, 2, 0]].ravel())
    assert np.all(np.diff(ordered.t) >= 0)


def test_wrong_labels(small, tmp_path):
    wrong = small / "NMNIST" / "Train" / "12"
    wrong.mkdir()
    (wrong / "00001.bin").write_bytes(nmnist(*recording(0)))
    with pytest.raises(ConfigError, match=r"12/00001.bin: '12' is not a class of nmnist; the classes are 0, 1, 2"):
        sources.load(config("nmnist"), small)
    assert sum(map(len, sources.load(config("nmnist", bad="skip"), small).values())) == 30
    archive = {"ibmGestureTrain/user01_led/11.npy": gesture(*recording(0)), "ibmGestureTrain/user01_led/1.npy": b""}
    (tmp_path / "ibmGestureTrain.tar.gz").write_bytes(tarred(archive))
    (tmp_path / "ibmGestureTest.tar.gz").write_bytes(tarred({"ibmGestureTest/user24_led/0.npy": b""}))
    with pytest.raises(ConfigError, match=r"11.npy: '11' is not a class of dvs_gesture"):
        prepare("dvs_gesture", tmp_path, tmp_path / "data")
    assert prepare("dvs_gesture", tmp_path, tmp_path / "data", bad="skip") == {"train": 1, "test": 1, "skipped": 1}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read"),
        (gesture(*recording(0))[:40], "cannot be read"),
        (gesture(*recording(0)).replace(b"'shape': (", b"'shape': [("), "cannot be read"),
        (gesture(*(np.full(3, np.nan) for _ in range(4))), "cannot be read"),
        (gesture(*recording(0, height=128, width=129)), "event 1 has x = 128, outside of 0 to 127"),
    ],
)
def test_bad_gestures(tmp_path, content, message):
    member = recordings.Recording("0.npy", tmp_path / "0.npy", 0)
    member.path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"0.npy: {message}"):
        recordings.read("dvs_gesture", member)


def test_gestures_whose_milliseconds_have_fractions(tmp_path):
    member = recordings.Recording("0.npy", tmp_path / "0.npy", 0)
    ones = np.ones(4)
    member.path.write_bytes(gesture(ones, ones, np.array([0.25, 0.5, 1.001, 2.0]), ones))
    np.testing.assert_array_equal(recordings.read("dvs_gesture", member).t, [250, 500, 1001, 2000])


def test_spikes_in_any_order_and_bad_ones(tmp_path):
    x, y, t, p = recording(0, 50, 1, 700, 900_000)
    shd(tmp_path / "shd_train.h5", [(x[::-1], y, t[::-1], p), (x + 1, y, t, p), (x[:0], y, t[:0], p)], [0, 1, 2])
    members = [recordings.Recording(f"shd_train.h5/{i}", tmp_path / "shd_train.h5", 0) for i in range(4)]
    spikes = recordings.read("shd", members[0])
    assert np.all(np.diff(spikes.t) >= 0) and sorted(spikes.x) == sorted(x)
    shd(tmp_path / "ties.h5", [(np.arange(700), y, np.repeat([900_000, 0], 350), p)], [0])  # many spikes at one time
    ties = recordings.read("shd", recordings.Recording("ties.h5/0", tmp_path / "ties.h5", 0))
    np.testing.assert_array_equal(ties.x, np.roll(np.arange(700), 350))
    for member, message in zip(members[1:], ("has x = 700, outside", "holds no events", "cannot be read"), strict=True):
        with pytest.raises(ConfigError, match=message):
            recordings.read("shd", member)
    (tmp_path / "SHD").mkdir()
    for part in ("train", "test"):
        shd(tmp_path / "SHD" / f"shd_{part}.h5", [(x, y, t, p)] * 2, [3, 20])
    with pytest.raises(ConfigError, match=r"shd_train.h5: recording 1 has label 20; labels are 0 to 19"):
        recordings.index("shd", tmp_path)
    assert [len(members) for members in recordings.index("shd", tmp_path, {}).values()] == [1, 1]
    (tmp_path / "SHD" / "shd_test.h5").write_bytes((tmp_path / "shd_train.h5").read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"shd_test.h5: cannot be read"):
        recordings.index("shd", tmp_path, {})


# Single files.


def test_files_of_each_format(tmp_path):
    x, y, t, p = recording(0, 300, 100, 128)
    (tmp_path / "a.bin").write_bytes(nmnist(x, y, t, p))
    (tmp_path / "a.aedat").write_bytes(aedat(x, y, t, p))
    aedat4((x, y, t, p), tmp_path / "a.aedat4", height=100)
    np.savez(tmp_path / "a.npz", x=x, y=y, t=t, p=2 * p - 1, height=110, width=130)
    np.savez(tmp_path / "b.npz", x=x.astype(np.uint64), y=y.astype(np.int16), t=t.astype(np.uint32), p=p.astype(bool))
    np.save(tmp_path / "a.npy", np.stack([x, y, t, p], axis=1))
    fields = np.zeros(300, [("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("p", bool)])
    fields["x"], fields["y"], fields["t"], fields["p"] = x, y, t, p
    np.save(tmp_path / "b.NPY", fields)
    (tmp_path / "b.NPY.npy").rename(tmp_path / "b.NPY")
    for name, field in (("a.h5", "{}"), ("b.hdf5", "events/{}")):
        with h5py.File(tmp_path / name, "w") as file:
            for letter, values in zip("xytp", (x, y, t, p), strict=True):
                file.create_dataset(field.format(letter), data=values, chunks=True, compression="gzip")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["events"] = fields
    columns = np.stack([t, x, y, p], axis=1)
    np.savetxt(tmp_path / "a.txt", columns, fmt="%d")
    np.savetxt(tmp_path / "a.csv", columns, fmt="%d", delimiter=",", header="made by hand", comments="% ")
    np.savetxt(tmp_path / "b.csv", columns[:, [3, 1, 2, 0]], fmt="%d", delimiter=" ; ", header="P;x;y;T", comments="")
    np.savetxt(tmp_path / "b.txt", columns / [1e6, 1, 1, 1], fmt=["%.6f", "%d", "%d", "%d"])  # seconds
    np.savetxt(
        tmp_path / "c.csv", columns, fmt="%d", delimiter=",", header="t,x,y,Polarity\n", footer="\n", comments=""
    )
    np.savez(tmp_path / "c.npz", x=x, y=y, t=t, polarity=p)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"], file["y"], file["t"], file["pol"] = x, y, t, p
    # Without polarities, which are then 0.
    no_p = np.zeros(300, [("t", int), ("y", int), ("x", int)])
    no_p["x"], no_p["y"], no_p["t"] = x, y, t
    np.save(tmp_path / "no_p.npy", no_p)
    np.savez(tmp_path / "no_p.npz", x=x, y=y, t=t)
    np.savetxt(tmp_path / "no_p.txt", np.stack([t, x, y], axis=1), fmt="%d")
    with h5py.File(tmp_path / "no_p.h5", "w") as file:
        file["x"], file["y"], file["t"] = x, y, t
    sensors = {"a.aedat": (128, 128), "a.aedat4": (100, 128), "a.npz": (110, 130)}
    for path in tmp_path.iterdir():
        name, sensor = path.name, sensors.get(path.name, ())
        events = read_file(tmp_path / name)
        assert events.sensor == sensor and events.t.dtype == np.int64, name
        first, polarity = t[0] if name == "a.aedat4" else 0, 0 * p if name.startswith("no_p") else p
        for expected, actual in zip((x, y, t - first, polarity), events, strict=False):
            np.testing.assert_array_equal(actual, expected, err_msg=name)


def test_external_signals_in_aedat_are_skipped(tmp_path):
    x, y, t, p = recording(0, 50, 128, 128)
    content = bytearray(aedat(x, y, t, p))
    content[-8 * 10 + 2] |= 0x80
    (tmp_path / "a.aedat").write_bytes(content)
    np.testing.assert_array_equal(read_file(tmp_path / "a.aedat").x, np.delete(x, -10))


def test_nmnist_with_time_overflows_is_read_as_tonic_reads_it(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (3000, 5), np.uint8)
    records[[0, 7, 8, -1], 1] = 240
    (tmp_path / "a.bin").write_bytes(records.tobytes())
    expected = tonic.io.read_mnist_file(tmp_path / "a.bin", np.dtype([(field, int) for field in "xytp"]))
    for field, values in zip("xytp", readers.parse(tmp_path / "a.bin"), strict=False):
        np.testing.assert_array_equal(values, expected[field], err_msg=field)


def test_many_time_overflows_of_nmnist_are_added_at_once_and_in_64_bits(tmp_path):
    """One by one they would take minutes, and 32 bits end after 71 minutes."""
    overflow, event = bytes([0, 240, 0, 0, 0]), bytes([1, 2, 128, 0, 3])
    (tmp_path / "a.bin").write_bytes(overflow * 2**20 + event)
    assert read_file(tmp_path / "a.bin").t.tolist() == [2**33 + 3]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.raw", b"1 2 3", "not a file of events; supported formats are .*; save others by numpy.savez"),
        ("a.txt", b"", "cannot be read .*its first line is ''; write lines t x y p"),
        ("a.txt", b"notes on this\n", "cannot be read .*its first line is 'notes on this'; write lines t x y p"),
        ("a.txt", b"1 2\n", "cannot be read .*its first line is '1 2'; write lines t x y p"),
        ("a.csv", b"1,2,3,1\n2,2,x,1\n", "cannot be read .*could not convert string 'x'"),
        ("a.csv", b"1,2,3,1\n2,2,3\n", "cannot be read .*requires 4 columns but 3 were found"),
        ("a.csv", b"t,x,y,p\n1,2,3\n", "cannot be read .*requires 4 columns but 3 were found"),
        ("a.csv", b"1,2.5,3,1\n", "x has fractions; write lines t x y p"),
        ("a.csv", b"1,2,3,nan\n", "cannot be read .*its first line is '1,2,3,nan'"),
        ("a.csv", b"1,2,3,1\n1e300,2,3,1\n", "cannot be read .*invalid value"),
        ("a.csv", b"1,2,3,1\n2,2,3,inf\n", "cannot be read .*invalid value"),
        ("a.csv", b"t,x,y,p\n", "cannot be read .it holds no events"),
        ("a.txt", b"\xff\xfe\n", "cannot be read .*utf-8"),
        ("a.h5", b"no HDF5", "cannot be read .*file signature not found"),
        ("a.bin", b"1234567", r"cannot be read \(cannot reshape array of size 7 into"),
        ("a.aedat", b"#!AER-DAT3.1\r\n", "not AEDAT 2.0; convert it to .aedat4 or .npz"),
        ("a.aedat", b"#!AER-DAT2.0", "cannot be read"),
        ("a.aedat", b"#!AER-DAT2.0\r\n" + b"\0\x41\2\3\0\0\0\1", "from another camera than a DVS128; convert it"),
        ("a.aedat", aedat(*recording(0, 20, 128, 128))[:-3], "cannot be read"),
        ("a.aedat", aedat(*recording(0, 0 + 2, 128, 128))[:-16], "holds no events"),
        ("a.aedat4", b"", r"cannot be read \(failed to fill whole buffer\); fetch or export it again"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n" + bytes(500), "cannot be read"),
        ("a.npz", b"PK", "cannot be read"),
        ("a.npz", dict.fromkeys("xytp", np.zeros(0)), "holds no events; remove the file"),
        ("a.npz", dict.fromkeys("xytp", np.array(0)), r"x is int64 \(\); expected one integer per event"),
        ("a.npz", dict.fromkeys("xytp", np.zeros((9, 1), int)), r"x is int64 \(9, 1\); expected one integer per event"),
        ("a.npy", b"", "cannot be read"),
        ("a.npy", np.zeros((5, 3), int), "is .*; save numpy.savez"),
        ("a.npy", np.zeros(4), "is .*; save numpy.savez"),
        ("a.npy", np.zeros(5, [("a", int)]), "has no x, y, t; save numpy.savez"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content) if name == "a.npy" else np.savez(tmp_path / name, **content)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path / name))}: {message}"):
        read_file(tmp_path / name)


def test_values_in_another_file_are_not_read(tmp_path):
    """Nor those that a small file only states."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    vast = "x: states 4,000,000,000 bytes, and holds 0; allowed are 4,294,967,296 of all arrays"
    for change, message in (
        (lambda file: file.update(x=h5py.ExternalLink("other.h5", "x")), "x: is in another file"),
        (lambda file: file.update(y=h5py.SoftLink("/t")), "y: is in another file, or has another name in this one"),
        (lambda file: file.create_dataset("x", 3, int, external=[("other.h5", 0, 24)]), "x: its values are in another"),
        (lambda file: file.create_dataset("x", (10**9,), np.int32, chunks=(10**6,)), vast),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["t"] = np.arange(3)
            change(file)
        with pytest.raises(ConfigError, match=f"a.h5: {message}"):
            read_file(tmp_path / "a.h5")


def test_damaged_and_empty_aedat4(tmp_path, capfd):
    content = aedat4(recording(0, 3000, 128, 128), tmp_path / "a.aedat4")
    for damaged in (content[: len(content) // 2], content[:1000] + bytes(500) + content[1500:]):
        (tmp_path / "a.aedat4").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"a.aedat4: cannot be read"):
            read_file(tmp_path / "a.aedat4")
    assert capfd.readouterr().err == ""  # where Rust prints its panic, too
    aedat4([array[:0] for array in recording(0)], tmp_path / "b.aedat4")
    with pytest.raises(ConfigError, match=r"b.aedat4: (holds no events|cannot be read)"):
        read_file(tmp_path / "b.aedat4")


def test_an_aedat4_file_on_which_its_package_ends_the_process_is_one_error(tmp_path, capfd):
    events = recording(0, 50, 128, 128)
    intact = aedat4(events, tmp_path / "a.aedat4")
    # The end tag is no UTF-8, in which the package composes its error message.
    (tmp_path / "b.aedat4").write_bytes(intact.replace(b"</node>\n</dv>", b"</n\xefde>\n</dv>"))
    for _ in range(2):
        message = r"b.aedat4: cannot be read \(the package aedat ended with SIGABRT\); fetch or export it again"
        with pytest.raises(ConfigError, match=message):
            read_file(tmp_path / "b.aedat4")
        np.testing.assert_array_equal(read_file(tmp_path / "a.aedat4").x, events[0])
    assert capfd.readouterr().err == ""


def test_an_interrupted_answer_about_an_aedat4_file_is_not_that_of_the_next(tmp_path, monkeypatch):
    first, second = recording(0, 50, 128, 128), recording(1, 60, 128, 128)
    aedat4(first, tmp_path / "a.aedat4")
    aedat4(second, tmp_path / "b.aedat4")

    def interrupt(line):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csbp_jax.data.events.aedat4.json.loads", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read_file(tmp_path / "a.aedat4")
    np.testing.assert_array_equal(read_file(tmp_path / "b.aedat4").x, second[0])


def test_aedat4_without_events(tmp_path):
    import dv_processing as dv

    writer = dv.io.MonoCameraWriter(str(tmp_path / "a.aedat4"), dv.io.MonoCameraWriter.FrameOnlyConfig("DVS", (8, 8)))
    del writer
    with pytest.raises(ConfigError, match=r"a.aedat4: has no stream of events; export it with its events"):
        read_file(tmp_path / "a.aedat4")


def test_narrow_integers_are_not_widened_without_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_MOST_EVENTS", 1_000)
    zeros = np.zeros(1_001, np.uint8)
    np.savez(tmp_path / "a.npz", x=zeros, y=zeros, t=zeros, p=zeros)
    np.save(tmp_path / "a.npy", np.zeros((1_001, 4), np.uint8))
    (tmp_path / "a.bin").write_bytes(bytes(1_001 * 5))
    (tmp_path / "a.txt").write_bytes(b"0 0 0\n" * 1_001)
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes(1_001 * 8))
    for name in ("a.npz", "a.npy", "a.bin", "a.aedat", "a.txt"):
        with pytest.raises(ConfigError, match=rf"{name}: holds 1,001 events; allowed are 1,000; divide it"):
            read_file(tmp_path / name)
    np.save(tmp_path / "b.npy", np.zeros((1_000, 4), np.uint8))
    assert len(read_file(tmp_path / "b.npy").t) == 1_000


def test_a_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    aedat4(recording(0), tmp_path / "a.aedat4")
    with pytest.raises(ConfigError, match=r"a.aedat4: needs the package aedat; pip install aedat$"):
        read_file(tmp_path / "a.aedat4")
