"""CONTRIBUTING.md: a copy of the package with its blocks in their places trains with the parts that they add."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pandas
import pytest

from tests.support.checkout import ROOT, checkout
from tests.support.matching import search

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```(?:python|text)\n# (.*?)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def put(root: pathlib.Path, place: str, block: str) -> None:
    """Write a block into its file: a new one, below a line, or within a line behind its opening bracket."""
    name, *where = re.split(", (?=below: |in: )", place)
    file = root / name
    if not where:
        assert not file.exists()
        file.write_text(block)
        return
    lines, at = file.read_text().splitlines(keepends=True), 0
    for step in where:
        kind, _, text = step.partition(": ")
        at = next(n for n in range(at, len(lines)) if text in lines[n])
    if kind == "below":
        lines.insert(at + 1, block)
    else:
        lines[at] = lines[at].replace(text, text + block.strip() + " ")
    file.write_text("".join(lines))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    root = checkout(tmp_path_factory.mktemp("contributing"))
    for place, block in BLOCKS:
        put(root, place, block)
    return root


def run(root, *line):
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-m", *line], cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.full
def test_the_recipes_train(extended):
    """The new network with the new neuron on the new data set, better than chance, which is a quarter."""
    parts = ["--model.name", "wide", "--model.features", "None", "--model.neuron.name", "quadratic"]
    done = run(extended, "csbp_jax", "train", "waves", "--name", "w", *parts)
    assert done.returncode == 0, done.stderr
    assert float(search(r"test accuracy +│ +([\d.]+)%", done.stdout)[1]) > 50
    listed = run(extended, "csbp_jax", "list").stdout
    assert all(re.search(rf"│ {name} ", listed) for name in ("waves", "wide", "quadratic"))


@pytest.mark.full
def test_the_study_tunes_tests_and_writes_what_differs(extended):
    done = run(extended, "experiments.waves")
    assert done.returncode == 0, done.stderr
    out = extended / "docs" / "results" / "waves"
    runs, content = pandas.read_csv(out / "runs.csv"), json.loads((out / "waves.json").read_text())
    assert runs["role"].value_counts().to_dict() == {"test": 6, "tune": 4}
    means = 100 * runs[runs["role"] == "test"].groupby("arm")["last_test_accuracy"].mean()
    assert means["CSBP"] - means["plain"] == pytest.approx(content["differences"][0]["difference"])
    assert "| CSBP - plain | " in (out / "table.md").read_text() and (out / "table.md").read_text() in done.stdout


@pytest.mark.slow
def test_the_recipes_have_the_style_of_the_package(extended):
    files = [place for place, _ in BLOCKS if "," not in place]
    for line in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = run(extended, *line, *files)
        assert done.returncode == 0, done.stdout
