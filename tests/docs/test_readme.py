"""README.md: its Python runs, its make targets exist, and its tables equal those of docs/results."""

import re

import pytest

from csbp_jax.training import loop
from tests.support import shared_programs
from tests.support.checkout import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "block", [pytest.param(block, marks=pytest.mark.full) if "Experiment" in block else block for block in BLOCKS]
)
def test_python_of_the_readme_runs(block, tmp_path, monkeypatch, no_figures):
    """On one device, as most of its readers have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "compile_run", shared_programs.compile_run)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_first_block_of_commands_trains_and_tests():
    first = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make train", "make test"]


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)) + "\n".join(re.findall("`[^`\n]+`", README))
    commands = re.findall(r"(?:^|`|&& )make ([a-z0-9-]+)", shell, re.MULTILINE)
    assert len(set(commands)) > 2 and set(commands) <= targets
