"""The programs that the package writes are those of the record, and a hash depends on what is computed alone."""

import json
import subprocess
import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import DATA
from tools import programs

RECORD = json.loads(programs.RECORD.read_text())
PINNED = pytest.mark.skipif(
    any(metadata.version(name) != number for name, number in RECORD["versions"].items()),
    reason="other versions of JAX write other programs",
)
COMMAND = (
    "import pathlib, sys; from tools import programs; programs.RECORD = pathlib.Path(sys.argv.pop(1)); programs.main()"
)


@pytest.mark.full
@PINNED
def test_a_program_that_moves_is_named_and_the_others_are_as_recorded(tmp_path):
    changed = json.loads(json.dumps(RECORD))
    changed["programs"]["nmnist"]["cuda"][programs.PARTS.index("train")] = "0"
    (tmp_path / "programs.json").write_text(json.dumps(changed))
    line = [sys.executable, "-c", COMMAND, tmp_path / "programs.json", "--check", "fsdd_delays", "mnist", "nmnist"]
    done = subprocess.run(line, cwd=DATA.parents[1], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 12 and "cuda, nmnist: train moved" in lines
    assert sum(line.endswith(": as recorded") for line in lines) == 11


@PINNED
@pytest.mark.slow
def test_all_programs_are_as_recorded():
    done = subprocess.run([sys.executable, "-m", "tools.programs", "--check"], cwd=DATA.parents[1], capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_the_record_is_of_all_programs():
    assert list(RECORD["programs"]) == [*programs.configs.NAMES, *programs.VARIANTS]
    assert all(list(rows) == list(programs.PLATFORMS) for rows in RECORD["programs"].values())


def loss(weights, x):
    hidden = jnp.where(x @ weights > 0.0, x @ weights, 0.0)
    total, _ = jax.lax.scan(lambda total, row: (total + row.sum(), row), jnp.float32(0), hidden)
    return {"sum": total}, jnp.sin(weights)


@jax.jit
def _rectify(h):
    return jax.lax.select(h > 0, h, jnp.zeros_like(h))


def renamed(w, inputs):
    sine = jnp.sin(w)

    def add(count, item):
        return count + item.sum(), item

    count, _ = jax.lax.scan(add, 0.0, _rectify(inputs @ w))
    return {"count": count}, sine


def test_a_hash_does_not_depend_on_names_order_or_calls():
    assert of(loss) == of(renamed)


@pytest.mark.parametrize(
    "other",
    [
        lambda w, x: loss(w, x)[::-1],
        lambda w, x: loss(w, -x),
        lambda w, x: ({"sum": jax.lax.scan(lambda t, row: (t - row.sum(), row), 0.0, _rectify(x @ w))[0]}, jnp.sin(w)),
        lambda w, x: ({"sum": loss(w, x)[0]["sum"] + 1e-30}, jnp.sin(w)),
        lambda w, x: (loss(w, x)[0], jnp.sin(w).astype(jnp.bfloat16)),
        lambda w, x: jax.lax.optimization_barrier(loss(w, x)),
    ],
    ids=["order of results", "operation", "operation of a loop", "constant", "type", "barrier"],
)
def test_a_hash_depends_on_what_is_computed(other):
    assert of(other) != of(loss)


def test_a_hash_depends_on_memory_that_is_reused_on_shapes_and_on_options():
    assert len({of(loss), of(loss, donate_argnums=0), of(loss, rows=3), of(loss, words="option")}) == 4


def of(function, rows=2, words="", **options):
    arguments = jax.ShapeDtypeStruct((4, 4), jnp.float32), jax.ShapeDtypeStruct((rows, 4), jnp.float32)
    return programs.digest(jax.jit(function, **options).lower(*arguments).compiler_ir(), words)
