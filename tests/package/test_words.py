"""Names that say nothing are not used, and docstrings begin with a phrase that stands by itself."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = [
    file for folder in ("csbp_jax", "experiments", "benchmarks", "examples") for file in (ROOT / folder).rglob("*.py")
]
BANNED = {"told", "place", "there", "given", "found", "kept", "whole", "one", "each", "mine", "theirs", "asked", "here"}
# Words in which a docstring's first line would need a second reading.
UNCLEAR = re.compile(
    r"^(what|whose|of (what|which)|as it is|so many)\b|\b(is|are) told\b|\banew\b|\balike\b", re.IGNORECASE
)


def names(tree):
    """Names that a file gives to locals, arguments, attributes, functions and classes, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_names_say_what_they_hold(file):
    used = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for name, line in names(ast.parse(file.read_text()))
        if name in BANNED
    ]
    assert not used


@pytest.mark.parametrize(
    "file", [f for f in FILES if "csbp_jax" in f.parts], ids=lambda file: str(file.relative_to(ROOT))
)
def test_docstrings_begin_with_a_clear_phrase(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            first = text.splitlines()[0]
            assert not UNCLEAR.search(first), f"{file.relative_to(ROOT)}: {first}"
