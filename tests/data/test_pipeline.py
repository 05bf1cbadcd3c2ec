"""The stream of batches: the same for any number of processes, workers and threads, from any step."""

import functools
import itertools
import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import time
import types
from typing import Any

import chex
import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, replaced
from csbp_jax.data import pipeline
from csbp_jax.data.source import UserSource
from csbp_jax.data.user import arrays
from tests.support import processes

SEED, BATCH = 11, 16


class Noisy(data.DataSource):
    """Source whose records are i plus its uniforms, so that any change of order, content or randomness shows."""

    num_uniforms, classes = 3, 7

    def __init__(self, n=103):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        raise NotImplementedError

    def take(self, indices, uniforms):
        x = indices[:, None, None] + uniforms[:, None, :]
        return {"x": x.astype(np.float32), "y": (indices % self.classes).astype(np.int32)}


def stream(n, start_step=0, processes=1, **readers):
    """Return n batches, joined from those of all processes."""
    parts, of = shares(BATCH, processes), data.Readers(**readers)
    streams: list[Any] = [data.train_batches(Noisy(), BATCH, SEED, start_step, rows=rows, readers=of) for rows in parts]
    batches = [joined(parts, step) for step in itertools.islice(zip(*streams, strict=True), n)]
    for stream in streams:
        stream.close()
    return batches


def shares(batch_size, processes):
    """The rows of a batch that each process reads, which are not neighbours."""
    return [np.arange(process, batch_size, processes) for process in range(processes)]


def joined(parts, batches):
    """The batch of which each process has read a part."""
    order = np.argsort(np.concatenate(parts))
    return {key: np.concatenate([batch[key] for batch in batches])[order] for key in batches[0]}


@pytest.fixture(scope="module")
def batches():
    return stream(20)


@pytest.mark.parametrize("start", [0, 1, 5, 6, 13])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_stream_does_not_depend_on_processes_threads_and_start(batches, processes, threads, start):
    chex.assert_trees_all_equal(batches[start:], stream(20 - start, start, processes, threads=threads))


def test_the_stream_does_not_depend_on_workers_which_ignore_signals_to_all(batches):
    before = set(multiprocessing.active_children())
    stream: Any = data.train_batches(Noisy(), BATCH, SEED, 13, readers=data.Readers(1, 2))
    chex.assert_trees_all_equal(batches[13], next(stream))
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    chex.assert_trees_all_equal(batches[14:], list(itertools.islice(stream, 6)))
    assert worker.is_alive()
    stream.close()


