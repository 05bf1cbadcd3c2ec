"""Stopped at any point and resumed, a run ends with the same bits; SIGTERM is exit code 42, Ctrl-C 130."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from csbp_jax import configs
from csbp_jax.cli.main import main
from csbp_jax.evaluation import follow
from csbp_jax.evaluation.robustness import command
from csbp_jax.evaluation.robustness.measure import Plan
from csbp_jax.experiment import Experiment
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import restore
from csbp_jax.runtime.preemption import Stopped, on_signals
from csbp_jax.training import lr_finder, metrics_log
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from experiments import study
from tests.support import processes, small_runs
from tests.support.checkout import ROOT
from tests.support.checkpoint_arrays import arrays
from tests.support.small_run import timeless_rows
from tests.support.small_runs import QUIET
from tests.support.stops import After, send_within_collection

DIGITS = configs.load("digits")
# 19 steps an epoch, 3 batches in a validation.
SMALL = dataclasses.replace(
    DIGITS,
    epochs=2,
    batch_size=64,
    eval_batch_size=64,
    log_every=1,
    checkpoint_every=1,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8,), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
)


def run(root, stop=None):
    return train(SMALL, root=root, name="r", console=Console(file=io.StringIO(), width=200), stop=stop)


def left(run_folder):
    """All that a run leaves and that no clock decides: rows, and the arrays of its last checkpoint."""
    return timeless_rows(run_folder / "metrics.jsonl"), arrays(run_folder / "checkpoints")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    result = run(root)
    return root / "r", result


@pytest.mark.slow
def test_a_run_stopped_at_any_point_resumes_bit_for_bit(whole, tmp_path):
    # Within epoch 1; before its validation; within that; within epoch 2; within the validation of its end.
    for times, step in ((7, 7), (12, 19), (2, 19), (7, 22), (18, 38)):
        with pytest.raises(Stopped) as stopped:
            run(tmp_path, After(times))
        assert (stopped.value.code, stopped.value.step) == (42, step)
        assert list(layout.complete(tmp_path / "r" / "checkpoints"))[-1] == step
        assert read_rows(tmp_path / "r" / "metrics.jsonl")[-1]["step"] == step
    result = run(tmp_path)
    assert {**result, "seconds": 0} == {**whole[1], "seconds": 0}
    (rows, state), (whole_rows, whole_state) = left(tmp_path / "r"), left(whole[0])
    assert rows == whole_rows
    assert state == whole_state
    assert all(
        any(name.startswith(f"state/{part}/") for name in state) for part in ("params", "batch_stats", "opt_state")
    )


LINE = [
    *("-m", "csbp_jax", "train", "digits", "--name", "r", "--epochs", "5000", "--batch-size", "64", "--log-every", "1"),
    *("--model.name", "dense", "--model.features", "8", "--model.time-steps", "2", "--chaos.taps", "fc1.membrane"),
]


def signalled(tmp_path, number, ready):
    """Starts or resumes a run, sends it a signal once ``ready``, and gives its exit code, stdout and stderr."""
    line = [sys.executable, "-u", *LINE, "--runs", str(tmp_path)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    first = process.stdout.readline()
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    assert processes.listening(process.pid) == set()
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, first + out, err


def test_ports_are_seen():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = {port for _, port in processes.listening(os.getpid())}
        assert server.getsockname()[1] in ports or not pathlib.Path("/proc/self/fd").exists()


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 42), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("one_compilation_per_config")
def test_a_signal_in_training_saves_and_sets_the_exit_code(number, code, tmp_path, capsys, monkeypatch):
    """In this process; the next test has it from outside."""
    opened = metrics_log.opened

    @contextlib.contextmanager
    def signalling(file):
        with opened(file) as log:
            write = log.write

            def write_and_signal(row):
                write(row)
                if row["step"] == 3:
                    signal.raise_signal(number)

            monkeypatch.setattr(log, "write", write_and_signal)
            yield log

    monkeypatch.setattr(metrics_log, "opened", signalling)
    # Without a term, whose gradient would be another program.
    assert main([*LINE[2:], "--chaos.z0", "0", "--runs", str(tmp_path)]) == code
    step = list(layout.complete(tmp_path / "r" / "checkpoints"))[-1]
    assert step >= 3
    last = f"csbp_jax: stopped after step {step}, and all is saved; the same command resumes"
    assert capsys.readouterr().err.splitlines()[-1] == last


@pytest.mark.slow
def test_sigterm_is_exit_code_42_and_ctrl_c_130(tmp_path):
    metrics = tmp_path / "r" / "metrics.jsonl"
    found: list[int] = []
    for number, code in ((signal.SIGTERM, 42), (signal.SIGINT, 130)):
        begun = found[-1] if found else 0
        wanted = lambda: read_rows(metrics)[-1:] and read_rows(metrics)[-1]["step"] >= begun + 30  # noqa: B023, E731
        returned, out, err = signalled(tmp_path, number, wanted)
        assert returned == code
        reported = re.fullmatch(
            r"csbp_jax: stopped after step (\d+), and all is saved; the same command resumes", err.splitlines()[-1]
        )
        assert reported
        found += [int(reported[1])]
        assert list(layout.complete(tmp_path / "r" / "checkpoints"))[-1] == found[-1] >= begun + 30
        assert (f"resumed after step {begun}," if begun else "a new run") in out
    steps = [row["step"] for row in read_rows(metrics) if row["kind"] == "train"]
    assert steps == list(range(1, found[-1] + 1))


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_the_launcher_of_the_docs_resumes_after_each_preemption(tmp_path):
    (loop,) = re.findall(r"```sh\n(while .*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)
    more = f"--runs '{tmp_path}' --epochs 40 --batch-size 64 --log-every 1 --model.name dense --model.features 8"
    loop = loop.replace(".venv/bin/csbp_jax", f"{sys.executable} -m csbp_jax")
    loop = loop.replace("--name my-run", f"--name mine --chaos.taps fc1.membrane {more}")
    launcher = subprocess.Popen(["sh", "-c", loop], cwd=ROOT, stdout=-1, stderr=-1, text=True)
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    metrics = tmp_path / "mine" / "metrics.jsonl"
    reached, deadline = 0, time.monotonic() + 240
    for _ in range(2):
        while not any(row["step"] > reached + 20 for row in read_rows(metrics)):
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        (child,) = children.read_text().split()
        os.kill(int(child), signal.SIGTERM)
        while pathlib.Path(f"/proc/{child}").exists():
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        reached = list(layout.complete(metrics.parent / "checkpoints"))[-1]
    out, err = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, err
    assert err.count("and all is saved; the same command resumes") == 2 and out.count("resumed after step") == 2
    steps = [row["step"] for row in read_rows(metrics) if row["kind"] == "train"]
    assert steps == list(range(1, 40 * 19 + 1))


@pytest.mark.slow
def test_ctrl_c_while_it_compiles_is_one_line(tmp_path):
    code, _, err = signalled(tmp_path, signal.SIGINT, lambda: True)
    assert code == 130
    assert "Ctrl-C again stops at once" in err and "stopped" in err.splitlines()[-1] and "Traceback" not in err


HELD = """
import time
from csbp_jax.runtime.preemption import on_signals
with on_signals() as stop, stop.deferred():
    print("ready", flush=True)
    while True: time.sleep(0.01)
