"""docs/test_csbp.md: its blocks run, and its numbers are those that were counted."""

import json
import re
import shlex
import subprocess
import tempfile

import pytest

from benchmarks import h100_programs, peers
from csbp_jax.cli import main
from csbp_jax.cli.sweep_commands import parse_grid
from csbp_jax.config import Config
from csbp_jax.configs import load
from csbp_jax.reporting.statistics import pairs_to_decide
from tests.support.checkout import ROOT, environment

PAGE = (ROOT / "docs" / "test_csbp.md").read_text()
WORDS = " ".join(PAGE.split())
TORCH, JAX = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ").splitlines()
CONTRASTS = [shlex.split(line)[1:] for line in SHELL if " contrast " in line]
COUNTED = json.loads((ROOT / "docs" / "checks" / "bench" / "h100.json").read_text())["presets"]
CARDS = {16: 320, 24: 1008, 80: 3350}
"""GB/s of the memory of a T4, an RTX 4090 and an H100 SXM, by their data sheets."""


def rows(head):
    """Cells of the table whose first line begins so."""
    table = re.search(rf"^\| {re.escape(head)}.*?\n\n", PAGE, re.DOTALL | re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].strip().splitlines()[2:]]


def test_the_first_command_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    first, second = CONTRASTS
    monkeypatch.chdir(ROOT)
    assert main.main([*first[:-1], str(tmp_path / first[-1])]) == 0
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert " ".join(capsys.readouterr().out.split()).startswith(" ".join(shown.split()))
    monkeypatch.chdir(tmp_path)
    (table,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my-runs.csv").write_text(table)
    assert main.main(second) == 0
    assert "CSBP - plain: -0.01 [-0.34, +0.32] points" in capsys.readouterr().out


@pytest.mark.full
def test_the_python_of_jax_runs(tmp_path, monkeypatch, no_figures, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(JAX, "docs/test_csbp.md", "exec"), {})
    assert "CSBP - plain: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_of_torch_runs_beside_the_copied_file(tmp_path):
    (tmp_path / "csbp_torch.py").write_text((ROOT / "examples" / "torch" / "csbp_torch.py").read_text())
    (tmp_path / "page.py").write_text(TORCH)
    with tempfile.TemporaryDirectory() as folder:
        python = environment(folder, *peers.REQUIREMENTS["snntorch"]) / "python"
        done = subprocess.run([python, "page.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 5


def test_sweeps_of_the_page_are_possible():
    (grid,) = set(re.findall(r'GRID="(.*?)"', PAGE))  # the page prices the sweep that it then runs
    of_dvs = parse_grid(load("cifar10_dvs_tebn_cnn7"), grid)
    assert of_dvs["chaos.z0"] == [(0.0,), (15.0,)] and len(of_dvs["seed"]) == 6
    assert load("cifar10_dvs_tebn_cnn7").chaos.z0 == (15.0, 15.0)
    assert load("cifar100_tebn_resnet19").chaos.z0 == (18.0,)
    assert parse_grid(Config(), "chaos.z0=0,18")["chaos.z0"] == [(0.0,), (18.0,)]


def test_memory_and_hours_are_those_that_were_counted():
    assert list(h100_programs.PRESETS) == list(COUNTED)
    expected = []
    for name, precisions in COUNTED.items():
        counted = precisions["float32"]
        needed = max(counted["training_GB"], counted["evaluation_GB"])
        for size, bandwidth in CARDS.items():
            at_once = min(32, int(0.8 * 0.75 * size / needed))
            hours = counted["GB"] * counted["steps"] / bandwidth / 3600
            expected.append([f"`{name}`", f"{size} GB", f"{needed:.2g} GB", f"{at_once}", f"{hours:.2g}"])
    assert rows("preset") == expected


def test_seeds_that_decide_are_counted():
    expected = [
        [f"{effect:g}", *(str(pairs_to_decide(effect, sd)) for sd in (0.5, 1.0, 1.5, 2.0))]
        for effect in (2.1, 1.0, 0.39)
    ]
    assert rows("true difference") == expected
    assert pairs_to_decide(2.1, 1.5) == 6 and "if the SD is at most 1.5" in WORDS
