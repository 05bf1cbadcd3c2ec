"""Trackers hold every number of metrics.jsonl once, at its step, read back from their own stores, offline.

`make test-trackers` runs this with the trackers installed; elsewhere most of it is skipped.
"""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

from csbp_jax.cli.main import main
from csbp_jax.evaluation import follow, trackers
from csbp_jax.runs import Run
from csbp_jax.training import run_json

ROOT = pathlib.Path(__file__).parents[2]
TRACKERS = ("wandb", "mlflow", "trackio")
# Warnings of the trackers about their own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")


def installed(tracker):
    pytest.importorskip(tracker, reason=f"{tracker} is not installed; run make test-trackers")


@pytest.fixture(params=TRACKERS)
def tracker(request):
    installed(request.param)
    return request.param


@pytest.fixture(scope="module", autouse=True)
def trackio_store(tmp_path_factory):
    """Trackio's store, which it reads from the environment when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A finished run in a folder of its own, and stores in that folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return shutil.copytree(trained, tmp_path / "run")


def put(run, rows):
    """Make these the rows of an unfinished run."""
    (run / "metrics.jsonl.part").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "metrics.jsonl.part").replace(run / "metrics.jsonl")


def numbers(values, tag):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{tag}/{name}")
        elif isinstance(value, int | float):
            yield f"{tag}/{name}", value


def expected(rows):
    """``[(tag, step, number)]`` of some rows, sorted."""
    return sorted(
        (tag, row["step"], value)
        for row in rows
        for tag, value in numbers(row, row["kind"])
        if tag.split("/")[1] not in ("step", "seconds")
    )


def wandb_records(file):
    """Yield the records of a .wandb file: LevelDB's log, in blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, position, record = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        record += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # complete, or the last fragment
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


def stored(tracker, run):
    """Return ``(config, [(tag, step, number)])`` that a tracker has of a run, sorted."""
    if tracker == "wandb":
        file = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
        config, logged = {}, []
        for record in wandb_records(file):
            for item in [*record.run.config.update, *record.config.update]:
                config[item.key] = json.loads(item.value_json)
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            logged += [(tag, row["step"], row[tag]) for tag in row if "/" in tag]
        return config, sorted(logged)
    identity = json.loads((run / "track" / f"{tracker}.json").read_text())["id"]
    if tracker == "trackio":
        from trackio.sqlite_storage import SQLiteStorage

        logs = SQLiteStorage.get_logs("p", identity)
        logged = [(tag, row["step"], value) for row in logs for tag, value in row.items() if "/" in tag]
        return SQLiteStorage.get_run_config("p", identity), sorted(logged)
    from mlflow import MlflowClient

    client = MlflowClient()
    data = client.get_run(identity).data
    logged = [(tag, m.step, m.value) for tag in data.metrics for m in client.get_metric_history(identity, tag)]
    return data.params, sorted(logged)


def check_stored(tracker, run, rows):
    """Check that a tracker has exactly these rows; wandb's service may write the last ones just after a run's end."""
    deadline = time.monotonic() + 20 * (tracker == "wandb")
    while (numbers := stored(tracker, run)[1]) != expected(rows):
        assert time.monotonic() < deadline, set(numbers) ^ set(expected(rows))
        time.sleep(0.1)


def track(run, tracker, *options):
    return main(["track", str(run), "--to", tracker, "--project", "p", *options])


def test_an_integer_that_no_tracker_holds_is_left_out():
    row = {"kind": "flip", "step": 1, "seconds": 0.5, "a": 10**400, "b": 2, "c": True, "d": float("inf")}
    assert follow.scalars(row) == {"flip/b": 2, "flip/c": True, "flip/d": float("inf")}


def test_rows_have_the_accuracy_of_averaged_weights(run):
    result = run_json.read_result(run)
    (run / "result.json").write_text(json.dumps(result | {"ema": result["last"] | {"test_accuracy": 0.1234}}))
    assert follow.scalars(follow.read_rows(Run.read(run))[-1])["result/ema/test_accuracy"] == 0.1234


def test_a_training_logs_its_rows_and_goes_on_where_the_tracker_fails(tracker, tmp_path, monkeypatch, capsys, run):
    words = "train digits --epochs 2 --batch-size 512 --model.features 2 2 --model.time-steps 2 --runs . --name live"
    assert main([*words.split(), "--track", tracker]) == 0
    if tracker != "trackio":  # whose project is not that of these tests
        check_stored(tracker, tmp_path / "live", follow.read_rows(Run.read(tmp_path / "live")))

    def refuse(*_):
        raise OSError("the server is gone")  # of a kind that only the tracker knows

    monkeypatch.setattr(trackers, "scalars", refuse)
    assert main([*words.split(), "--fresh", "--track", tracker]) == 0
    assert capsys.readouterr().err.count("the server is gone; training goes on") == 1


def test_every_number_is_logged_once_at_its_step(tracker, run, capsys):
    rows = follow.read_rows(Run.read(run))
    assert rows[-1]["kind"] == "result"
    for _ in range(2):  # a second time adds nothing
        assert track(run, tracker) == 0
        check_stored(tracker, run, rows)
    config, logged = stored(tracker, run)
    assert {tag.split("/")[0] for tag, _, _ in logged} >= {"start", "train", "epoch", "result"}
    assert ("result/last/test_accuracy", rows[-1]["step"], rows[-1]["last"]["test_accuracy"]) in logged
    assert str(config["model.time_steps"]) == "3" and str(config["data.name"]) == "digits"
    assert capsys.readouterr().out.strip()