"""


def test_a_second_ctrl_c_ends_it_whatever_it_does():
    with subprocess.Popen([sys.executable, "-c", HELD], cwd=ROOT, stdout=-1, stderr=-1) as process:
        try:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == b"ready\n"
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
            for _ in range(50):
                process.send_signal(signal.SIGINT)  # one that arrived while the first was waiting is lost
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                    break
            assert process.returncode == -signal.SIGINT  # which a shell calls 130
            assert process.stderr.read() == b""  # a stop was requested before
        finally:
            process.kill()


def test_signals_stop_at_once_where_nothing_is_to_be_saved():
    before = signal.getsignal(signal.SIGTERM)
    for number, code in ((signal.SIGTERM, 42), (signal.SIGHUP, 42), (signal.SIGINT, 130)):
        with pytest.raises(Stopped) as stopped, on_signals():
            signal.raise_signal(number)
        assert stopped.value.code == code
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with on_signals() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.poll() is None
    finally:
        signal.signal(signal.SIGINT, before)


def experiment(folder, trained):
    Experiment(small_runs.SMALL, {"a": {}}, seeds=(0, 1)).run(folder / "e", console=QUIET())


def robustness_of_a_run(folder, trained):
    command.robustness([restore.restore(trained)], Plan(("noise",), examples=4), console=QUIET(), out=folder)


def ignored(folder):
    while True:
        yield


LOOPS = {
    "experiment": experiment,
    "robustness": robustness_of_a_run,
    "lr": lambda folder, trained: lr_finder.find(SMALL, out=folder, console=QUIET()),
    "track": lambda folder, trained: follow.follow(trained, ignored, until_finished=True),
    "study": lambda folder, trained: study.write_json(folder / "results.json", {}),
}


@pytest.mark.full
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 42), pytest.param(signal.SIGINT, 130, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("loop", ["study", *(pytest.param(n, marks=pytest.mark.full) for n in LOOPS if n != "study")])
def test_a_signal_whose_exception_is_lost_stops_a_loop(loop, number, code, trained, tmp_path):
    with on_signals():
        send_within_collection(number)
        with pytest.raises(Stopped) as stopped:
            LOOPS[loop](tmp_path, trained)
    assert stopped.value.code == code
