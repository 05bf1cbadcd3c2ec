"""The commands sweep and best: their words, what they train, show and write, and how they go on."""

import functools
import re
import shutil
import signal
import time

import numpy as np
import pandas
import pytest

from csbp_jax import configs
from csbp_jax.cli import main, options, sweep_commands
from csbp_jax.experiment import system
from csbp_jax.runs import RunTable
from csbp_jax.runs.run import tested_columns as columns_of
from csbp_jax.runtime import seals
from csbp_jax.training import compiled
from tests.support import processes
from tests.support.rows import full

DIGITS = configs.load("digits")
LINE = ["--model.name", "dense", "--model.features", "6", "--model.time-steps", "2", "--chaos.taps", "fc1.membrane"]
LINE += ["--epochs", "2", "--batch-size", "320", "--chaos.z0", "10"]


# A twentieth of a second for each value of a grid, of which most are those of other grids.
read_field = functools.cache(options.read_field)


@pytest.fixture
def sweep(tmp_path, capsys):
    """Runs ``csbp_jax sweep`` and returns its exit code and what it printed."""

    def command(*words, name="s", kind="sweep"):
        of_sweep = (
            ["digits", *LINE, "--sweeps", str(tmp_path), "--name", name] if kind == "sweep" else [str(tmp_path / name)]
        )
        code = main.main([kind, *of_sweep, *words])
        out = capsys.readouterr()
        return code, out.out + out.err

    return command


@pytest.fixture
def trained(monkeypatch):
    """Results that a function of the config gives, without programs or figures; the configs, in chunks."""
    chunks = []

    def accuracy(config):
        return 0.5 + 0.01 * config.chaos.z0[0] + 0.1 * config.optimizer.lr

    def train(lift, records, show, save, saves=None, called=None):
        of_members = lift.configs
        chunks.append(of_members)
        shares = np.array([accuracy(c) - 0.001 * (c.seed % 3) for c in of_members])
        names = [f"{kind}_{name}" for name in columns_of(["test_accuracy"]) for kind in ("last", "chosen")]
        diverged = np.array([c.optimizer.lr > 1 for c in of_members])
        rates = {"rates.fc1": np.array([[0.5, 0.1 * (c.seed == 0)] for c in of_members])}
        return {name: np.where(diverged, np.nan, shares) for name in names} | {"diverged": diverged} | rates

    monkeypatch.setattr(system, "train", train)
    monkeypatch.setattr(compiled.CompiledRun, "trace", lambda run: None)
    monkeypatch.setattr(sweep_commands, "read_field", read_field)
    for name in ("plots.save", "plots_runs.draw", "plots_runs.draw_curves"):  # a fifth of the time and more
        monkeypatch.setattr(f"csbp_jax.reporting.{name}", lambda *_, **__: None)
    return chunks


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("chaos.z0=0,1.5 seed=0:3,7", {"chaos.z0": [(0.0,), (1.5,)], "seed": [0, 1, 2, 7]}),
        ("model.norm=none chaos.z0.conv1.membrane=3", {"model.norm": ["none"], "chaos.z0.conv1.membrane": [3.0]}),
    ],
)
def test_words_of_a_grid(text, grid):
    assert sweep_commands.parse_grid(DIGITS, text) == grid