def test_a_follower_stopped_and_repeated_logs_no_row_twice(tracker, run):
    """Real processes: one is interrupted while the run trains, the next one ends with the run."""
    rows, result = follow.read_rows(Run.read(run))[:-1], (run / "result.json").read_text()
    (run / "result.json").unlink()
    put(run, rows[:3])
    line = [sys.executable, "-m", "csbp_jax", "track", str(run), "--to", tracker, "--project", "p", "--follow"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    state = run / "track" / f"{tracker}.json"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 60
        while not state.exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        assert json.loads(state.read_text())["step"] == rows[2]["step"]
        if tracker == "wandb":
            assert main(line[3:]) == 2  # refused: the other process holds the run
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines()[-1].endswith("the same command continues"), errors
    check_stored(tracker, run, rows[:3])
    # The training resumes from a checkpoint before those rows, and trains them again.
    put(run, rows[:2])
    assert track(run, tracker) == 0
    if tracker == "wandb":
        check_stored(tracker, run, rows[:2])  # a new file, of the run as it is now
    # With other steps between (log_every), and with rows of two kinds at the step of the last one.
    put(run, [*rows[:2], {**rows[1], "step": rows[1]["step"] + 1}, *rows[2:]])
    if tracker != "wandb":
        assert track(run, tracker) == 0
        check_stored(tracker, run, rows)
    put(run, rows)
    (run / "result.json").write_text(result)
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    check_stored(tracker, run, follow.read_rows(Run.read(run)))


def test_rows_are_logged_while_the_run_trains(tracker, run, monkeypatch):
    monkeypatch.setattr(follow, "FOLLOW_SECONDS", 0.05)
    rows, result = follow.read_rows(Run.read(run))[:-1], (run / "result.json").read_text()
    (run / "result.json").unlink()
    put(run, rows[:1])
    done: list[str] = []
    following = threading.Thread(target=lambda: done.extend(trackers.track([run], tracker, "p", True)), daemon=True)
    following.start()
    state, deadline = run / "track" / f"{tracker}.json", time.monotonic() + 60
    assert rows[-1]["step"] > rows[1]["step"] > rows[0]["step"]
    for count in (1, 2, len(rows)):
        put(run, rows[:count])
        while not state.exists() or json.loads(state.read_text())["step"] != rows[count - 1]["step"]:
            assert time.monotonic() < deadline and following.is_alive()
            time.sleep(0.05)
    assert not done
    (run / "result.json").write_text(result)
    following.join(timeout=60)
    assert not following.is_alive() and len(done) == 1
    check_stored(tracker, run, follow.read_rows(Run.read(run)))


def test_two_runs_at_once_and_a_run_from_scratch(tracker, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    put(other, follow.read_rows(Run.read(run))[:2])
    assert main(["track", str(run), str(other), "--to", tracker, "--project", "p"]) == 0
    for folder in (run, other):
        check_stored(tracker, folder, follow.read_rows(Run.read(folder)))
    ids = {json.loads((folder / "track" / f"{tracker}.json").read_text())["id"] for folder in (run, other)}
    # As --fresh does: the old folder is renamed, and the new one has the name.
    fresh = shutil.copytree(run.rename(tmp_path / "before"), run, ignore=shutil.ignore_patterns("track", "wandb"))
    assert track(fresh, tracker) == 0
    ids |= {json.loads((fresh / "track" / f"{tracker}.json").read_text())["id"]}
    assert len(ids) == 3
    check_stored(tracker, fresh, follow.read_rows(Run.read(fresh)))


def test_mlflow_keeps_wall_times_and_the_end_of_the_run(run):
    installed("mlflow")
    from mlflow import MlflowClient

    result = (run / "result.json").rename(run / "later")
    assert track(run, "mlflow") == 0
    identity, client = json.loads((run / "track" / "mlflow.json").read_text())["id"], MlflowClient()
    assert client.get_run(identity).info.status == "RUNNING"
    last = follow.read_rows(Run.read(run))[-1]
    began = (run / "config.json").stat().st_mtime
    history = client.get_metric_history(identity, "epoch/validation_accuracy")
    assert history[-1].timestamp == pytest.approx(1000 * (began + last["seconds"]), abs=1)
    (run / "later").rename(result.with_name("result.json"))
    assert track(run, "mlflow") == 0
    assert client.get_run(identity).info.status == "FINISHED"


def test_a_tracker_that_refuses_is_one_line(run, capsys, monkeypatch):
    installed("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://here")
    for name, project in (("mlflow", "p"), ("wandb", "a/b"), ("trackio", "registry-b")):
        assert main(["track", str(run), "--to", name, "--project", project]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"csbp_jax: --to {name}: ")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_reported(name, run, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    line = f"csbp_jax: --to {name}: needs the package {name}; pip install 'csbp_jax[{name}]'\n"
    assert refused("track", run, "--to", name) == line


def test_tracking_imports_no_jax():
    code = "import csbp_jax.evaluation.trackers, sys; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
