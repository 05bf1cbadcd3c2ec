"""The command line and the Makefile: one clear line for what is wrong, exit codes, nothing run by a shell."""

import dataclasses
import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

import csbp_jax
from csbp_jax import __main__, configs, data, models
from csbp_jax.cli import listing, main, options, parsing, sweep_commands
from csbp_jax.cli.commands import COMMANDS
from csbp_jax.cli.options import from_environment
from csbp_jax.config import AugmentName, CheckpointError, Config, ConfigError, Diverged, Lost, Model, Neuron
from csbp_jax.config.validation import allowed_range, hints
from csbp_jax.data.device import transform
from csbp_jax.evaluation import evaluate
from csbp_jax.models import norms, taps
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import restore
from csbp_jax.runtime.preemption import Stopped
from tests.support.checkout import ROOT, make
from tests.support.matching import search
from tests.support.rows import full, full_but

WRONG = {
    "trian": "there is no command 'trian'; perhaps you meant train, track (csbp_jax --help)",
    "train": "DATASET: missing; write csbp_jax train DATASET, such as digits (csbp_jax list)",
    "train cifar11": "DATASET: there is no config 'cifar11'; perhaps you meant cifar10, ",
    "train digits --chaos.zO 1": "--chaos.zO 1: there is no such option; perhaps you meant --chaos.z0",
    "train digits --foo 3": "--foo 3: there is no such option; csbp_jax train digits --help-all lists all options\n",
    "train digits z0 3": "z0 3: not expected here; perhaps you meant --chaos.z0\n",
    "train digits --epochs many": "epochs: 'many' is not possible; allowed is a whole number",
    "train digits --epochs": "Missing value for argument '--epochs'. Expected 1 values; csbp_jax train digits --he",
    "train digits --optimizer.clip x": "optimizer.clip: 'x' is not possible; allowed is a finite number or None",
    "train digits --data.size": "--data.size: it takes INT INT, or None\n",
    "train digits --model.name conv9": "model.name: 'conv9' is not possible; allowed is small_conv, dense, recurrent, ",
    "train digits --model.time-steps -4": "model.time_steps: -4 is not possible; allowed is from 1 to 100,000",
    "train digits --chaos.taps conv9.norm": "chaos.taps: this network has no conv9.norm; it has conv1.conv,",
    "train digits --deterministic True": "True: not expected here; csbp_jax train digits --help-all lists all options",
    "train digits --data.augment flip mixup": "data.augment: ('flip', 'mixup') is not possible with data.name digits",
    "sweep digits --grid seed=0,1,0": "GRID: seed=0 is given twice; give each value once (--grid)",
    "sweep digits --grid chaos.z0.conv1.membrane=x": "GRID: chaos.z0: ('x',) is not possible; allowed is (a finite",
    "sweep digits --grid=": "--grid: empty; give it a name",
    "sweep digits --grid seed=0 --shard=2/2": "--shard: '2/2' is not possible; write INDEX/COUNT",
    "sweep digits --grid z0=1": "GRID: there is no field z0; perhaps you meant chaos.z0",
    "train mnist --weights nosuch.pth": "csbp_jax: nosuch.pth: there is no such file",  # before the data
    "evaluate": "RUN: missing; write csbp_jax evaluate RUN",
    "evaluate nowhere": "nowhere: there is no such directory; name that of a run, such as runs/NAME",
    "evaluate mnist": "weights: empty; name a PyTorch checkpoint",
    "evaluate digits more": "more: not expected here; csbp_jax evaluate --help-all lists all options",
    "evaluate digits --splt test": "--splt test: there is no such option; perhaps you meant --split\n",
    "evaluate digits --split all": "--split: 'all' is not possible; allowed is test, validation, train",
    "robustness digits --only nois": "--only: there is no perturbation 'nois'; perhaps you meant noise",
    "best": "SWEEP: missing; write csbp_jax best SWEEP",
    "predict --top 3 r": "FILE: missing; write csbp_jax predict RUN FILE ...",
    "push r": "USER/NAME: missing; write csbp_jax push RUN USER/NAME",
    "compare": "RUN: missing; write csbp_jax compare RUN ...",
    "train digits --runs=gs://b/r": "--runs: 'gs://b/r' is not possible, locks and renames need a file system; mount",
    "lr digits --low 0": "--low, --high, --steps: 0.0, 10.0, 100; give 0 < low < high and 10 to 1,000,000 steps",
    "list cnn8": "there is no 'cnn8'; perhaps you meant cnn7",
    "list dvs_gesture_sew_7b": "csbp_jax: WHAT: 'dvs_gesture_sew_7b' is a preset; its network is sew_7b",
}
MORE_WRONG = {
    "train digits --z0 3": "--z0 3: there is no such option; perhaps you meant --chaos.z0\n",
    "train digits --lr=0.1": "--lr=0.1: there is no such option; perhaps you meant --optimizer.lr\n",
    "train digits --time_step 3": "--time_step 3: there is no such option; perhaps you meant --model.time-steps\n",
    f"train digits --epochs 1{5000 * '0'}": "0' is not possible; allowed is a whole number",
    "train digits --optimizer.nme sgd": "there is no such option; perhaps you meant --optimizer.name\n",
    "train digits --chaos.z0 a 3": "chaos.z0: ('a', 3.0) is not possible; allowed is (a finite number, ...)",
    "train digits --chaos.cut 1": "--chaos.cut: it takes FLOAT FLOAT, or None\n",
    "train digits --data.size 32": "--data.size: it takes INT INT, or None\n",
    "train digits --model.norm foo": "model.norm: 'foo' is not possible; allowed is batch, tdbn, tebn, bntt, none or",
    "sweep digits --grid epochs=many": "GRID: epochs: 'many' is not possible; allowed is a whole number (--grid)",
    "sweep digits --grid optimizer.lr=1e": "GRID: optimizer.lr: '1e' is not possible; allowed is a finite number (--",
    "sweep digits --grid seed=-1:2": "GRID: seed: '-1:2' is not possible; allowed is a whole number (--grid)",
    "sweep digits --grid chaos.beta=7": "GRID: chaos.beta: 7.0 is not possible; allowed is from 0 to 1 (--grid)",
    "sweep digits --grid model.remat=yes": "GRID: model.remat: 'yes' is not possible; allowed is True or False",
    "sweep digits --grid chaos.bta=1": "GRID: there is no field chaos.bta; perhaps you meant chaos.beta",
    "sweep digits --grid decay=1": "GRID: there is no field decay; perhaps you meant model.neuron.decay",
    "evaluate digits_bp": "weights: empty; name a PyTorch checkpoint",
    "evaluate digits --weights-of best": "'best' is not possible; allowed is last, chosen, ema",
    "robustness nowhere": "nowhere: there is no such directory",
    "best --seeds 3": "SWEEP: missing; write csbp_jax best SWEEP",
    "compare r1 --control=": "--control: empty; give it a name",
    "data mnist --from=hf://b/r": "--from: 'hf://b/r' is not possible; evaluate, predict, inspect, robustness and",
    "best x --sees 3": "--sees 3: there is no such option; perhaps you meant --seeds\n",
    "lr digits --high x": "--high: 'x' is not possible; allowed is a finite number",
    "lr digits --flips x": "--flips: 'x' is not possible; allowed is a finite number or None",
    "lr digits --steps 1000001": "give 0 < low < high and 10 to 1,000,000 steps",
    f"lr digits --steps 1{30 * '0'}": "is not possible; allowed is from 1 to 1,000,000,000",
    **{
        f"sweep digits --grid seed=0 --shard={shard}": f"--shard: {shard!r} is not possible; write INDEX/COUNT"
        for shard in ("-1/2", "1", "1/0", "a/b", "1/2/3")
    },
    **dict.fromkeys(
        [f"{command} mnist --weights nosuch.pth" for command in ("lr", "evaluate")],
        "csbp_jax: nosuch.pth: there is no such file",
    ),
}
"""Lines that are wrong as others are."""


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", [*WRONG, *full(MORE_WRONG)])
def test_errors_are_one_line_with_exit_code_2(line, refused, inside):
    assert (WRONG | MORE_WRONG)[line] in refused(*line.split())
    assert list(inside.iterdir()) == []