def test_a_worker_exits_once_its_reader_has_ended(monkeypatch):
    events = []
    monkeypatch.setattr(os, "_exit", lambda code: events.append(code))
    parent: Any = types.SimpleNamespace(join=lambda: events.append("joined"))
    pipeline._exit_after(parent)
    assert events == ["joined", 1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_stream_with_any_number_of_workers(batches, processes, workers, threads):
    chex.assert_trees_all_equal(batches[5:], stream(15, 5, processes, workers=workers, threads=threads))


def test_every_row_has_random_numbers_of_its_own(batches):
    noise = np.concatenate([np.modf(batch["x"])[0].reshape(BATCH, 3) for batch in batches])
    assert len(np.unique(noise)) > 0.98 * noise.size  # float32 beside whole numbers up to 103: 17 bits are left
    np.testing.assert_allclose(noise.mean(), 0.5, atol=5 * 0.29 / noise.size**0.5)


def test_an_epoch_has_every_record_once_except_the_remainder(batches):
    steps = 103 // BATCH
    for epoch in (batches[:steps], batches[steps : 2 * steps]):
        records = np.concatenate([batch["x"][:, 0, 0] for batch in epoch]).astype(int)
        assert len(np.unique(records)) == steps * BATCH
    assert not np.array_equal(batches[0]["y"], batches[steps]["y"])


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 16, 104, 200])
@pytest.mark.parametrize("readers", [data.Readers(), data.Readers(0, 3), data.Readers(2, 1)])
def test_evaluation_counts_every_record_once_in_equally_many_steps(processes, batch_size, readers):
    parts = shares(batch_size, processes)
    streams = [list(data.eval_batches(Noisy(), batch_size, rows=rows, readers=readers)) for rows in parts]
    assert {len(stream) for stream in streams} == {-(-103 // batch_size)}
    steps = [joined(parts, step) for step in zip(*streams, strict=True)]
    shown = np.concatenate([step["x"][step["mask"]][:, 0, 0] for step in steps])
    np.testing.assert_array_equal(shown, np.arange(103))


def test_an_empty_source_has_no_batches_of_evaluation():
    assert not list(data.eval_batches(Noisy(0), 4))


@pytest.mark.parametrize(
    ("read", "batch_size", "allowed"),
    [
        (functools.partial(data.train_batches, seed=0), 0, "1 to 103"),
        (functools.partial(data.train_batches, seed=0), 104, "1 to 103"),
        (data.eval_batches, 0, "1 and more"),
    ],
)
def test_a_batch_without_records_or_larger_than_the_source_is_refused(read, batch_size, allowed):
    with pytest.raises(ConfigError, match=f"batch_size: {batch_size} is not possible; allowed are {allowed}"):
        read(Noisy(), batch_size)


def test_sources_with_and_without_take_give_the_same_batches():
    digits = data.load(Config())["train"]
    expected = list(itertools.islice(data.train_batches(digits, 4, 0), 3))
    records = UserSource(RecordList(digits[i] for i in range(len(digits))), "digits")
    assert (records.classes, records.events, records.num_uniforms) == (10, False, 0)
    chex.assert_trees_all_equal(expected, list(itertools.islice(data.train_batches(records, 4, 0), 3)))


class RecordList(list):
    """The least that a source can be."""

    classes = 10


class Handle:
    """What only one thread at a time may read, such as a source with an open file."""

    classes, busy = 10, False

    def __len__(self):
        return self.alone(40)

    def __getitem__(self, i):
        return self.alone({"x": np.zeros((1, 2), np.float32), "y": np.int32(0)})

    def alone(self, value):
        assert not self.busy
        self.busy = True
        time.sleep(0.001)
        self.busy = False
        return value


class HandleOfBatches(Handle):
    def take(self, indices, uniforms):
        return self.alone({"x": np.zeros((len(indices), 1, 2), np.float32), "y": np.zeros(len(indices), np.int32)})


@pytest.mark.parametrize("kind", [Handle, HandleOfBatches])
def test_streams_and_evaluations_read_an_own_source_in_turn(kind):
    """Also where it serves as all three splits."""
    own = arrays.sources(dict.fromkeys(("train", "validation", "test"), kind()), Config(), "own")
    streams: list[Any] = [data.train_batches(own["train"], 8, seed) for seed in range(3)]
    for _ in itertools.islice(zip(*streams, strict=True), 3):
        assert len(list(data.eval_batches(own["validation"], 8))) == 5
    for stream in streams:
        stream.close()


def test_evaluation_has_no_workers_and_reads_a_source_of_one_thread_in_one():
    source = UserSource(HandleOfBatches(), "handle")  # without a lock of its own
    assert len(list(data.eval_batches(source, 5, readers=data.Readers(workers=4)))) == 8


def test_several_threads_read_an_own_source_at_once_if_data_threads_asks_for_them():
    class Waiting(RecordList):
        everyone = threading.Barrier(1)

        def take(self, indices, uniforms):
            self.everyone.wait(timeout=20)
            return {"x": np.zeros((len(indices), 1, 2), np.float32), "y": np.zeros(len(indices), np.int32)}

    source = Waiting([{"x": np.zeros((1, 2), np.float32), "y": np.int32(0)}] * 40)
    config = replaced(Config(), "data.threads", 4)
    own = arrays.sources(dict.fromkeys(("train", "validation", "test"), source), config, "own")
    source.everyone = threading.Barrier(4)
    assert len(list(data.eval_batches(own["test"], 5, readers=data.configured_readers(config)))) == 8


def test_a_source_that_draws_nothing_is_evaluated_by_its_take():
    class Halves(RecordList):
        def take(self, indices, uniforms):
            return {"x": np.stack([self[i]["x"][::2] for i in indices]), "y": np.zeros(len(indices), int)}

    source = UserSource(Halves([{"x": np.full((4, 3), float(i)), "y": np.int32(0)} for i in range(3)]), "halves")
    (batch,) = data.eval_batches(data.Unaugmented(source, np.array([2, 0])), 2)
    np.testing.assert_array_equal(batch["x"][:, :, 0], [[2, 2], [0, 0]])


def test_a_source_is_completed_only_where_it_lacks_something():
    least = UserSource(RecordList([{"x": np.ones((1, 2)), "y": np.int32(3)}]), "least")
    batch = least.take(np.array([0, 0]), np.zeros((2, 0)))
    chex.assert_shape([batch["x"], batch["y"]], [(2, 1, 2), (2,)])

    class Augmented(RecordList):
        events, num_uniforms, class_names, fingerprint = True, 2, ["a", "b"], 7

        def take(self, indices, uniforms):
            return {"x": uniforms, "y": indices}

    source = UserSource(Augmented(), "augmented")
    assert (source.events, source.num_uniforms, source.class_names, source.fingerprint) == (True, 2, ("a", "b"), "7")
    chex.assert_trees_all_equal(data.example_batch(source), {"x": np.zeros((1, 2), np.float32), "y": np.zeros(1, int)})


ODD = {
    "a longer record": (
        {"x": np.ones((2, 2)), "y": 1},
        r"x of record 2 is \(2, 2\), but that of record 0 \(1, 2\); exp",
    ),
    "a list": ([1, 2], "record 2 is not a dict with x and y; expected is"),
    "an array": (np.ones((1, 2)), "record 2 is not a dict with x and y; expected is"),
    "a number as x": ({"x": 1.0, "y": 1}, "record 2 is not a dict with x and y; expected is"),
    "no label": ({"x": np.ones((1, 2))}, "record 2 is not a dict with x and y; expected is"),
    "labels from 1 on": ({"x": np.ones((1, 2)), "y": 10}, "record 2 has label 10; expected are 0 to 9"),
    "a negative label": ({"x": np.ones((1, 2)), "y": -1}, "record 2 has label -1; expected are 0 to 9"),
    "a label of float": ({"x": np.ones((1, 2)), "y": 1.0}, r"y of record 2 is float64 \(\); expected is an integer"),
    "a label with an axis": ({"x": np.ones((1, 2)), "y": np.ones(1, int)}, r"y of record 2 is int64 \(1,\); expected"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_record_unlike_the_first_is_one_line(kind):
    record, message = ODD[kind]
    source = UserSource(RecordList([{"x": np.ones((1, 2)), "y": 9}] * 2 + [record]), "own.py: data: train")
    with pytest.raises(ConfigError, match=f"^own.py: data: train: {message}") as error:
        next(data.train_batches(source, 3, 0))
    assert "\n" not in str(error.value)


X = np.ones((3, 1, 2))


@pytest.mark.parametrize(("batch", "message"), [
    ({"x": X, "y": [0, 10, -1]}, "record 6 has label 10; expected are 0 to 9"),
    ({"x": X, "y": [0.0, 1.0, 2.0]}, r"y of record 5 is float64 \(3,\); expected is an integer \(3,\)"),
    ({"x": X, "y": [0, 1]}, r"y of record 5 is int64 \(2,\); expected is an integer \(3,\)"),
    ((X, [0, 1, 2]), "record 5 by take is not a dict with x and y; expected is"),
    (X, "record 5 by take is not a dict with x and y; expected is"),
])  # fmt: skip
def test_a_wrong_batch_is_one_line(batch, message):
    class Batches(RecordList):
        def take(self, indices, uniforms):
            return batch

    with pytest.raises(ConfigError, match=f"^own.py: data: test: {message}"):
        UserSource(Batches(), "own.py: data: test").take(np.array([5, 6, 7]), np.zeros((3, 0)))


def test_a_source_that_threads_read_in_turn_can_be_pickled():
    assert len(pickle.loads(pickle.dumps(UserSource(Noisy(), "noisy", thread_safe=False)))) == 103


@pytest.mark.slow
def test_two_distributed_processes_get_the_batches_of_a_single_process(tmp_path):
    repository = pathlib.Path(__file__).parents[2]
    script = repository / "tests" / "support" / "distributed_batches.py"
    line = [sys.executable, str(script), str(processes.free_port()), "2"]
    outs = [tmp_path / f"{process}.npz" for process in range(2)]
    running = [
        subprocess.Popen([*line, str(i), str(out)], env={**os.environ, "PYTHONPATH": str(repository)})
        for i, out in enumerate(outs)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    parts = data.load(Config())
    batches = list(itertools.islice(data.train_batches(parts["train"], 32, seed=3, start_step=37), 5))
    batches += list(data.eval_batches(parts["test"], 100))
    seen = 0
    for out in outs:
        for name, value in np.load(out).items():
            step, key, *start = name.split("/")
            if key == "sum":
                np.testing.assert_allclose(value, batches[int(step)]["x"].sum(), rtol=1e-5)
                continue
            rows = batches[int(step)][key][int(start[0]) :][: len(value)]
            np.testing.assert_array_equal(value, rows)
            seen += len(value) * (key == "y")
    assert seen == sum(len(batch["y"]) for batch in batches)


WITH_A_WORKER = """
import multiprocessing, time
from csbp_jax import configs, data
if __name__ == "__main__":
    batches = data.train_batches(data.load(configs.load("digits"))["train"], 16, 0, readers=data.Readers(workers=1))
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    while True:
        next(batches)
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_worker_ends_with_its_reader_and_not_by_a_signal_to_all(tmp_path):
    (tmp_path / "reader.py").write_text(WITH_A_WORKER)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    line = [sys.executable, tmp_path / "reader.py"]
    with subprocess.Popen(line, env=environment, stdout=-1, stderr=subprocess.DEVNULL) as reader:
        assert reader.stdout
        worker = int(reader.stdout.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
        time.sleep(0.3)
        assert reader.poll() is None and running(worker)
        reader.kill()
    deadline = time.monotonic() + 20
    while running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(process):
    """Return whether a process runs; a zombie, whose new parent has not waited for it, does not."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
