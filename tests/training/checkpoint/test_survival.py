"""The pages on survival have the table of its record, and name the tests of each promise, none of which is missing."""

import ast
import json
import pathlib
import re

import pytest

from tools import kills

TESTS = pathlib.Path(__file__).parents[2]
FOLDER = TESTS.parent / "docs" / "checks" / "survival"


@pytest.mark.full
def test_each_promise_has_its_tests():
    rows = re.findall(r"^\| R(\d+) \| (.+) \| (.+) \|$", (FOLDER / "promises.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 24))
    defined = {
        (file.stem, node.name)
        for file in TESTS.rglob("test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    for number, _, names in rows:
        found = re.findall(r"`(test_\w+)\.(test_\w+)`", names)
        assert found and set(found) <= defined, f"R{number}: {set(found) - defined}"


def test_the_page_has_the_table_of_the_recorded_signals():
    record = json.loads((FOLDER / "kills.json").read_text())
    assert f"\n{kills.table(record)}\n" in (FOLDER / "README.md").read_text()