@pytest.mark.slow
def test_errors_are_one_line_on_a_terminal():
    """The option parser would draw coloured boxes there."""
    master, slave = pty.openpty()
    line = [sys.executable, "-m", "csbp_jax", "train", "digits", "--optimizer.nme", "sgd"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60"}
    assert subprocess.call(line, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env=environment) == 2
    os.close(slave)
    output = os.read(master, 10_000).decode()
    os.close(master)
    assert output.count("\n") == 1 and "--optimizer.nme sgd: there is no such option; perhaps you meant" in output


@pytest.mark.parametrize("line, message", [
    ("train mnist --data-dir=~/d", "mnist is not prepared in {}/d;"),
    ("data mnist --from=~/o", "{}/o: there is no such directory;"),
    *full([("train digits --runs=~/file/x", "{}/file")]),
    ("train folder --data.dir=~/f", "{}/f"),
    ("train mnist --weights=~/w.pth", "csbp_jax: {}/w.pth: there is no such file"),
    ("evaluate mnist --weights=w.pth --weights-table=~/t.json", "csbp_jax: {}/t.json: "),
])  # fmt: skip
def test_a_tilde_is_the_home_directory(refused, inside, monkeypatch, line, message):
    (inside / "file").write_text("")
    monkeypatch.setenv("HOME", str(inside))
    assert message.format(inside) in refused(*line.split())


@pytest.mark.parametrize("word", ["mine/", "./mine", ".//mine/."])
def test_a_directory_of_data_has_one_spelling(word):
    _, config, _ = options.read("train", COMMANDS["train"][0], ["folder", f"--data.dir={word}"])
    assert config.data.dir == "mine"


def test_a_name_with_a_line_break_or_control_characters_is_one_line(refused, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "two\nlines").mkdir(parents=True)
    error = refused("data", "folder", "--data.dir", str(tmp_path))
    assert "two\\nlines: is a folder within a class" in error
    error = refused("report", "a\x1b]0;owned\x07\u202e\u200d")
    assert error.startswith("csbp_jax: a\\x1b]0;owned\\x07\\u202e\u200d: there is no such directory")


@pytest.mark.parametrize("command, effect", [
    ("data", "can be run again"),
    ("train", "resumes"),
    ("sweep", "resumes"),
    ("best", "resumes"),
    ("robustness", "begins again"),
    ("evaluate", "can be run again"),
    ("lr", "begins again"),
    ("track", "continues"),
])  # fmt: skip
def test_a_signal_is_one_line_from_the_first_line_of_a_command_on(command, effect, capsys, monkeypatch):
    """Before the imports of the command, which take seconds."""
    stoppable = effect != "can be run again"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 42))[: 1 + stoppable]:
        interrupted = (COMMANDS[command][0], lambda argv, number=number: signal.raise_signal(number))
        monkeypatch.setitem(COMMANDS, command, interrupted)
        assert main.main([command, "digits"]) == code
        word = "stopped" if stoppable else "interrupted"
        assert capsys.readouterr().err == f"csbp_jax: {word}; the same command {effect}\n"


