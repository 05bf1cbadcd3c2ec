"""Several processes as one run: the same numbers, files once, one step at which all stop, no waiting for the lost."""

import os
import pathlib
import re
import signal
import subprocess
import time
import types
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from csbp_jax.cli.main import main
from csbp_jax.config import ConfigError
from csbp_jax.runtime import multihost, private
from csbp_jax.runtime.preemption import Stop
from csbp_jax.training import run_json
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.metrics_log import read_rows
from tests.support import formats, processes
from tests.support.checkpoint_arrays import arrays

LINE = [
    *("digits", "--name", "r", "--batch-size", "64", "--eval-batch-size", "50", "--log-every", "1"),
    *("--model.name", "dense", "--model.features", "8", "--model.time-steps", "2", "--chaos.taps", "fc1.membrane"),
]


def test_off_is_this_process_and_its_own_stop():
    stop = Stop()
    with multihost.connected("off", stop) as shared:
        assert shared is stop
    assert multihost.broadcast_from_host0(lambda: (1, pathlib.Path("x"))) == (1, pathlib.Path("x"))


@pytest.fixture
def calls(monkeypatch):
    """What is connected and disconnected, which is only recorded."""
    recorded: list[str] = []
    monkeypatch.setattr(multihost, "_connect", recorded.append)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: recorded.append("shutdown"))
    return recorded


def test_others_that_jax_finds_are_connected_by_default_and_not_ignored(monkeypatch, calls):
    with multihost.connected(None, Stop()) as shared:
        assert calls == [] and type(shared) is Stop
    monkeypatch.setattr(private, "found_processes", lambda: 4)
    with multihost.connected(None, Stop()):
        assert calls == ["auto"]


def test_off_asks_nobody_for_other_processes(monkeypatch, calls):
    """To ask a metadata server that does not answer takes up to a minute."""
    monkeypatch.setattr(private, "found_processes", lambda: pytest.fail("asked"))
    with multihost.connected("off", Stop()):
        assert calls == []


@pytest.fixture
def visible(monkeypatch):
    """The settings by which JAX, before it starts, is limited to some GPUs."""
    settings: dict[str, str] = {}
    monkeypatch.setattr(private, "backend_of_jax", lambda: None)
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    return settings


SLURM = {"JOB_ID": "7", "STEP_NODELIST": "node[1-2]", "NTASKS": "4", "PROCID": "3", "LOCALID": "1"}
OPEN_MPI = {"RANK": "2", "SIZE": "3", "LOCAL_RANK": "0"}


def test_the_launcher_says_which_process_this_is_and_jax_is_not_connected(monkeypatch, calls, visible):
    assert multihost.launched() == (0, 1) and not visible
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert multihost.launched() == (3, 4) and visible["jax_cuda_visible_devices"] == "1"
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,1")
    multihost.launched()
    assert visible["jax_cuda_visible_devices"] == "0,1"
    monkeypatch.delenv("JAX_LOCAL_DEVICE_IDS")
    for name, value in OPEN_MPI.items():  # also by mpirun within a job of Slurm
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    assert multihost.launched() == (2, 3) and visible["jax_cuda_visible_devices"] == "0"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="OMPI_COMM_WORLD_SIZE: 'many' is no number"):
        multihost.launched()
    assert calls == []


