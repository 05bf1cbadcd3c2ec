"""The mutants that measure the tests: each is one fault in a statement, and a test that would miss it is seen."""

import ast
import collections
import json
import subprocess
import sys

import pytest

from tools import mutants, mutator

TRY = """
import json, pathlib, sys
import pytest
from tools import mutants, mutator
file, mutated, tree, *tests = sys.argv[1:]
mutants.WORK = tree = pathlib.Path(tree)
mutants.copy_tree(tree)
if mutated:
    statements = mutator.mutants_of(mutants.ROOT, file)
    mutator.mutate(next(m for statement in statements for m in statement if m.mutated == mutated), tree)
print(mutants.run_tests(tree, tests, {"out": str(tree / "failed")}, 300)[0])
"""


@pytest.fixture(scope="module")
def drawn():
    return mutants.drawn(200, 0)


def texts_of(tree):
    """Docstrings, messages and annotations, which no mutant may change."""
    nodes = list(ast.walk(tree))
    yield from (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    yield from (
        ast.unparse(node.annotation) for node in nodes if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation
    )


@pytest.mark.full
def test_mutants_are_distinct_and_compile_and_change_one_statement_but_no_text(drawn, tmp_path):
    assert len({(mutant.file, mutant.key()) for _, mutant in drawn}) == 200
    assert {room for room, _ in drawn} == set(mutants.ROOMS)
    assert len({mutant.kind for _, mutant in drawn}) > 8
    for _, mutant in drawn[::4]:
        original, file = mutants.ROOT / mutant.file, tmp_path / mutant.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(original.read_text())
        mutator.mutate(mutant, tmp_path)
        before, after = ast.parse(original.read_text()), ast.parse(file.read_text())
        compile(after, mutant.file, "exec")
        assert ast.dump(before) != ast.dump(after)
        texts = collections.Counter(texts_of(after))
        assert texts <= collections.Counter(texts_of(before))
        lines = len(original.read_text().splitlines()) - (mutant.last - mutant.line)
        assert len(file.read_text().splitlines()) == lines
        assert mutant.kind == "statement" or texts == collections.Counter(texts_of(before))


@pytest.mark.full
def test_the_mutants_of_a_record_are_drawn_again_under_another_seed(drawn):
    rows = [{"room": room, **mutant._asdict()} for room, mutant in drawn]
    again = mutants.drawn(200, 1, rows[:150])
    assert len(again) == 200
    keys = {mutant.key() for _, mutant in again}
    assert {mutant.key() for _, mutant in drawn[:150]} < keys
    assert {mutant.key() for _, mutant in drawn} != keys


@pytest.mark.full
@pytest.mark.parametrize(
    ("mutated", "code"),
    [("", 0), ("u = h * jnp.asarray(scale, wide)", 1), ("times = jnp.asarray(step) * jnp.asarray(every)", 0)],
)
def test_a_mutant_of_the_chaos_term_is_caught_by_the_test_of_its_minimum(mutated, code, tmp_path):
    test = "tests/test_chaos.py::test_minimum_is_where_the_sigmoid_equals_the_target_and_is_its_entropy"
    line = [sys.executable, "-c", TRY, "csbp_jax/chaos.py", mutated, tmp_path, test]
    done = subprocess.run(line, cwd=mutants.ROOT, capture_output=True, text=True)
    assert done.stdout == f"{code}\n", done.stderr + (tmp_path / "output").read_text()
    failed = tmp_path / "failed"
    assert failed.read_text().startswith(test) if code else not failed.exists()


def test_the_record_counts_what_its_rows_say_and_contributors_read_it():
    record = json.loads(mutants.RECORD.read_text())
    assert record["shares"] == mutants.shares(record["mutants"])
    share, count = record["shares"]["test-all"]["all"]["share"], len(record["mutants"])
    text = (mutants.ROOT / "CONTRIBUTING.md").read_text()
    assert f"[{count} faults]" in text and f"{share} %" in text


def test_a_mutant_that_only_a_full_test_catches_survives_make_test():
    rows = [
        {"room": "xla", "verdict": verdict, "full": full}
        for verdict, full in (("caught", False), ("caught", True), ("survived", False), ("survived", False))
    ]
    shares = mutants.shares(rows)
    assert shares["test"]["xla"]["share"] == 25 and shares["test-all"]["xla"]["share"] == 50
