"""The stream of batches: the same for any number of processes, workers and threads, from any step."""

import itertools
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from csbp_jax import data
from csbp_jax.config import Config, ConfigError

SEED, BATCH = 11, 16


class Noisy:
    """Record i plus its random numbers: shows every difference in order, content or randomness."""

    events, num_uniforms, classes = False, 3, 7

    def __init__(self, n=103):
        self.n = n

    def __len__(self):
        return self.n

    def take(self, indices, uniforms):
        x = indices[:, None, None] + uniforms[:, None, :]
        return {"x": x.astype(np.float32), "y": (indices % self.classes).astype(np.int32)}


def stream(n, start_step=0, processes=1, **readers):
    """n batches, put together from those of all processes."""
    shares = []
    for process in range(processes):
        batches = data.train_batches(Noisy(), BATCH, SEED, start_step, process=process, processes=processes, **readers)
        shares.append(list(itertools.islice(batches, n)))
        batches.close()
    return [
        {key: np.concatenate([batch[key] for batch in step]) for key in step[0]} for step in zip(*shares, strict=True)
    ]


@pytest.fixture(scope="module")
def whole():
    return stream(20)


@pytest.mark.parametrize("start", [0, 1, 5, 6, 13])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_processes_threads_and_start_change_nothing(whole, processes, threads, start):
    chex.assert_trees_all_equal(whole[start:], stream(20 - start, start, processes, threads=threads))


def test_workers_change_nothing(whole):
    chex.assert_trees_all_equal(whole[13:], stream(7, 13, processes=2, workers=2, threads=2))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_whole_matrix_with_workers(whole, processes, workers, threads):
    chex.assert_trees_all_equal(whole[5:], stream(15, 5, processes, workers=workers, threads=threads))


def test_each_row_has_its_own_random_numbers(whole):
    noise = np.concatenate([np.modf(batch["x"])[0].reshape(BATCH, 3) for batch in whole])
    assert len(np.unique(noise)) > 0.98 * noise.size  # float32 beside whole numbers up to 103: 17 bits are left
    np.testing.assert_allclose(noise.mean(), 0.5, atol=5 * 0.29 / noise.size**0.5)


def test_an_epoch_shows_each_record_once_but_the_remainder(whole):
    steps = 103 // BATCH
    for epoch in (whole[:steps], whole[steps : 2 * steps]):
        records = np.concatenate([batch["x"][:, 0, 0] for batch in epoch]).astype(int)
        assert len(np.unique(records)) == steps * BATCH


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 16, 104, 200])
def test_evaluation_counts_each_record_once_in_equally_many_steps(processes, batch_size):
    shares = [list(data.eval_batches(Noisy(), batch_size, process=p, processes=processes)) for p in range(processes)]
    assert {len(share) for share in shares} == {-(-103 // batch_size)}
    steps = [{key: np.concatenate([b[key] for b in step]) for key in step[0]} for step in zip(*shares, strict=True)]
    shown = np.concatenate([step["x"][step["mask"]][:, 0, 0] for step in steps])
    np.testing.assert_array_equal(shown, np.arange(103))


@pytest.mark.parametrize("read", [lambda *args, **more: data.train_batches(*args, seed=0, **more), data.eval_batches])
@pytest.mark.parametrize("batch_size, processes", [(8, 3), (4, 8), (0, 1)])
def test_processes_share_a_batch_evenly_or_not_at_all(read, batch_size, processes):
    with pytest.raises(
        ConfigError, match=rf"batch_size: {batch_size} is not possible; allowed are multiples of {processes}"
    ):
        read(Noisy(), batch_size, process=0, processes=processes)


def test_a_batch_larger_than_the_source():
    with pytest.raises(ConfigError, match=r"batch_size: 104 is not possible; allowed are at most 103"):
        data.train_batches(Noisy(), 104, 0)


def test_a_source_of_single_records_and_one_of_batches_are_alike():
    digits = data.load(Config())["train"]
    records = list(itertools.islice(data.train_batches(digits, 4, 0), 3))
    digits.take = lambda indices, uniforms: {"x": digits.x[indices], "y": digits.y[indices]}
    chex.assert_trees_all_equal(records, list(itertools.islice(data.train_batches(digits, 4, 0), 3)))


def test_what_workers_receive_is_small():
    assert len(pickle.dumps(Noisy())) < 200


def test_two_real_processes_see_the_batches_of_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = pathlib.Path(__file__).parents[2]
    script = repository / "tests" / "support" / "distributed_batches.py"
    line = [sys.executable, str(script), str(port), "2"]
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
    batches = data.train_batches(data.load(configs.load("digits"))["train"], 16, 0, workers=1)
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    while True:
        next(batches)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_worker_ends_with_its_reader_and_not_by_a_signal_to_all(tmp_path):
    (tmp_path / "reader.py").write_text(WITH_A_WORKER)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    line = [sys.executable, tmp_path / "reader.py"]
    with subprocess.Popen(line, env=environment, stdout=-1, stderr=subprocess.DEVNULL) as reader:
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
    """A zombie, whose new parent has not waited for it, does not run."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