def test_a_sweep_answers_first_and_writes_its_tables(sweep, tmp_path):
    code, text = sweep("--grid", "chaos.z0=0,3 seed=0:3", "--margin", "20")
    assert code == 0
    first = next(line for line in text.splitlines() if line.startswith("last epoch"))
    assert re.match(r"last epoch: chaos.z0 3.0 - chaos.z0 0.0: [+-]\d+\.\d\d \[.*\] points, p .*, 3 seeds", first)
    assert text.index(first) < text.index("settings") < text.index("differences.csv")
    frame = pandas.read_csv(tmp_path / "s" / "runs.csv")
    assert frame[["arm", "seed"]].to_numpy().tolist() == [
        [f"chaos.z0 {z}", s] for z in ("0.0", "3.0") for s in range(3)
    ]
    difference = pandas.read_csv(tmp_path / "s" / "differences.csv").iloc[0]
    means = frame.groupby("arm")["last_test_accuracy"].mean()
    assert difference["difference"] == pytest.approx(100 * (means["chaos.z0 3.0"] - means["chaos.z0 0.0"]))
    assert r"\toprule" in (tmp_path / "s" / "tables.tex").read_text() and "epochs.csv" in text
    for name in ("comparison.pdf", "curves.pdf"):
        assert (tmp_path / "s" / name).stat().st_size > 2000
    curves = pandas.read_csv(tmp_path / "s" / "epochs.csv")
    assert len(curves) == 2 * 3 * 2 and {"task_loss", "z.fc1.membrane", "rates.fc1"} <= set(curves)
    assert RunTable.read(tmp_path / "s").arms == ["chaos.z0 0.0", "chaos.z0 3.0"]


def test_other_data_of_a_grid_are_cases():
    grid = sweep_commands.parse_grid(DIGITS, "data.name=digits,digits_events chaos.z0=0,3 seed=0,1")
    experiment = sweep_commands.of_grid(system.Training(DIGITS), grid)
    assert list(experiment.cases) == ["data.name digits", "data.name digits_events"]
    assert list(experiment.arms) == ["chaos.z0 0.0", "chaos.z0 3.0"] and experiment.seeds == [0, 1]
    experiment = sweep_commands.of_grid(system.Training(DIGITS), {"seed": [3, 4]})
    assert experiment.arms == {"all": {}} and experiment.cases == {"": {}} and experiment.seeds == [3, 4]


def test_every_setting_has_its_own_control(sweep, trained, tmp_path):
    code, text = sweep("--grid", "optimizer.lr=0.1,0.2 chaos.z0=0,3 seed=0,1")
    assert code == 0 and [len(chunk) for chunk in trained] == [8]
    differences = pandas.read_csv(tmp_path / "s" / "differences.csv")
    pairs = {(f"optimizer.lr {lr}, chaos.z0 3.0", f"optimizer.lr {lr}, chaos.z0 0.0") for lr in (0.1, 0.2)}
    assert set(zip(differences["arm"], differences["other"], strict=True)) == pairs
    assert "4 of 8 runs have a layer that never or always fires over an epoch (fc1)" in text


def test_a_control_is_named_by_its_fields(sweep, trained, tmp_path):
    grid = ("--grid", "chaos.term=chaos,drift chaos.z0=3 seed=0,1")
    code, text = sweep(*grid, "--control", "chaos.z0=7")
    assert code == 2 and "--control: chaos.z0 7.0: the grid has no such setting beside another" in text
    assert not list(tmp_path.iterdir())
    assert sweep(*grid, "--control", "chaos.term=drift")[0] == 0
    rows = pandas.read_csv(tmp_path / "s" / "differences.csv")
    assert set(rows["arm"]) == {"chaos.term chaos, chaos.z0 3.0"} and set(rows["other"]) == {
        "chaos.term drift, chaos.z0 3.0"
    }


def test_finished_runs_stay_and_a_larger_grid_goes_on(sweep, trained, tmp_path):
    sweep("--grid", "chaos.z0=0,3 seed=0:2")
    before = sum(map(len, trained))
    assert sweep("--grid", "chaos.z0=0,3 seed=0:2")[0] == 0 and sum(map(len, trained)) == before
    trained.clear()
    assert sweep("--grid", "chaos.z0=0,3,9 seed=0:3")[0] == 0
    assert {(c.chaos.z0[0], c.seed) for chunk in trained for c in chunk} == {(0, 2), (3, 2), (9, 0), (9, 1), (9, 2)}
    code, text = sweep("--grid", "chaos.z0=0", "--epochs", "3")
    assert code == 2 and "NAME: run 's' has another config; differing are epochs (2 there, 3 here)" in text


