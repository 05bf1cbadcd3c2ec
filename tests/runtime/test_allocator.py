"""The allocator: freed memory is used again, unless the user or the C library says otherwise; gaps are filled."""

import ctypes
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from csbp_jax.config import replaced
from csbp_jax.runtime import allocator, sharding
from csbp_jax.sweep import driver
from csbp_jax.training import compiled, loop
from csbp_jax.training.loop import train
from tests.support.small_sweep import QUIET, SMALL, run, untrained

ROOT = pathlib.Path(__file__).parents[2]
FAULTS = """
import resource, sys, threading
def fill(times):
    for _ in range(times):
        [b"x" * (40 << 20) for _ in range(3)]
def count():
    fill(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill(4)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if sys.argv[1] == "main":
    count()
else:
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
"""
"""Prints the page faults of four times as much memory as is used at once, after all of it was used before."""

GAPS = """
import ctypes, json, sys
from csbp_jax.runtime import allocator
if sys.argv[1] == "kept":
    allocator.keep_freed_memory()
from jax import monitoring

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
SIZES = (100, 1000, 20_000, 80_000)
blocks = [[ctypes.c_void_p(libc.malloc(size)) for _ in range(2000)] for size in SIZES for _ in range(2)]
for block in sum(blocks, []):
    ctypes.memset(block, 1, 100)
end = max(block.value for block in sum(blocks, []))
for freed in blocks[::2]:
    for block in freed[::2]:
        libc.free(block)

def in_gaps():
    found = []
    for size in SIZES:
        held = [ctypes.c_void_p(libc.malloc(size)) for _ in range(500)]
        found.append(sum(block.value < end for block in held) / len(held))
        for block in held:
            libc.free(block)
    return found

def compiled(seconds):
    monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)

found = [in_gaps()]
with allocator.filled_gaps():
    compiled(0.4)
    found.append(in_gaps())
    compiled(0.6)
    found.append(in_gaps())
found.append(in_gaps())
compiled(0.6)
found.append(in_gaps())
print(json.dumps(found))
"""
"""Prints which part of new blocks, by size, lies in the gaps of a heap: at first, after a short and after a long
compilation in the context, after it, and after a compilation there."""

CALL = "from csbp_jax.runtime import allocator; allocator.keep_freed_memory()"
COMMAND = "from csbp_jax.cli.main import main; main(['list'])"


fills_gaps = pytest.mark.skipif(
    not allocator._is_glibc() or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc from 2.33 on"
)
needs_glibc = pytest.mark.skipif(not allocator._is_glibc(), reason="another C library")


@functools.cache
def faults(before, thread="main", **environment):
    environment |= {name: value for name, value in os.environ.items() if name not in allocator._SETTINGS}
    line = [sys.executable, "-c", before + FAULTS, thread]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout.split()[-1])


@needs_glibc
@pytest.mark.parametrize(("before", "thread"), [
    (CALL, "main"), (CALL, "another"), (COMMAND, "main"), pytest.param(COMMAND, "another", marks=pytest.mark.slow),
])  # fmt: skip
def test_freed_memory_is_used_again(before, thread):
    assert faults(before, thread) * 5 < faults("", thread)


@needs_glibc
@pytest.mark.parametrize("variable, value", [
    ("GLIBC_TUNABLES", ""), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"), ("MALLOC_TRIM_THRESHOLD_", "131072"),
])  # fmt: skip
def test_the_users_settings_stand(variable, value):
    assert faults(CALL, **{variable: value}) * 5 > faults("")


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def confstr(name):
        raise error(name)

    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr("ctypes.CDLL", pytest.fail)
    assert not allocator.keep_freed_memory({})


def parts_in_gaps(setting):
    environment = {name: value for name, value in os.environ.items() if name not in allocator._SETTINGS}
    line = [sys.executable, "-c", GAPS, setting]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout.split("\n")[-2])


@fills_gaps
def test_after_a_long_compilation_no_block_lies_in_a_gap_until_the_end():
    *_, filled, _, _ = parts = parts_in_gaps("kept")
    assert max(filled) < 0.1
    for others in parts[:2] + parts[3:]:
        assert min(others) > 0.9


@fills_gaps
def test_gaps_are_not_filled_where_large_buffers_are_mapped():
    for others in parts_in_gaps("default"):
        assert min(others) > 0.9


def fake(mapped, top):
    class Libc:
        """Blocks at one address: mapped ones, or those of another allocator, whose heap has no top for glibc."""

        calls = in_use = 0

        def malloc(self, size):
            self.calls += 1
            assert self.calls < 1000
            self.in_use += 0 if mapped else size
            return 1 << 20

        def free(self, address): ...
        def malloc_trim(self, left): ...
        def sbrk(self, more):
            return 1 << 40

        def mallinfo2(self):
            return allocator._MallInfo(in_use=self.in_use, free=1 << 20, top=top)

    return Libc


@fills_gaps
@pytest.mark.parametrize(("mapped", "top", "taken"), [(True, 1000, 0), (False, 1 << 20, 0), (False, 0, 1 << 20)])
def test_no_more_is_taken_than_is_free_below_the_top(monkeypatch, mapped, top, taken):
    """Also where mapped blocks lie below the heap, as with ``setarch -L``."""
    monkeypatch.setattr(allocator, "_libc", fake(mapped, top))
    pieces = allocator._take_gaps()
    assert bool(pieces) == bool(taken) and len(pieces) <= max(taken >> 20, 1)


def test_training_and_sweeps_fill_the_gaps_of_their_compilations(tmp_path, monkeypatch, no_figures):
    """The compilation of a run's step, and one in place of that of the members' step."""
    calls = []

    def take():
        calls.append(1)
        return []

    def train_members(*arguments):
        jax.jit(lambda x: x + 1)(1.0)
        return untrained(*arguments)

    on_one_device = functools.partial(compiled.compile_run, mesh=sharding.data_parallel(1))
    config = replaced(replaced(SMALL, "epochs", 1), "chaos.z0", (0.0,))
    monkeypatch.setattr(loop, "compile_run", on_one_device)
    monkeypatch.setattr(driver, "train", train_members)
    monkeypatch.setattr("csbp_jax.reporting.plots_sweep.draw_sweep", lambda *_: None)
    monkeypatch.setattr(allocator, "_LONG", 0.0)
    monkeypatch.setattr(allocator, "_take_gaps", take)
    train(config, name="r", root=tmp_path, console=QUIET())
    of_training = len(calls)
    run(tmp_path, {"seed": [2, 3]}, config)
    assert 0 < of_training < len(calls)
