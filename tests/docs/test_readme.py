"""README.md: its Python runs, its make targets exist, and its tables equal those of docs/results."""

import re

import pytest

from csbp_jax.training import loop
from tests.support import shared_programs
from tests.support.checkout import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "block", [pytest.param(block, marks=pytest.mark.ci) if "Experiment" in block else block for block in BLOCKS]
)
def test_python_of_the_readme_runs(block, tmp_path, monkeypatch, no_figures):
    """On one device, as most of its readers have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "compile_run", shared_programs.compile_run)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_readme_has_three_python_examples_in_800_words():
    assert len(BLOCKS) == 3 and len(README.split()) <= 800


@pytest.mark.parametrize(("page", "most"), [("lab", 3100), ("using", 2831), ("scale", 2071)])
def test_the_longest_guides_stay_at_half_of_their_former_words(page, most):
    assert len((ROOT / "docs" / f"{page}.md").read_text().split()) <= most


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)) + "\n".join(re.findall("`[^`\n]+`", README))
    commands = re.findall(r"(?:^|`|&& )make ([a-z0-9-]+)", shell, re.MULTILINE)
    assert len(set(commands)) > 2 and set(commands) <= targets
