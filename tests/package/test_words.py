"""Names that say nothing are not used, and docstrings begin with a phrase that stands by itself."""

import ast
import re

from tests.support.checkout import ROOT

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


def first_lines(tree):
    """The first lines of the docstrings of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield text.splitlines()[0]


def test_names_say_what_they_hold_and_docstrings_begin_with_a_clear_phrase():
    """The docstrings of the package alone, whatever the folder is called that it lies in."""
    assert len(FILES) > 300
    wrong: list[str] = []
    for file in FILES:
        path, tree = file.relative_to(ROOT), ast.parse(file.read_text())
        wrong += [f"{path}:{line}: {name}" for name, line in names(tree) if name in BANNED]
        if path.parts[0] == "csbp_jax":
            wrong += [f"{path}: {first}" for first in first_lines(tree) if UNCLEAR.search(first)]
    assert not wrong, "\n".join(wrong)
