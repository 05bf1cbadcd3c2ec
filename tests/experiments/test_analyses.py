"""Contrasts of the committed runs are those of tests/data/analyses.json, whatever code computes them."""

import copy
import json

import numpy as np
import pytest

from tools import analyses
from tools.analyses_by import SLOW, TESTS

FAMILIES = [family for family in json.loads(analyses.FILE.read_text()) if family["test"] in TESTS]


def cases():
    """Every family, and of slow tests the first row of a family."""
    for family in FAMILIES:
        marks = [pytest.mark.slow] if family["test"] in SLOW else []
        yield pytest.param(family, None, id=analyses.title(family), marks=marks)
    for test in SLOW:
        family = next(family for family in FAMILIES if family["test"] == test)
        yield pytest.param(family, 1, id=f"{analyses.title(family)}, first row")


@pytest.mark.parametrize(("family", "rows"), list(cases()))
def test_runs_in_numbers_out(family, rows):
    assert list(analyses.differences(family, rows)) == []


TUNED = next(family for family in FAMILIES if family.get("rule") == "tuned")


def test_numbers_other_than_the_stored_ones_have_a_line_each():
    family = copy.deepcopy(TUNED)
    family["verdict"] = "nothing"
    for column in (2, 7):
        family["rows"][0][column] *= 1 + 1e-8
    difference, p, verdict = analyses.differences(family)
    assert ": difference of drift and CSBP is -0.00146" in difference and ": p of drift and CSBP is 0.69" in p
    assert verdict.endswith("the verdict is the pull helps, and not nothing")


def test_rows_without_numbers_are_filled_in():
    bare = {name: content for name, content in TUNED.items() if name != "verdict"}
    bare["rows"] = [row[:2] for row in TUNED["rows"]]
    (filled,) = json.loads(analyses.written([bare]))
    assert filled.keys() == TUNED.keys() and list(analyses.differences(filled)) == []
    assert filled["rows"][0][:3] == ["drift", "CSBP", pytest.approx(TUNED["rows"][0][2])]


RUNS = {
    "a": {"10": {"x": 1.0, "y": 2.0}, "9": {"x": 3.0, "y": None}},
    "b, c": [4.0, 8.0, 6.0],
    "d": "011",
    "e": "12 7",
    "f": "7e",
}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("a/:/x", [3, 1]),
        ("a/0:10/x", [3]),
        ("a/:/x;y", [[3, np.nan], [1, 2]]),
        ("b, c/1:", [8, 6]),
        ("d", [0, 1, 1]),
        ("e/1", 7),
        ("f/hex/0:7", [0, 1, 1, 1, 1, 1, 1]),
        ("b, c > mean", 6),
        ("b, c > mean 1 2", 5.5),
        ("a/:/x;y > columns", [2, np.nan]),
        ("b, c > times 2 > plus 1 minus d", [9, 16, 12]),
        ("b, c > is 8 > rows 3", [[0, 1, 0]]),
        ("b, c;d > unlike", [1, 1, 1]),
        (["d", "b, c"], [[0, 1, 1], [4, 8, 6]]),
        ("other/runs.json/a/10/y", 2),
    ],
)
def test_selectors(selector, expected, monkeypatch):
    monkeypatch.setattr(analyses, "read", {"runs.json": RUNS, "other/runs.json": RUNS}.__getitem__)
    np.testing.assert_array_equal(analyses.select(selector, "runs.json"), expected)