def test_processes_with_different_numbers_of_devices_are_refused_and_disconnect(monkeypatch, calls):
    devices = [types.SimpleNamespace(process_index=process) for process in (0, 0, 1, 1, 2)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    message = "--distributed: process 0 has 2 devices, but process 2 has 1; start all with equally many"
    with pytest.raises(ConfigError, match=message), multihost.connected("auto", Stop()):
        pass
    assert calls == ["auto", "shutdown"]


def test_all_devices_are_connected_before_anything_that_one_process_does_first(monkeypatch, calls):
    """The first collective of some devices waits for a late process for a short time only."""
    groups: list[Any] = []

    def broadcast(value):
        groups.append("one of each process")
        return value

    def gathered(value, tiled=False):
        groups.append(value.sharding.device_set if tiled else "one of each process")
        return np.stack([value, value])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with multihost.connected("auto", Stop()):
        assert "one of each process" in groups and set(jax.devices()) in groups


def test_an_error_that_names_a_file_that_is_not_utf8_reaches_all(monkeypatch):
    message = b"0caf\xe9: missing"

    def gathered(ours):
        """What process 0 gets, where the other fails: the lengths of the messages, then the messages."""
        theirs = np.frombuffer(message, np.uint8) if ours.ndim else np.int32(len(message))
        return np.stack([ours, theirs])

    def fails():
        raise ConfigError("caf\udce9: missing")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with pytest.raises(ConfigError, match=r"^caf\udce9: missing$"):
        multihost.all_succeed(fails)
    with pytest.raises(ConfigError, match=r"^caf\udce9: missing \(in process 1\)$"):
        multihost.all_succeed(lambda: None)


@pytest.mark.parametrize("kind", [ConfigError, OSError, RuntimeError])
def test_process_0_waits_for_the_others_after_an_error_of_any_kind_that_it_passed_to_them(monkeypatch, calls, kind):
    """They wait for it, so that it must disconnect as they do."""
    monkeypatch.setattr(multihost, "_connect_devices", lambda: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", lambda value: value)

    def fails():
        raise kind("no space")

    with pytest.raises(kind, match="no space"), multihost.connected("auto", Stop()):
        multihost.broadcast_from_host0(fails)
    assert calls == ["auto", "shutdown"]


@pytest.mark.parametrize("kind", [OSError, KeyError])
def test_a_process_raises_an_error_of_any_kind_only_after_it_has_passed_it_on(monkeypatch, kind):
    sent: list[bytes] = []

    def gathered(ours):
        sent.append(ours.tobytes())
        return np.stack([ours, np.zeros_like(ours)])

    def fails():
        raise kind("no file")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    with pytest.raises(kind, match="no file"):
        multihost.all_succeed(fails)
    assert len(sent) == 2 and b"no file" in sent[1]


def test_decisions_and_errors_of_one_process_reach_all(tmp_path):
    how = f"127.0.0.1:{processes.free_port()},2"
    script = ["-m", "tests.support.process_agreement"]
    lines = [[*script, f"{how},{process}", str(process), tmp_path / "file"] for process in range(2)]
    codes, reported, errors = processes.finish(processes.start_lines(lines), 120)
    assert codes == [0, 0], errors
    for process, text in enumerate(reported):
        # Gloo prints a line of its own, into which another thread may write.
        assert [line for line in text.splitlines() if "Gloo" not in line and "peer ranks" not in line] == [
            str(process == 0),
            "['of', 0] None",
            "CheckpointError: damaged, says 0",
            str(process),
            f"ConfigError: no data{' (in process 0)' if process else ''}",
            "ConfigError: ZeroDivisionError: 1 / 0 (in process 0)" if process else "ZeroDivisionError: 1 / 0",
            str(bool(process)),
            "ConfigError: damaged, says 0",
            "None",
            "ConfigError: options: not the same in all processes; give all of them the same command and the same data"
            f"{'' if process else ' (in process 1)'}",
            f"{'ConfigError' if process else 'OSError'}: no space",
        ]


@pytest.mark.slow
@pytest.mark.parametrize("late", ["in loading", "before a step"])
def test_the_others_wait_for_a_late_process_for_longer_than_devices_take_to_connect(late):
    how = f"127.0.0.1:{processes.free_port()},2"
    lines = [["-m", "tests.support.late_process", f"{how},{process}", late] for process in range(2)]
    codes, reported, errors = processes.finish(processes.start_lines(lines), 240)
    assert codes == [0, 0], errors
    assert all("4.0" in text.splitlines() for text in reported), reported


@pytest.mark.slow
def test_one_process_makes_the_cache_of_all(tmp_path):
    """The cached arrays are out of date, as after a copy: process 0 makes them, and the other reads its files."""
    raw, folder = tmp_path / "raw", tmp_path / "data"
    raw.mkdir()
    formats.mnist(raw)
    prepare = ["data", "mnist", "--from", str(raw), "--no-verify", "--data-dir", str(folder)]
    assert main(prepare) == 0
    for file in folder.glob("mnist/*/*array_record*"):
        os.utime(file, (1, 1))
    options = ["--runs", str(tmp_path / "runs"), "--name", "r", "--data-dir", str(folder), "--epochs", "1"]
    options += ["--batch-size", "8", "--eval-batch-size", "8", "--chaos.taps", "fc1.membrane"]
    options += ["--model.name", "dense", "--model.features", "4", "--model.time-steps", "2"]
    options += ["--distributed", f"127.0.0.1:{processes.free_port()},2"]
    script = ["-m", "tests.support.opened_files", str(folder)]
    lines = [
        [*script, str(tmp_path / f"opened{process}"), "train", "mnist", *options[:-1], f"{options[-1]},{process}"]
        for process in range(2)
    ]
    codes, _, errors = processes.finish(processes.start_lines(lines, devices=1))
    assert codes == [0, 0], errors
    opened = [
        [pathlib.Path(name).name for name in (tmp_path / f"opened{process}").read_text().splitlines()]
        for process in range(2)
    ]
    made = [{name for name in names if name.endswith(".part")} for names in opened]
    assert len(made[0]) == 2 and not made[1]
    assert opened[1].count("dataset_info.json") <= 6


@pytest.mark.parametrize("restarts", ["", "8", "9"])
@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 42, 134])
def test_the_slurm_script_requeues_what_can_resume_and_ends_with_the_code_of_the_run(code, restarts):
    """After a process was lost, not for ever: the cause may come back each time."""
    page = (processes.ROOT / "docs" / "scale.md").read_text()
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    programs = f"srun() {{ return {code}; }}\nscontrol() {{ echo $1; }}\n"
    environment = {**os.environ, "SLURM_RESTART_COUNT": restarts}
    done = subprocess.run(["sh", "-c", programs + script], stdout=-1, text=True, env=environment)
    requeued = code == 42 or (code in (5, 134) and restarts != "9")
    assert (done.returncode, done.stdout) == (code, "requeue\n" if requeued else "")