def test_shards_write_the_tables_of_one_process_in_a_folder_or_merged_from_two(sweep, trained, tmp_path):
    words = ("--grid", "chaos.z0=0,3 seed=0:8", "--chunk", "8")
    sweep(*words, name="one")
    trained.clear()
    assert sweep(*words, "--shard", "1/2")[0] == 0 and not (tmp_path / "s" / "runs.csv").exists()
    shutil.copytree(tmp_path / "s", tmp_path / "elsewhere")
    assert sweep(*words, "--shard", "0/2")[0] == 0 and len(trained) == 2
    here = shutil.copytree(tmp_path / "s", tmp_path / "here")
    for block in (tmp_path / "elsewhere" / "blocks").iterdir():
        (here / "blocks" / block.name).unlink()
    code, text = sweep(*words, "--merge", str(here), str(tmp_path / "elsewhere"), name="merged")
    assert code == 0 and len(trained) == 2 and text.count("8 finished runs are merged from") == 2
    for name in TABLES:
        of_one = (tmp_path / "one" / name).read_bytes()
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "merged" / name).read_bytes() == of_one


@pytest.mark.parametrize(
    ("grid", "chosen", "control", "said"),
    [
        ("chaos.z0=3,5", (0.002, 5.0), (0.002, 0.0), "no setting without a chaos term"),
        ("chaos.z0=0,3 optimizer.lr=0.1,2", (0.1, 3.0), (0.1, 0.0), "the best of 2 settings"),
        *full(
            [
                ("optimizer.lr=0.1,0.2 chaos.z0=0,3", (0.2, 3.0), (0.2, 0.0), "best of 2 settings with the term"),
                ("chaos.beta=0.9,0.95 chaos.z0=0,3", (0.002, 3.0), (0.002, 0.0), "best of 1 without it; a fair compar"),
                ("chaos.z0=0 optimizer.lr=0.1,0.2", (0.2, 0.0), None, "no setting has a chaos term"),
            ]
        ),
    ],
)  # fmt: skip
def test_the_best_and_its_control_train_on_fresh_seeds(sweep, trained, tmp_path, grid, chosen, control, said):
    assert sweep("--grid", f"{grid} seed=0:2")[0] == 0
    trained.clear()
    code, text = sweep("--seeds", "3", kind="best")
    assert code == 0 and said in text and r"\toprule" not in text
    settings = {(c.optimizer.lr, c.chaos.z0[0]) for chunk in trained for c in chunk}
    assert settings == {pair for pair in (chosen, control) if pair}
    assert {c.seed for chunk in trained for c in chunk} == {2, 3, 4}
    folder = tmp_path / "s" / ("best-seeds-2-4-with-control" if control else "best-seeds-2-4")
    rows = pandas.read_csv(folder / "runs.csv")
    assert len(rows) == 3 * len(settings)
    if control:
        difference = pandas.read_csv(folder / "differences.csv").iloc[0]
        assert difference["pairs"] == 3 and difference["arm"] == rows["arm"][0]


def test_a_best_that_cannot_be_is_refused(sweep, trained, tmp_path):
    sweep("--grid", "optimizer.lr=2,3", name="far")
    assert "a run of every setting diverged; try smaller optimizer.lr" in sweep(name="far", kind="best")[1]
    sweep("--grid", "chaos.z0=0,3", name="two")
    file = tmp_path / "two" / "settings.json"
    (first, *_) = cells = seals.parse(file.read_bytes())["cells"]
    seals.write_json(file, {"cells": [*cells, first | {"case": "other"}]})
    assert "two: has several data sets; sweep each by itself" in sweep(name="two", kind="best")[1]


def started(folder, **variables):
    """A process of one device that trains a sweep; with variables of a launcher, its share."""
    line = ["-m", "csbp_jax", "sweep", "digits", *LINE, *SHARED, "--sweeps", str(folder), "--name", "s"]
    (process,) = processes.start_lines([line], devices=1, **variables)
    return process


