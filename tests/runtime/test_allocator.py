"""The allocator: freed memory is used again, unless the user or the C library says otherwise."""

import functools
import os
import pathlib
import subprocess
import sys

import pytest

from csbp_jax.runtime import allocator

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

CALL = "from csbp_jax.runtime import allocator; allocator.keep_freed_memory()"
COMMAND = "from csbp_jax.cli.main import main; main(['list'])"


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