ERRORS = [
    (Diverged("diverged"), 3, "diverged"),
    (CheckpointError("r: no checkpoint"), 4, "r: no checkpoint"),
    (
        OSError(errno.ENOSPC, "No space left on device"),
        4,
        "on device; make room, and the same command resumes",
    ),
    (OSError(errno.EACCES, "Permission denied"), 2, "Permission denied"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2, "Broken pipe"),  # of something else than the output
    (MemoryError("Unable to allocate 7 GiB"), 2, "out of memory (Unable to allocate 7 GiB); give a smaller batch_size"),
    (OverflowError("int too large"), 2, "out of memory (int too large); give a smaller batch_size"),
    (
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBacktrace"),
        2,
        "out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.); give",
    ),
    (
        RuntimeError("FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above for more."),
        2,
        "Look at the errors above for more.); another process may hold the GPU's memory, see docs/scale.md#memory",
    ),
    (Lost("another process of this run has ended"), 5, "another process of this run has ended"),
    (Stopped(42, 7), 42, "stopped after step 7, and all is saved; the same command resumes"),
    (Stopped(130), 130, "stopped; the same command resumes"),
]


@pytest.mark.parametrize("error, code, message", ERRORS, ids=lambda value: str(value))
def test_each_kind_of_error_has_its_exit_code(error, code, message, capfd, monkeypatch):
    def fail(argv):
        raise error

    monkeypatch.setitem(COMMANDS, "train", (COMMANDS["train"][0], fail))
    assert main.main(["train", "digits"]) == code
    output = capfd.readouterr().err
    assert message in output and output.count("\n") == 1


def program(*words, **options):
    """The program as a process, and what it prints as errors."""
    line = [sys.executable, "-m", "csbp_jax", *words]
    return subprocess.run(line, cwd=ROOT, text=True, **{"stderr": subprocess.PIPE} | options)