def by_slurm(index):
    """The variables of one of two tasks."""
    variables = {"JOB_ID": 7, "STEP_NODELIST": "node1", "NTASKS": 2, "PROCID": index, "LOCALID": index}
    return {f"SLURM_{name}": str(value) for name, value in variables.items()}


def by_mpi(index):
    """The variables of one of two processes, without those that JAX looks for."""
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in dict(RANK=index, SIZE=2, LOCAL_RANK=0).items()}


SHARED = ["--grid", "chaos.z0=0,3 seed=0:4", "--chunk", "2"]
TABLES = ("runs.csv", "epochs.csv", "differences.csv")


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory):
    """The tables of a sweep by one process, ``{name: bytes}``."""
    folder = tmp_path_factory.mktemp("one")
    codes, _, errors = processes.finish([started(folder)])
    assert codes == [0], errors
    return {name: (folder / "s" / name).read_bytes() for name in TABLES}


@pytest.mark.full
def test_processes_share_a_folder_and_one_that_is_lost_leaves_the_others(tmp_path, by_one_process):
    first, lost = (started(tmp_path, **by_slurm(index)) for index in (0, 1))
    deadline = time.monotonic() + 120
    while not (tmp_path / "s" / "shards" / "1-of-2" / "lock").exists():
        assert lost.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    lost.kill()
    codes, reported, errors = processes.finish([first, lost])
    assert codes == [0, -signal.SIGKILL], errors
    assert "shard 0 of 2: the share of this process among the 2 that were started; --shard 0/1" in reported[0]
    assert "shard 0 of 2 is finished, and others are not yet" in reported[0] and "last epoch" not in reported[0]
    assert not (tmp_path / "s" / "runs.csv").exists()
    codes, reported, errors = processes.finish([started(tmp_path, **by_slurm(1))])
    assert codes == [0] and "last epoch: chaos.z0 3.0 - chaos.z0 0.0: " in reported[0], errors
    assert {name: (tmp_path / "s" / name).read_bytes() for name in TABLES} == by_one_process


@pytest.mark.full
def test_processes_without_a_common_disk_are_merged(sweep, tmp_path, by_one_process):
    """On a machine with other devices, as nothing is left to train there."""
    codes, reported, errors = processes.finish([started(tmp_path / str(n), **by_mpi(n)) for n in (0, 1)])
    assert codes == [0, 0] and all("others are not yet" in text for text in reported), errors
    folders = [str(tmp_path / str(n) / "s") for n in (0, 1)]
    code, text = sweep(*SHARED, "--merge", folders[0])
    assert code == 2 and "one device: True in finished runs, False now" in text
    code, text = sweep(*SHARED, "--merge", *folders)
    assert code == 0 and "last epoch: chaos.z0 3.0 - chaos.z0 0.0: " in text
    assert all(f"{count} finished runs are merged from {of}" in text for count, of in zip((0, 4), folders, strict=True))
    assert {name: (tmp_path / "s" / name).read_bytes() for name in TABLES} == by_one_process


def test_other_sweeps_are_not_merged(sweep, trained, tmp_path):
    grid = ("--grid", "chaos.z0=0,3 seed=0")
    sweep(*grid, "--epochs", "3", name="longer")
    code, text = sweep(*grid, "--merge", str(tmp_path / "longer"))
    assert code == 2 and "longer: has another config or other code of your own; differing are epochs (3 there" in text
    code, text = sweep(*grid, "--merge", str(tmp_path / "none"))
    assert code == 2 and "none: there is no sweep or experiment; name its folder" in text


def test_each_of_several_processes_may_not_start_from_scratch(sweep, trained, monkeypatch, tmp_path):
    for name, value in by_slurm(0).items():
        monkeypatch.setenv(name, value)
    code, text = sweep("--grid", "chaos.z0=0,3", "--fresh")
    assert code == 2 and "--fresh: each of the 2 processes would set aside what the others have begun" in text
    assert sweep("--grid", "chaos.z0=0,3", "--fresh", "--shard", "0/1")[0] == 0
    assert (tmp_path / "s" / "runs.csv").exists()
