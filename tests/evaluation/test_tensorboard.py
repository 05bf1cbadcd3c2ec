"""TensorBoard events equal metrics.jsonl, at its steps, and follow a run that is resumed."""

import shutil
import struct
import sys
import threading
import time

import pytest

from csbp_jax.cli.main import main
from csbp_jax.evaluation import follow, tensorboard
from csbp_jax.runs import Run
from csbp_jax.training.metrics_log import read_rows
from tests.evaluation import test_trackers

tensorboardX = pytest.importorskip("tensorboardX")
event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def events(folder):
    """Return all events, in the order in which TensorBoard reads them."""
    read = []
    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns):
        content = file.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (size,) = struct.unpack("<Q", content[:8])
            read.append(event_pb2.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return read


def scalars(folder):
    """Return ``{(tag, step): value}``; a START discards what was at its step or later."""
    values: dict[tuple[str, int], float] = {}
    for event in events(folder):
        if event.HasField("session_log"):
            values = {key: value for key, value in values.items() if key[1] < event.step}
        values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return values


def expected(rows):
    return {(tag, step): value for tag, step, value in test_trackers.expected(rows)}


def test_every_number_is_written_at_its_step(run, capsys):
    rows = follow.read_rows(Run.read(run))
    for _ in range(2):  # a second time in place of the first
        assert main(["tensorboard", str(run)]) == 0
        assert capsys.readouterr().out == f"{run}/tensorboard\n"
        actual = scalars(run / "tensorboard")
        assert actual == pytest.approx(expected(rows), rel=1e-6)
        assert len(events(run / "tensorboard")) == len(actual) + 1  # and the version
    assert {tag.split("/")[0] for tag, _ in actual} == {"start", "first", "train", "epoch", "result"}
    epoch, result = rows[-2:]
    assert actual["epoch/validation_accuracy", epoch["step"]] == pytest.approx(epoch["validation_accuracy"])
    assert actual["result/chosen/test_accuracy", epoch["step"]] == pytest.approx(result["chosen"]["test_accuracy"])
    began, last = (run / "config.json").stat().st_mtime, events(run / "tensorboard")[-1]
    assert last.wall_time == pytest.approx(began + rows[-1]["seconds"])


def test_following_a_run_that_is_resumed(run, monkeypatch):
    monkeypatch.setattr(follow, "FOLLOW_SECONDS", 0.05)
    writer = tensorboardX.SummaryWriter
    monkeypatch.setattr(
        tensorboardX, "SummaryWriter", lambda folder, **options: writer(folder, **options | {"flush_secs": 0.05})
    )
    result, rows = (run / "result.json").read_text(), read_rows(run / "metrics.jsonl")
    (run / "result.json").unlink()
    lost = [{**row, "loss": 7.0} for row in rows[1:-1] if row["kind"] == "train"]
    test_trackers.put(run, rows[:1] + lost)
    following = threading.Thread(target=tensorboard.write, args=([run], True), daemon=True)
    following.start()
    deadline = time.monotonic() + 30
    for some in (rows[:1] + lost, rows[:1], rows):
        test_trackers.put(run, some)
        while (actual := scalars(run / "tensorboard")) != pytest.approx(expected(some), rel=1e-6):
            assert time.monotonic() < deadline, actual
            time.sleep(0.02)
    (run / "result.json").write_text(result)
    following.join(timeout=30)
    assert not following.is_alive()


@pytest.mark.full
def test_a_training_writes_its_events(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "train digits --epochs 2 --batch-size 512 --model.features 2 2 --model.time-steps 2 --runs . --name live"
    assert main([*words.split(), "--track", "tensorboard"]) == 0
    assert scalars(tmp_path / "live" / "tensorboard") == pytest.approx(
        expected(follow.read_rows(Run.read(tmp_path / "live")))
    )


def test_a_missing_package_is_reported(run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "pip install 'csbp_jax[tensorboard]'" in refused("tensorboard", run) and not (run / "tensorboard").exists()


def test_a_long_run_shows_progress(run, monkeypatch, capsys):
    monkeypatch.setattr(tensorboard, "PROGRESS_ROWS", 4)
    tensorboard.write(run)
    count = len(follow.read_rows(Run.read(run)))
    lines = [f"{run}: {number} of {count} rows" for number in range(4, count + 1, 4)]
    assert lines and capsys.readouterr().err.splitlines() == lines