@pytest.mark.full
def test_a_device_that_is_not_there_is_one_line(tmp_path):
    words = ("train", "digits", "--epochs", "1", "--runs", str(tmp_path))
    done = program(*words, env=os.environ | {"JAX_PLATFORMS": "cpu,abacus"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("csbp_jax: JAX_PLATFORMS: 'cpu,abacus': Unable to initialize backend 'abacus': ")


@pytest.mark.parametrize("variable, value, message", [
    ("JAX_DEFAULT_MATMUL_PRECISION", "foo", 'Invalid value "foo" for JAX flag jax_default_matmul_precision'),
    *full([
        ("JAX_ENABLE_X64", "maybe", "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
        ("JAX_NUM_CPU_DEVICES", "x", 'Invalid value "x" for JAX flag jax_num_cpu_devices'),
    ]),
])  # fmt: skip
def test_a_variable_that_jax_refuses_is_one_line(tmp_path, variable, value, message):
    words = ("train", "digits", "--epochs", "1", "--runs", str(tmp_path))
    done = program(*words, env=os.environ | {variable: value})
    expected = f"csbp_jax: {variable}: {message}; unset it, or give it another value\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_another_error_is_raised(monkeypatch):
    def fail(argv):
        raise AssertionError

    monkeypatch.setitem(COMMANDS, "train", (COMMANDS["train"][0], fail))
    with pytest.raises(AssertionError):
        main.main(["train", "digits"])


@pytest.mark.parametrize("line, columns", [("", 60), ("--help", 80), ("-h", 80)])
def test_help_lists_commands_and_exit_codes_within_the_terminal(line, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.main(line.split()) == 0
    output = capsys.readouterr().out
    assert all(f"csbp_jax {name} " in output for name in COMMANDS)
    assert "Exit codes: 0 done" in output and "csbp_jax list presets" in " ".join(output.split())
    assert columns - 20 < max(map(len, output.splitlines())) <= columns


WITH_CONFIG = ("train", "sweep", "lr", "data")
FLAT = hints(Config)
COMMON = {
    *("seed", "epochs", "batch_size", "patience", "data.dir", "model.name", "model.time_steps"),
    *("chaos.z0", "chaos.taps", "optimizer.lr"),
}


@pytest.mark.parametrize("command", full_but(["evaluate", "predict"], COMMANDS))
def test_help_of_a_command_lists_its_options(command, capsys):
    assert main.main([command, "--help-all"]) == 0
    words = capsys.readouterr().out.replace("│", " ").replace(",", " ").split()
    assert all(word in words for word in parsing.option_names(COMMANDS[command][0]) if "." not in word)
    assert ("--optimizer.clip" in words) == (command in WITH_CONFIG)


@pytest.mark.parametrize("command", full_but(["train"], WITH_CONFIG))
def test_help_shows_ten_fields_of_the_config_and_names_the_option_for_all(command, capsys):
    assert main.main([command, "digits", "--help"]) == 0
    text = capsys.readouterr().out
    words = text.replace("│", " ").replace(",", " ").split()
    of_command = [word for word in parsing.option_names(COMMANDS[command][0]) if word[2:].replace("-", "_") not in FLAT]
    shown = {word.replace("-", "_").strip("_") for word in words if word.startswith("--")}
    assert shown & {*FLAT} == COMMON and all(word in words for word in of_command)
    assert (
        text.splitlines()[-1] == f"csbp_jax {command} digits --help-all lists all {len(FLAT) + len(of_command)} options"
    )


def test_help_states_the_range_of_each_field_each_tensor_of_a_layer_and_that_frames_are_stretched(capsys):
    assert main.main(["train", "digits", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert text.count(" Allowed: ") == sum(allowed_range(hint) is not None for hint in FLAT.values())
    for field in ("--chaos.beta", "--model.neuron.decay"):
        assert "Allowed: from 0 to 1. (default: " in text.partition(f" {field} FLOAT")[2].partition(" --")[0]
    assert (
        "``" not in text
        and "Early stopping: number of epochs" in text
        and "--model.neuron.learn {none,layer,channel}" in text
    )
    tap_words, size = (text.partition(f" {field} ")[2].partition(" --")[0] for field in ("--chaos.taps", "--data.size"))
    described = set(re.findall(r"(\w+)(?= \()", tap_words))
    assert {kind.split(", ")[-1] for kind in taps.TAPS} <= described
    assert "stretched" in size and "aspect ratio" in size


def test_overrides_reach_the_config():
    line = "--chaos.z0 1 2 --chaos.taps conv1.norm conv2.norm --chaos.cut -10 9.9 --optimizer.clip 1 --deterministic"
    config = options.parse(configs.load("digits"), line.split(), "test")
    assert (config.chaos.z0, config.chaos.cut, config.optimizer.clip) == ((1.0, 2.0), (-10.0, 9.9), 1.0)
    assert config.deterministic and config.model == configs.load("digits").model


def test_make_passes_its_variables():
    given = {"CSBP_DATASET": "digits", "CSBP_NAME": "a", "CSBP_FRESH": "1", "CSBP_ARGS": "--chaos.z0 0 --name 'b c'"}
    assert from_environment("train", given) == ["digits", "--name=a", "--fresh", "--chaos.z0", "0", "--name", "b c"]
    more = {"CSBP_FROM": "a b", "CSBP_DATA_DIR": "d", "CSBP_DIR": "c"}
    words = from_environment("data", {"CSBP_DATASET": "digits", "CSBP_NAME": "a", **more})
    assert words == ["digits", "--from=a b", "--data-dir=d", "--data.dir=c"]
    assert from_environment("train", {"CSBP_DATASET": "my file.py"}) == ["my file.py"]


def make_with(tmp_path, *arguments, python=f'exec "{sys.executable}" "$@"', **more):
    """``make`` with this interpreter, or another program, in place of .venv, and more in its environment."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    (venv / "bin" / "python").write_text(f"#!/bin/sh\n{python}\n")
    (venv / "bin" / "python").chmod(0o755)
    if not (venv / ".installed").exists():
        (venv / ".installed").touch()
    return make(ROOT, f"VENV={venv}", *arguments, **more)


VARIABLES = ("DATASET", "NAME", "FRESH", "ARGS", "FROM", "DIR", "DATA_DIR")


def passed_by_make(tmp_path, *arguments, **environment):
    """Values of make's variables in the environment of the Python that it starts."""
    output = make_with(tmp_path, "train", *arguments, python="env -0", **environment).stdout.rstrip("\0").split("\0")
    return dict(line.split("=", 1) for line in output if line.split("=")[0].removeprefix("CSBP_") in VARIABLES)


def test_make_takes_its_variables_from_the_command_line_only(tmp_path):
    typed = {f"CSBP_{name}": f"a, $(b) {name}" for name in VARIABLES}
    defaults = {name: "" for name in typed} | {"CSBP_DATASET": "digits"}
    line = [f"{name}=a, $(b) {name}" for name in VARIABLES]
    environment = {name: "other" for name in VARIABLES} | {f"CSBP_{name}": "other" for name in VARIABLES}
    assert passed_by_make(tmp_path, *line) == typed
    assert {k: v for k, v in passed_by_make(tmp_path, **environment).items() if k in typed} == defaults
    assert {k: v for k, v in passed_by_make(tmp_path, "-e", **environment).items() if k in typed} == defaults
    assert {k: v for k, v in passed_by_make(tmp_path, *line, **environment).items() if k in typed} == typed


def test_make_refuses_a_variable_that_it_does_not_know(tmp_path):
    done = make_with(tmp_path, "train", "EPOCHS=1", "DATASET=digits", python="echo trained", SEED="3")
    assert done.returncode == 2 and "EPOCHS: make has no such variable; it has DATASET " in done.stderr
    assert done.stderr.count("\n") == 1 and "SEED" not in done.stderr.partition(";")[0] and "trained" not in done.stdout
    # The environments of the documentation and of the trackers may lie elsewhere, as in the slow tests.
    assert make_with(tmp_path, "help", f"PUBLISH={tmp_path}", f"TRACKERS={tmp_path}").returncode == 0


def test_make_installs_jax_for_an_accelerator_once_and_remembers_it(tmp_path):
    def installed(*arguments):
        done = make_with(tmp_path, *arguments, python='echo "$@"')
        assert done.returncode == 0, done.stderr
        packages = [line.split()[-1] for line in done.stdout.splitlines() if " pip install " in line]
        return packages, " libtpu" in done.stdout

    assert installed("setup") == ([], False)  # no plugin is asked for
    assert installed("setup", "ACCELERATOR=cuda12") == (["jax[cuda12]"], True)  # libtpu is removed
    assert installed("train") == ([], False)
    newer = (tmp_path / "venv" / ".accelerator-cuda12").stat().st_mtime + 10
    os.utime(tmp_path / "venv" / ".installed", (newer, newer))  # as after a change of the requirements
    assert installed("train") == (["jax[cuda12]"], True)
    assert installed("setup", "ACCELERATOR=tpu") == (["jax[tpu]"], False)
    assert installed("setup", "ACCELERATOR=cpu") == ([], True)
    assert [path.name for path in (tmp_path / "venv").glob(".accelerator-*")] == [".accelerator-cpu"]


@pytest.mark.parametrize("wrong", ["gpu", "", "cuda12 tpu", "%"])
def test_make_refuses_another_accelerator(tmp_path, wrong):
    done = make_with(tmp_path, "train", f"ACCELERATOR={wrong}", python="echo trained")
    assert done.returncode == 2 and "trained" not in done.stdout
    assert f'ACCELERATOR is one of cpu cuda12 cuda13 tpu, not "{wrong}"' in done.stderr


INJECTIONS = ["$(shell touch {})", "x; touch {}", "`touch {}`", '"; touch {}; "', "'; touch {}; '", "'\ntouch {}\n'"]
INJECTED = ["DATASET", "ARGS", "NAME", "FRESH"]


@pytest.mark.parametrize("form", INJECTIONS)
def test_make_and_its_shell_run_nothing_in_a_variable(tmp_path, form):
    mark = tmp_path / "mark"
    typed = {name: form.format(mark) for name in INJECTED}
    # With -i, make would go on after a first line of a command that fails.
    passed = passed_by_make(tmp_path, "-i", *(f"{name}={value}" for name, value in typed.items()))
    assert {name: passed[f"CSBP_{name}"] for name in INJECTED} == typed and not mark.exists()


TAKEN = ["PYTHON", "VENV", "PUBLISH", "TRACKERS", "XLA_FLAGS", "GLIBC_TUNABLES"]


@pytest.mark.parametrize("name", [*TAKEN, "SHELL", "FOO"])
def test_make_expands_no_variable_of_its_own_or_of_others(tmp_path, name):
    mark = tmp_path / "mark"
    done = make_with(tmp_path, "help", f"{name}=$(shell touch {mark})")
    assert done.returncode == (0 if name in TAKEN else 2) and not mark.exists()


def test_make_passes_the_flags_of_libraries_as_typed(tmp_path):
    flags = {"XLA_FLAGS": "--xla_a=1 $(b) '`c`\"", "GLIBC_TUNABLES": "glibc.malloc.perturb=0:$$"}
    typed = [f"{name}={value}" for name, value in flags.items()]
    done = make_with(tmp_path, "train", *typed, python="env")
    assert {*typed} <= {*done.stdout.splitlines()}


def test_make_says_what_to_fetch_where_data_are_missing(tmp_path, refused, monkeypatch):
    for name, value in passed_by_make(tmp_path, "DATASET=imagenet", f"DATA_DIR={tmp_path}").items():
        monkeypatch.setenv(name, value)
    error = refused("train", "--environment")
    assert "imagenet is not prepared" in error and "make data DATASET=imagenet FROM=" in error


def test_make_trains_on_class_folders_where_only_their_directory_is_given(tmp_path):
    for words, dataset in (((), "digits"), (("DIR=pictures",), "folder"), (("DIR=x", "DATASET=mnist"), "mnist")):
        assert passed_by_make(tmp_path, *words)["CSBP_DATASET"] == dataset


def test_make_fails_where_the_program_fails(tmp_path):
    done = make_with(tmp_path, "train", python="echo csbp_jax: wrong >&2; exit 2")
    assert done.returncode == 2 and done.stderr.startswith("csbp_jax: wrong\n")


def test_make_alone_lists_all_targets(tmp_path):
    done = make_with(tmp_path)
    assert done.returncode == 0 and 'ARGS="--chaos.z0 0' in done.stdout
    targets = search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert set(targets) == set(re.findall(r"^([a-z0-9-]+)  +", done.stdout, re.MULTILINE)) and "h100" in targets


def test_options_that_a_network_of_another_name_lacks_fall_away(capsys):
    kind, _ = COMMANDS["train"]
    _, config, _ = options.read("train", kind, ["digits", "--model.name", "cnn6"])
    assert config.model.name == "cnn6" and config.model.features is None
    error = capsys.readouterr().err
    assert error == "csbp_jax: model.features: (32, 64, 64) of digits is left out; cnn6 has none\n"
    assert options.read("train", kind, ["digits", "--model.name=dense"])[1].model.features == (32, 64, 64)
    assert "model." not in capsys.readouterr().err


@pytest.mark.parametrize("preset, network, more, taps, z0, lacks", [
    ("digits", "dense", "", "fc1.membrane", (10.0,), "conv1.membrane"),
    ("watch", "dense", "--chaos.z0=3", "fc1.membrane", (3.0,), "rec1.membrane"),
    ("cifar10_dvs", "dense", "", "fc1.membrane", (15.0,), "conv1.membrane"),  # of its two taps, dense has one
    ("digits", "dense", "--chaos.taps=fc2.norm", "fc2.norm", (10.0,), ""),
    *full([
        ("digits_bp", "dense", "", "fc1.membrane", (0.0,), "conv1.membrane"),
        ("folder", "recurrent", "", "rec1.membrane", (10.0,), "conv1.membrane"),  # shape and classes are the data's
        ("digits", "cnn6", "", "conv1.membrane", (10.0,), ""),
    ]),
])  # fmt: skip
def test_the_term_acts_on_the_first_membrane_where_the_network_lacks_the_taps_of_the_preset(
    preset, network, more, taps, z0, lacks, capsys
):
    kind, _ = COMMANDS["train"]
    _, config, _ = options.read("train", kind, [preset, "--model.name", network, *more.split()])
    assert (config.chaos.taps, config.chaos.z0) == ((taps,), z0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "chaos.taps" in line]
    text = f"{network} has no {lacks}, on which the term acts in {preset}; it acts on {taps} instead"
    assert lines == ([f"csbp_jax: chaos.taps: {text}"] if lacks else [])
    if "=" not in more or lacks:
        assert taps in models.tap_names(dataclasses.replace(config.model, input_shape=(64, 64, 3), classes=2))


def test_taps_that_are_given_are_refused_where_the_network_lacks_them(refused, inside):
    error = refused(*["train", "digits", "--model.name", "dense", "--chaos.taps", "conv1.membrane"])
    assert "chaos.taps: this network has no conv1.membrane; it has fc1.dense, " in error


def test_outside_the_environment_one_line_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "csbp_jax", "train", "digits"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "needs the packages" in done.stderr and "of a clone: make setup, then .venv/bin/csbp_jax\n" in done.stderr


def test_version(capsys):
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"csbp_jax {csbp_jax.__version__}\n"


def test_list_shows_all_names(capsys):
    assert main.main(["list"]) == 0
    words = capsys.readouterr().out.replace(":", " ").replace(",", " ").split()
    model, neuron = get_type_hints(Model), get_type_hints(Neuron)
    norm = get_args(get_args(model["norm"])[0])
    assert {*data.NAMES, *configs.NAMES, *get_args(model["name"]), *get_args(neuron["surrogate"]), *norm} <= {*words}
    assert {*models.NEURONS} == {*get_args(neuron["name"])} <= {*words}
    assert {*models.NETWORKS} == {*get_args(model["name"])} and {*norms.NORMS} == {*norm}
    assert {"conv", "current", "membrane_pre"} <= {*words}
    assert {*transform.AUGMENTATIONS} == {*get_args(AugmentName)} <= {*words}


def test_list_shows_the_network_and_the_time_steps_of_every_preset(capsys):
    assert main.main(["list", "presets"]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    for name in configs.NAMES:
        model = configs.load(name).model
        (cells,) = [row for row in rows if row[:1] == [name] and model.name in row[1:]]
        assert str(model.time_steps) in cells, name


NAMES = {"presets": configs.NAMES, "networks": models.NETWORKS, "neurons": models.NEURONS, "norms": norms.NORMS}


@pytest.mark.parametrize("kind, names", NAMES.items())
def test_no_name_is_broken_in_80_columns(capsys, monkeypatch, kind, names):
    monkeypatch.setattr(listing, "Console", lambda **_: Console(width=80, highlight=False, markup=False))
    assert main.main(["list", kind]) == 0
    assert {*names} <= {*capsys.readouterr().out.split()}


def test_list_says_for_which_data_an_augmentation_is():
    for name, words in transform.AUGMENTATIONS.items():
        kinds = words.rpartition("; ")[2]
        assert ("images" in kinds) == (name in transform.ON_HOST or name in transform._MIX), name
        assert ("events" in kinds) == (name in transform._ON_EVENTS or name in transform._MIX), name


def test_list_shows_all_taps_of_a_network(capsys):
    assert main.main(["list", "cnn6", "dense"]) == 0
    taps = capsys.readouterr().out.split()
    assert {"conv1.conv", "conv4.membrane", "readout.dense", "fc2.membrane_pre"} < {*taps} and len(taps) == 18 + 8


@pytest.mark.parametrize("line", ["--help", pytest.param("list", marks=pytest.mark.slow)])
def test_a_closed_pipe_ends_silently(line):
    reader, writer = os.pipe()
    os.close(reader)
    done = program(*line.split(), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (main.CLOSED_PIPE, "")


def test_an_output_on_a_full_disk_is_exit_code_4():
    with open("/dev/full", "w") as full:
        done = program("--version", stdout=full)
        assert done.returncode == 4 and re.fullmatch(r"csbp_jax: .*No space left on device; make room.*\n", done.stderr)
        assert program("--version", stdout=full, stderr=full).returncode == 4


@pytest.mark.parametrize("line, code", [*full([("--version", 0)]), ("trian", 2)])
def test_closed_outputs_change_no_exit_code(line, code):
    shell = f'exec "$0" -m csbp_jax {line} >&- 2>&-'
    assert subprocess.run(["sh", "-c", shell, sys.executable], cwd=ROOT).returncode == code


def test_a_name_that_is_not_utf8_is_printed_as_its_bytes(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def predict():
        print(os.fsdecode(b"\xff.npy"))
        return 0

    monkeypatch.setattr(main, "main", predict)
    __main__.run()
    assert output.buffer.getvalue() == b"\xff.npy\n"


@pytest.mark.parametrize("line, function", [
    ("train digits --deterministic", "csbp_jax.training.loop.train"),
    ("sweep digits --grid seed=0 --deterministic", "csbp_jax.experiment.Experiment.run"),
    ("lr digits --deterministic", "csbp_jax.training.lr_finder.find"),
])  # fmt: skip
def test_all_that_trains_asks_for_deterministic_kernels(line, function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", of_the_user := os.environ["XLA_FLAGS"])
    flags: list[str] = []

    def trained(*args, **options):
        flags.append(os.environ["XLA_FLAGS"])
        raise ConfigError("enough")

    monkeypatch.setattr(function, trained)
    assert main.main(line.split()) == 2
    assert flags == [f"{of_the_user} --xla_gpu_deterministic_ops=true"]


def test_on_a_gpu_deterministic_kernels_cannot_be_asked_for_after_an_array_was_made(tmp_path, refused, monkeypatch):
    lines = ["import jax.numpy", "from csbp_jax import configs", "config = configs.load('digits')"]
    (tmp_path / "own.py").write_text("\n".join([*lines, "x = jax.numpy.ones(2)"]))
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    monkeypatch.setattr("csbp_jax.training.loop.train", lambda *args, **options: None)
    monkeypatch.setattr("csbp_jax.runtime.private.backend_of_jax", lambda: "gpu")
    assert main.main(["train", str(tmp_path / "own.py")]) == 0
    assert "deterministic: too late, JAX has started already; make the" in refused(
        "train", tmp_path / "own.py", "--deterministic"
    )
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_gpu_deterministic_ops=true")
    assert main.main(["train", str(tmp_path / "own.py"), "--deterministic"]) == 0


def test_the_control_of_robustness_may_be_on_the_hub_as_the_runs(monkeypatch):
    measured = []
    monkeypatch.setattr(restore, "restore", lambda run, *_, **__: run)
    robustness = "csbp_jax.evaluation.robustness.command.robustness"
    monkeypatch.setattr(robustness, lambda runs, plan, control, **_: measured.append((runs, control)))
    assert main.main(["robustness", "hf://a/b", "--control", "hf://a/c"]) == 0
    assert measured == [(["hf://a/c", "hf://a/b"], "hf://a/c")]


def test_a_run_that_is_called_like_a_preset_is_evaluated(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    evaluated = []
    monkeypatch.setattr(restore, "restore", lambda run, *_, **__: run)
    monkeypatch.setattr(evaluate, "evaluate_run", lambda run, **options: evaluated.append((run, options["split"])))
    assert main.main(["evaluate", "mnist", "--split", "train"]) == 0
    assert evaluated == [("mnist", "train")]


@pytest.mark.parametrize(
    "more, precision",
    [([], "float32"), (["--model.precision", "bfloat16"], "bfloat16"), (["--model.precision=float32"], "float32")],
)
def test_weights_are_evaluated_in_float32_unless_a_precision_is_given(more, precision, capsys, monkeypatch):
    configs_seen = []
    monkeypatch.setattr(evaluate, "evaluate", lambda config, data_dir: configs_seen.append(config))
    assert main.main(["evaluate", "dvs_gesture_sew_7b", "--weights", "a.pth", *more]) == 0
    assert [config.model.precision for config in configs_seen] == [precision]
    notice = "csbp_jax: model.precision: float32, as in the original code; for the preset's, add --model.precision bf"
    assert capsys.readouterr().err.startswith(notice) != bool(more)


@pytest.mark.parametrize(
    "words, count",
    [
        ("batch_size=64,128 optimizer.accumulate=64", 2),
        *full(
            [
                ("model.norm=none model.init_rate=0.1,0.2", 2),
                ("loss.firing_low=0.6 loss.firing_high=0.8,0.9 loss.firing=1", 2),
                ("model.neuron.detach_reset=False,True model.remat=True", 2),
            ]
        ),
    ],
)
def test_values_of_a_grid_are_checked_together(words, count, monkeypatch, tmp_path):
    swept: list[int] = []

    def run(experiment, *args, **options):
        swept.append(len(experiment.plan().settings))
        raise ConfigError("enough")

    monkeypatch.setattr("csbp_jax.experiment.Experiment.run", run)
    line = ["sweep", "digits", "--chaos.taps", "conv1.norm", "conv2.norm", "--chaos.z0", "1", "2", "--grid", words]
    assert main.main([*line, "--sweeps", str(tmp_path)]) == 2 and swept == [count]


def test_a_control_needs_not_be_possible_alone():
    control = sweep_commands.parse_control(configs.load("digits"), "model.init_rate=0.1 model.remat=False")
    assert control == {"model.init_rate": 0.1, "model.remat": False}
