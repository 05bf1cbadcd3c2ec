"""Runs whose checkpoints are in a bucket, by a server that speaks as Google's does; where one is installed."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from csbp_jax.training import run_json
from csbp_jax.training.metrics_log import read_rows
from tests.support import processes
from tests.support.small_run import timeless_rows

ROOT = pathlib.Path(__file__).parents[3]
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
    free = processes.free_port()
    address = f"http://127.0.0.1:{free}"
    assert SERVER
    line = [SERVER, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(free)]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([*line, "-external-url", address], stdout=log, stderr=log, cwd=folder)
    for _ in range(300):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", free)) == 0:
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


def left(folder, name="r"):
    run = folder / "runs" / name
    return run_json.read_result(run) | {"seconds": 0}, timeless_rows(run / "metrics.jsonl")


def test_a_run_resumes_from_its_bucket_alone_bit_for_bit(bucket, tmp_path):
    there, environment = bucket
    whole = train(tmp_path / "whole", environment)
    assert whole.returncode == 0, whole.stderr
    asked = ("--checkpoints", PLACE)
    for number, rows in enumerate((20, 50, 90)):  # each time on a machine that has nothing
        killed(tmp_path / str(number), environment, rows, *asked)
    for name in ("9.7/manifest.ocdbt", "9.7/d/0", "9.7.manifest"):  # as kills in a save leave it
        there[f"runs/r/{name}"] = b"left"
    done = train(tmp_path / "last", environment, *asked)
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stdout and "damaged" not in done.stdout
    assert left(tmp_path / "last") == left(tmp_path / "whole")
    folders = {name.split("/")[2] for name in there.names() if name.startswith("runs/r/")}
    assert sorted(folder.split(".")[0] for folder in folders) == ["78", "80"]  # nothing of the killed ones


def test_damage_in_a_bucket_is_detected_renamed_and_reported(bucket, tmp_path):
    there, environment = bucket
    asked = ("--checkpoints", PLACE, "--name", "d", "--epochs", "3")
    done = train(tmp_path / "one", environment, *asked)
    assert done.returncode == 0, done.stderr
    assert steps(there, "d") == ["4", "6"]
    (name,) = (name for name in there.names() if re.fullmatch(r"runs/d/6/d/\w+", name))
    content = bytearray(there[name])
    content[len(content) // 2] ^= 4
    there[name] = bytes(content)
    again = train(tmp_path / "two", environment, *asked)
    assert again.returncode == 0, again.stderr
    reported = re.search(r"^gs://checkpoints/runs/d/6: (d/\w+) is damaged; renamed to (\S+)$", again.stdout, re.M)
    assert reported and name.endswith(reported[1]), again.stdout
    assert f"runs/d/{reported[2]}" in there.names() and there[name] == content
    assert "resumed after step 4," in again.stdout
    assert steps(there, "d") == ["4", "6.1"]
    assert left(tmp_path / "one", "d") == left(tmp_path / "two", "d")
    for name in there.names():
        if name.startswith("runs/d/") and name.endswith("_METADATA"):
            del there[name]
    none = train(tmp_path / "three", environment, *asked)
    assert none.returncode == 4
    assert re.search(r"no checkpoint is intact \(6\.1: \S+ is missing; 4: \S+ is missing\)", none.stderr)
    assert steps(there, "d") == ["4", "6.1"]


def steps(bucket, run):
    """The checkpoints that have a manifest."""
    return [name.split("/")[2] for name in bucket.names() if re.fullmatch(rf"runs/{run}/[\d.]+/manifest.json", name)]


def test_errors_are_one_line(bucket, tmp_path):
    _, environment = bucket
    asked = ("--checkpoints", PLACE, "--name", "e", "--epochs", "1")
    assert train(tmp_path / "one", environment, *asked).returncode == 0
    for more, code, line in (
        (("--seed", "1"), 2, "NAME: run 'e' has another config; differing are seed (0 there, 1 here)"),
        (("--fresh",), 2, f"--fresh: {PLACE}/e has checkpoints; move them away, or give another NAME (--name)"),
        (
            ("--name", "n", "--checkpoints", "gs://no-such-bucket/runs"),
            4,
            "gs://no-such-bucket/runs/n: cannot be opened (there is no such",
        ),
    ):
        done = train(tmp_path / "two", environment, *asked, *more)
        assert (done.returncode, line in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "two" / "runs" / "n" / "checkpoints").exists()  # so that the right address can be given
    read = [sys.executable, "-m", "csbp_jax", "evaluate", "runs/e", "--trust"]
    done = subprocess.run(read, cwd=tmp_path / "one", env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def pair(folder, environment, port, *more):
    """Two processes, each in a folder of its own as on a host of its own."""
    for number in range(2):
        (folder / str(number)).mkdir(parents=True)
    return [
        subprocess.Popen(
            [*TRAIN, "--epochs", "12", *more, "--distributed", f"127.0.0.1:{port},2,{number}"],
            cwd=folder / str(number),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]


def test_hosts_that_share_nothing_but_the_bucket(bucket, tmp_path):
    _, environment = bucket
    for name in ("whole", "cut"):
        asked = ("--checkpoints", PLACE, "--name", name)
        if name == "cut":
            both = pair(tmp_path / "before", environment, processes.free_port(), *asked)
            metrics = tmp_path / "before" / "0" / "runs" / name / "metrics.jsonl"
            while both[0].poll() is None and len(read_rows(metrics)) < 16:
                time.sleep(0.01)
            for process in both:
                process.kill()
                process.communicate()
                assert process.returncode == -9
        both = pair(tmp_path / name, environment, processes.free_port(), *asked)
        reported = [process.communicate(timeout=400)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], reported
        assert not (tmp_path / name / "1" / "runs").exists()
    assert "resumed after step" in reported[0]
    assert left(tmp_path / "cut" / "0", "cut") == left(tmp_path / "whole" / "0", "whole")
