"""The page on survival names the test of each promise, and no test that is not there."""

import ast
import pathlib
import re

TESTS = pathlib.Path(__file__).parents[2]
PAGE = TESTS.parent / "docs" / "results" / "survival" / "README.md"


def test_each_promise_has_its_tests():
    rows = re.findall(r"^\| R(\d+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
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
