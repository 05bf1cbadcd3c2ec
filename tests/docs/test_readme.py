"""README.md: its Python runs, its make targets exist, and its tables equal those of docs/results."""

import pathlib
import re

import pytest

from csbp_jax.training import loop
from tests.support import shared_programs

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_of_the_readme_runs(block, tmp_path, monkeypatch, no_figures):
    """On one device, as most of its readers have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "compile_run", shared_programs.compile_run)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_has_two_python_examples():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize(("results", "page"), [("digits", "README.md"), ("bench", "README.md")])
def test_tables_are_quoted_from_the_results(results, page):
    rows = [
        line for line in (ROOT / "docs/results" / results / "README.md").read_text().splitlines() if line[:1] == "|"
    ]
    assert len(rows) >= 4
    lines = (ROOT / page).read_text().splitlines()
    for row in rows:
        assert row in lines


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)) + "\n".join(re.findall("`[^`\n]+`", README))
    commands = re.findall(r"(?:^|`|&& )make ([a-z0-9-]+)", shell, re.MULTILINE)
    assert len(set(commands)) > 8 and set(commands) <= targets


def test_the_table_of_libraries_credits_what_they_have():
    """Norse's ``voltage_accumulator``, snnTorch's ``l1_rate_sparsity`` and ``valid_split``, SpikingJelly's SSC."""
    loss, split = (
        [cell.strip() for cell in next(line for line in README.splitlines() if label in line).split("|")]
        for label in ("hidden [membranes", "[validation split]")
    )
    assert "spikes" in loss[4] and "membranes" in loss[5]
    assert "two data sets" in split[3] and split[4] == "a function" and split[5] == "of one data set"
