"""The cache of frames: written once, atomically and by one process; damage is detected."""

import multiprocessing
import os
import pathlib
import time

import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.data.events import frame_cache
from csbp_jax.data.events.recordings import Recording

PARAMETERS = {"name": "x", "shape": (2, 3), "window": None}


def members(skipped):
    sizes = {"train": 7, "test": 4}
    return {split: [Recording(f"{split}/{i}", pathlib.Path(), i % 3) for i in range(n)] for split, n in sizes.items()}


def counts(recording, top=200):
    """Frames [2, 2, 3] that identify the recording."""
    split, number = recording.id.split("/")
    frame = np.full((2, 2, 3), int(number) + 100 * (split == "test"))
    frame[0, 0, 0] = top
    return frame.astype(np.min_scalar_type(top))


def cached(target, count=counts, recordings=members, parameters=PARAMETERS, skip=False):
    return frame_cache.load_or_build(target, parameters, recordings, count, skip=skip, show=lambda *arguments: None)


def source(target, content, split):
    entry = content["parts"][split]
    return frame_cache.CachedFrames(target / f"{split}.npy", np.array(entry["rows"]), np.array(entry["labels"]), 3)


def check(target, content, top=200):
    for split, expected in members(None).items():
        array = source(target, content, split)
        assert len(array) == len(expected)
        for i, recording in enumerate(expected):
            np.testing.assert_array_equal(array[i]["x"], counts(recording, top))
            assert array[i]["y"] == recording.label


def test_written_once(tmp_path):
    target, calls = frame_cache.cache_dir(tmp_path, "x", PARAMETERS), []

    def count(recording):
        calls.append(recording.id)
        return counts(recording)

    first = cached(target, count)
    assert len(calls) == 11 and target.parent == tmp_path / "frames"
    assert cached(target, count) == first and len(calls) == 11
    check(target, first)
    assert {path.name for path in target.iterdir()} == {"train.npy", "test.npy", "frames.json"}
    assert np.load(target / "train.npy").dtype == np.uint8
    assert first["parameters"] == {"name": "x", "shape": [2, 3], "window": None}


def test_other_parameters_have_another_directory(tmp_path):
    targets = {
        frame_cache.cache_dir(tmp_path, "x", PARAMETERS | change)
        for change in ({}, {"shape": (3, 2)}, {"window": 1}, {"name": "y"}, {"more": 0})
    }
    assert len(targets) == 5


@pytest.mark.parametrize("top, dtype", [(255, "uint8"), (256, "uint16"), (65_536, "uint32")])
def test_the_smallest_type_that_holds_all_counts(tmp_path, top, dtype):
    late = lambda recording: counts(recording, top if recording.id == "train/6" else 200)  # noqa: E731
    content = cached(tmp_path / "c", late)
    assert content["parts"]["train"]["dtype"] == dtype and content["parts"]["test"]["dtype"] == "uint8"
    train = source(tmp_path / "c", content, "train")
    assert train[6]["x"].max() == top and train[0]["x"].max() == 200 and train[0]["x"].dtype == dtype


def test_a_count_that_no_type_holds(tmp_path):
    with pytest.raises(ConfigError, match="train: a pixel has more than 4294967295 events in one frame"):
        cached(tmp_path / "c", lambda recording: counts(recording, 2**40))


def faulty(recording):
    if recording.id in ("train/2", "test/3"):
        raise ConfigError(f"{recording.id}: broken")
    return counts(recording)


def test_recordings_left_out(tmp_path):
    problem = r"test/3: broken; nor can 1 other be used: train/2 \(or leave such records out: --data.bad skip\)"
    with pytest.raises(ConfigError, match=problem):
        cached(tmp_path / "c", faulty)
    assert not (tmp_path / "c").exists()
    content = cached(tmp_path / "c", faulty, skip=True)
    assert content["skipped"] == {"train/2": "train/2: broken", "test/3": "test/3: broken"}
    assert content["parts"]["train"]["rows"] == [0, 1, -1, 2, 3, 4, 5]
    assert np.load(tmp_path / "c" / "train.npy").shape == (6, 2, 2, 3)
    with pytest.raises(ConfigError, match=r"train/2: broken \(one of 2 left out of .*/c; repair them and remove"):
        cached(tmp_path / "c", faulty)


DAMAGE = {
    "cut": ("train.npy", lambda content: content[:-1]),
    "empty": ("train.npy", lambda content: b""),
    "a bit": ("test.npy", lambda content: content[:-3] + bytes([content[-3] ^ 4]) + content[-2:]),
    "no JSON": ("frames.json", lambda content: b"{"),
    "no parameters": ("frames.json", lambda content: b"{}"),
    "other parameters": ("frames.json", lambda content: content.replace(b'"window"', b'"windows"')),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_reported_with_its_remedy(tmp_path, kind):
    cached(tmp_path / "c")
    file, change = DAMAGE[kind]
    (tmp_path / "c" / file).write_bytes(change((tmp_path / "c" / file).read_bytes()))
    with pytest.raises(ConfigError, match=rf"remove {tmp_path / 'c'}, and it is made again"):
        cached(tmp_path / "c")
    (tmp_path / "c" / file).unlink()
    with pytest.raises(ConfigError, match=rf"remove {tmp_path / 'c'}, and it is made again"):
        cached(tmp_path / "c")


def slow(recording):
    with open(recording.path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.02)
    return counts(recording)


def stopping(recording):
    """Counts as slowly, up to the ninth recording."""
    frames = slow(recording)
    if len(pathlib.Path(recording.path).read_text().split()) == 9:
        time.sleep(60)  # until it is killed
    return frames


def work(target, log, count):
    def logged(skipped):
        return {split: [member._replace(path=log) for member in listed] for split, listed in members(skipped).items()}

    check(target, cached(target, count, logged))


def start(target, log, count=slow):
    process = multiprocessing.get_context("fork").Process(target=work, args=(target, log, count), daemon=True)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_one_process_writes_and_the_others_wait(tmp_path):
    processes = [start(tmp_path / "frames" / "c", tmp_path / "log") for _ in range(4)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == 11 and len(set(lines)) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_cache_whose_writer_was_killed_is_written_again(tmp_path):
    target, log = tmp_path / "frames" / "c", tmp_path / "log"
    process, deadline = start(target, log, stopping), time.monotonic() + 30
    try:
        while not log.exists() or len(log.read_text().split()) < 9:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    assert not target.exists() and target.with_name("c.partial").exists()
    check(target, cached(target))
    assert {path.name for path in target.parent.iterdir()} == {"c", "c.lock"}
