"""From the archives of ImageNet to a trained network, in two processes, killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from csbp_jax.training.checkpoint import layout
from csbp_jax.training.metrics_log import read_rows
from tests.support import formats, processes

# SEW-ResNet-18 at a quarter of its width and two time steps, so that two CPU cores need minutes.
NETWORK = "--data.size 64 64 --model.input-shape 64 64 3 --model.width 0.25 --model.time-steps 2"
STEPS = "--epochs 2 --batch-size 32 --eval-batch-size 32 --log-every 1 --checkpoint-every 1 --data.threads 1"
IMAGES, TESTED = 60, 21  # per class of three, and in the test split


def start(folder, make):
    """Start two processes with a device each."""
    args = f"{NETWORK} {STEPS} --runs {folder / 'runs'} --distributed 127.0.0.1:{processes.free_port()},2"
    line = ["-m", "csbp_jax", "train", "--environment"]
    of_each = ({**make, "CSBP_ARGS": f"{args},{process}"} for process in range(2))
    return [process for settings in of_each for process in processes.start_lines([line], devices=1, **settings)]


@pytest.mark.slow
def test_in_two_processes_killed_once(tmp_path):
    """What ``make data`` and ``make train`` run, with the variables that make sets."""
    archives = tmp_path / "archives"
    archives.mkdir()
    names = [f"{wnid}_{n}.JPEG" for wnid in formats.WNIDS for n in range(IMAGES)]
    train = {name: formats.encoded(formats.photo(seed)) for seed, name in enumerate(names)}
    tested = {f"ILSVRC2012_val_{n:08d}.JPEG": formats.encoded(formats.photo(1000 + n)) for n in range(1, TESTED + 1)}
    formats.imagenet(archives, train, tested)
    make = {"CSBP_DATASET": "imagenet", "CSBP_DATA_DIR": str(tmp_path / "data"), "CSBP_FROM": str(archives)}
    line = [sys.executable, "-m", "csbp_jax", "data", "--environment"]
    environment = {**os.environ, **make, "CSBP_ARGS": "--no-verify"}
    done = subprocess.run(line, cwd=processes.ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "train 162, validation 18, test 21 records" in done.stdout

    make = {"CSBP_DATASET": "imagenet_sew_resnet18", "CSBP_DATA_DIR": str(tmp_path / "data"), "CSBP_NAME": "r"}
    running = start(tmp_path, make)
    first = tmp_path / "runs" / "r" / "checkpoints" / "5"
    deadline = time.monotonic() + 600
    while not first.exists():
        assert all(process.poll() is None for process in running), processes.finish(running, 60)
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for process in running:
        process.kill()
    assert processes.finish(running)[0] == [-signal.SIGKILL] * 2

    codes, printed, errors = processes.finish(start(tmp_path, make), 600)
    assert codes == [0, 0], errors
    assert "resumed after step 5, 10 steps in all" in printed[0]
    rows = read_rows(tmp_path / "runs" / "r" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 11))
    assert [row["validation_count"] for row in rows if row["kind"] == "epoch"] == [18, 18]
    result = json.loads((tmp_path / "runs" / "r" / "result.json").read_text())
    assert result["last"]["test_count"] == TESTED
    assert list(layout.complete(tmp_path / "runs" / "r" / "checkpoints")) == [5, 10]
    content = json.loads((tmp_path / "runs" / "r" / "config.json").read_text())["config"]["model"]
    assert (content["name"], content["precision"]) == ("sew_resnet18", "bfloat16")