def rows(runs):
    return read_rows(runs / "r" / "metrics.jsonl")


def wait_for(step, runs, running):
    deadline = time.monotonic() + 120
    while not any(row["step"] >= step for row in rows(runs)):
        assert all(process.poll() is None for process in running) and time.monotonic() < deadline
        time.sleep(0.02)


TOLERANCES = {"float64": 1e-5, "float32": 1e-5}
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def line_of_sequences(folder):
    """200 sequences of 1 to 8 time steps in a class folder each."""
    rng = np.random.default_rng(0)
    for i in range(200):
        (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
        np.save(folder / str(i % 2) / f"{i}.npy", rng.normal(i % 2, 2, (rng.integers(1, 9), 3)))
    return [
        *("folder", "--data.dir", str(folder), *LINE[1:3], "--batch-size", "8", "--eval-batch-size", "12"),
        *("--model.name", "recurrent", "--model.features", "8", "--model.time-steps", "8"),
        *("--chaos.taps", "rec1.membrane", "--log-every", "1", "--data.buckets", "2"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("data, counts", [("digits", [359, 180]), ("sequences", [40, 16])])
def test_two_processes_stopped_once_are_one_process(data, counts, tmp_path):
    """In float64; parameters are float32 (test_continuing.py has them in float64)."""
    of_data = LINE if data == "digits" else line_of_sequences(tmp_path / "sequences")
    line = [*of_data, "--epochs", "5", "--runs"]
    codes, _, errors = processes.finish(
        processes.start([*line, str(tmp_path / "one")], 1, devices=4, JAX_ENABLE_X64="1")
    )
    assert codes == [0], errors
    two = tmp_path / "two"
    running = processes.start([*line, str(two)], JAX_ENABLE_X64="1", GRPC_VERBOSITY="error")
    wait_for(1, two, running)
    running[1].send_signal(signal.SIGSTOP)  # no step passes while the sockets are listed
    if pathlib.Path("/proc/self/fd").exists():
        addresses = [{address for address, _ in processes.listening(process.pid)} for process in running]
        assert addresses[0] and set().union(*addresses) <= LOOPBACK
    for number in (signal.SIGTERM, signal.SIGCONT):
        running[1].send_signal(number)
    codes, _, errors = processes.finish(running)
    assert codes == [42, 42], errors
    (step,) = layout.complete(two / "r" / "checkpoints")
    assert [path.name for path in (two / "r" / "checkpoints").iterdir()] == [str(step)]
    assert all(f"stopped after step {step}, and all is saved" in error for error in errors), errors
    assert not (two / "r" / "result.json").exists() and step < rows(tmp_path / "one")[-1]["step"]
    codes, reported, errors = processes.finish(processes.start([*line, str(two)], JAX_ENABLE_X64="1"))
    assert codes == [0, 0], errors
    assert f"resumed after step {step}," in reported[0] and "resumed" not in reported[1]

    assert [(row["kind"], row["step"]) for row in rows(two)] == [(r["kind"], r["step"]) for r in rows(tmp_path / "one")]
    ones, twos = (run_json.read_result(tmp_path / name / "r") for name in ("one", "two"))
    ended = [(of, rows(tmp_path / name)[-1]) for name, of in (("one", ones), ("two", twos))]
    assert [[of["last"]["test_count"], row["validation_count"]] for of, row in ended] == [counts, counts]
    there, here = (arrays(tmp_path / name / "r" / "checkpoints") for name in ("one", "two"))
    assert there.keys() == here.keys()
    for name, (kind, _, content) in there.items():
        if kind in TOLERANCES:
            mine, theirs = (np.frombuffer(bits, kind) for bits in (here[name][2], content))
            np.testing.assert_allclose(mine, theirs, rtol=TOLERANCES[kind], atol=TOLERANCES[kind], err_msg=name)


@pytest.mark.slow
def test_checkpoints_that_not_all_processes_see_are_refused_before_training(tmp_path):
    """The same relative path on disks of their own."""
    how, running = f"127.0.0.1:{processes.free_port()},2", []
    for process in range(2):
        (tmp_path / str(process)).mkdir()
        line = ["-m", "csbp_jax", "train", *LINE, "--epochs", "1", "--distributed", f"{how},{process}"]
        running += processes.start_lines([line], devices=1, cwd=tmp_path / str(process))
    codes, _, errors = processes.finish(running, 400)
    assert codes == [4, 4], errors
    assert all("not all processes see what process 0 writes there" in error for error in errors), errors
    assert not (tmp_path / "0" / "runs" / "r" / "checkpoints").exists() and not rows(tmp_path / "0" / "runs")


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_ends_soon_and_the_run_resumes(tmp_path):
    line = [*LINE, "--epochs", "400", "--checkpoint-every", "1", "--runs", str(tmp_path)]
    running = processes.start(line)
    wait_for(60, tmp_path, running)
    running[1].kill()
    began = time.monotonic()
    codes, _, errors = processes.finish(running, multihost.HEARTBEAT_SECONDS + 60)
    assert codes[0] in (5, -signal.SIGABRT) and codes[1] == -signal.SIGKILL, errors
    assert time.monotonic() - began < multihost.HEARTBEAT_SECONDS + 20
    assert layout.complete(tmp_path / "r" / "checkpoints")
    reached = rows(tmp_path)[-1]["step"]
    running = processes.start(line)
    wait_for(reached + 20, tmp_path, running)
    running[0].send_signal(signal.SIGINT)
    codes, reported, errors = processes.finish(running)
    assert codes == [130, 42], errors
    assert "resumed after step" in reported[0]
    steps = [row["step"] for row in rows(tmp_path) if row["kind"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))


def test_a_long_wait_for_other_processes_is_said(monkeypatch, capsys):
    for seconds, said in ((0.01, "csbp_jax: waiting\n"), (60, "")):
        monkeypatch.setattr(multihost, "QUIET_SECONDS", seconds)
        with multihost._said_if_long("waiting"):
            time.sleep(0.3)
        assert capsys.readouterr().err == said
