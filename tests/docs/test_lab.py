"""docs/lab.md: its examples of rises and exponents, of training and of a network; what it says of the controls."""

import re

import numpy as np
import pytest

from csbp_jax import chaos, dynamics
from csbp_jax.controls import drift, linear
from csbp_jax.dynamics import terms
from tests.support.checkout import ROOT

PAGE = (ROOT / "docs" / "lab.md").read_text()


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


@pytest.mark.slow
def test_the_rises_of_the_page_are_those_of_its_python(tmp_path, monkeypatch, capsys):
    ((block, printed),) = re.findall(r"```python\n([^`]*annealed_rises[^`]*)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/lab.md", "exec"), {})
    # Rounding grows as differences do, so the largest rises differ a little between machines.
    np.testing.assert_allclose(numbers(capsys.readouterr().out), numbers(printed), rtol=0.05, atol=0.1)
    assert len(numbers(printed)) == 12


def test_the_exponents_of_the_page_are_those_of_its_python(capsys):
    ((block, printed),) = re.findall(r"```python\n([^`]*dynamics.lyapunov\([^`]*)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/lab.md", "exec"), {})
    assert numbers(capsys.readouterr().out) == pytest.approx(numbers(printed), abs=0.02)
    assert len(numbers(printed)) == 4


def test_the_exponents_of_a_network_on_the_page_are_those_of_its_python(capsys):
    pattern = r"```python\n([^`]*network_exponents\([^`]*)```\n\n```\n(.*?)```"
    ((block, printed),) = re.findall(pattern, PAGE, re.DOTALL)
    exec(compile(block, "docs/lab.md", "exec"), {})
    assert numbers(capsys.readouterr().out) == pytest.approx(numbers(printed), abs=0.02)
    assert len(numbers(printed)) == 6


def test_the_controls_exclude_chaos_of_the_term_alone():
    """Training with them is about as chaotic as with the term."""
    study = (ROOT / "docs/results/exponents/conv_batch/table.md").read_text()
    rows = [line.split("|") for line in study.splitlines() if line.startswith("|")]
    found = {cells[1].strip(): cells[2].split()[0] for cells in reversed(rows) if cells[2].strip()[:1].isdigit()}
    rates = f"{found['drift']} and {found['10 sub-steps']} nats per step, against {found['as given']} with"
    assert rates in " ".join(PAGE.split())


def test_the_distances_of_controls_on_the_page():
    """The table of k, and the page's Python."""
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 11))
    g = 0.1 * terms.flip(chaos.term)
    for k, *percents in rows:
        for text, control, substeps in zip(percents, (drift, linear, chaos.term), (1, 1, 10), strict=True):
            apart = dynamics.compare_terms(control, -3, 3, scale=float(k), substeps=substeps, g=g).apart
            assert f"{100 * apart:.{len(text.partition('.')[2])}f}" == text


def test_the_example_of_controls_prints_what_the_page_says(capsys):
    ((block, printed),) = re.findall(r"```python\n([^`]*compare_terms[^`]*)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "docs/lab.md", "exec"), {})
    assert capsys.readouterr().out == printed
