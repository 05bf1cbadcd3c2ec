"""Runs whose checkpoints are in a bucket, by a server that speaks as Google's does; where one is installed."""

import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from csbp_jax.report import read_rows

ROOT = pathlib.Path(__file__).parent.parent
TRAIN = [
    *(sys.executable, "-m", "csbp_jax", "train", "digits", "--name", "r", "--runs", "runs", "--epochs", "40"),
    *("--batch-size", "512", "--log-every", "1", "--checkpoint-every", "1", "--model.name", "dense"),
    *("--model.features", "8", "--model.time-steps", "2", "--chaos.taps", "fc1.membrane"),
]
PLACE = "gs://checkpoints/runs"

SERVER = shutil.which("fake-gcs-server")  # github.com/fsouza/fake-gcs-server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SERVER is None or importlib.util.find_spec("gcsfs") is None,
        reason="needs gcsfs and the program fake-gcs-server",
    ),
]


class Bucket:
    """A bucket ``checkpoints`` on a server of this machine; its objects are bytes by name."""

    def __init__(self, address):
        self.address = address

    def ask(self, place, method="GET", content=None):
        headers = {"Content-Type": "application/json" if place.endswith("/b") else "application/octet-stream"}
        asked = urllib.request.Request(f"{self.address}{place}", content, headers, method=method)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.read()

    def names(self):
        return sorted(item["name"] for item in json.loads(self.ask("/storage/v1/b/checkpoints/o")).get("items", []))

    def __getitem__(self, name):
        return self.ask(f"/storage/v1/b/checkpoints/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def __setitem__(self, name, content):
        quoted = urllib.parse.quote(name, safe="")
        self.ask(f"/upload/storage/v1/b/checkpoints/o?uploadType=media&name={quoted}", "POST", content)

    def __delitem__(self, name):
        self.ask(f"/storage/v1/b/checkpoints/o/{urllib.parse.quote(name, safe='')}", "DELETE")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The bucket, and the environment that leads to it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    line = [SERVER, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([*line, "-external-url", address], stdout=log, stderr=log, cwd=folder)
    for _ in range(300):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    there = Bucket(address)
    there.ask("/storage/v1/b", "POST", b'{"name": "checkpoints"}')
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    yield there, environment | {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
    server.kill()
    server.wait()


def train(folder, environment, *more):
    folder.mkdir(exist_ok=True)
    return subprocess.run([*TRAIN, *more], cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


def killed(folder, environment, rows, *more):
    """Killed as soon as it has written so many rows."""
    folder.mkdir(exist_ok=True)
    metrics = folder / "runs" / "r" / "metrics.jsonl"
    with open(folder / "log", "w") as log:
        run = subprocess.Popen([*TRAIN, *more], cwd=folder, env=environment, stdout=log, stderr=log)
    while run.poll() is None and len(read_rows(metrics)) < rows:
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -9, (folder / "log").read_text()


def left(folder):
    clocks = ("seconds", "examples_per_second", "waiting")
    run = folder / "runs" / "r"
    rows = [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(run / "metrics.jsonl")]
    return json.loads((run / "result.json").read_text()) | {"seconds": 0}, rows


def test_a_run_goes_on_from_its_bucket_alone_to_the_same_bits(bucket, tmp_path):
    there, environment = bucket
    whole = train(tmp_path / "whole", environment)
    assert whole.returncode == 0, whole.stderr
    asked = ("--checkpoints", PLACE)
    for number, rows in enumerate((20, 50, 90)):  # each time on a machine that has nothing
        killed(tmp_path / str(number), environment, rows, *asked)
    done = train(tmp_path / "last", environment, *asked)
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stdout and "damaged" not in done.stdout
    assert left(tmp_path / "last") == left(tmp_path / "whole")
    assert not done.stderr
    print(done.stdout, there.names())
