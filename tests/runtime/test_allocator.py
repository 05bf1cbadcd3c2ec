"""The allocator: freed memory is used again, unless the user or the C library says otherwise."""

import os
import pathlib
import subprocess
import sys

import pytest

from csbp_jax.runtime import allocator

ROOT = pathlib.Path(__file__).parents[2]
VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
FAULTS = """
import resource
def fill():
    [b"x" * (8 << 20) for _ in range(4)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints the page faults of ten times as much memory as is used at once, after all of it was used before."""

CALL = "from csbp_jax.runtime import allocator; allocator.keep_freed_memory()"
COMMAND = "from csbp_jax.cli.main import main; main(['list'])"


def faults(before, **environment):
    environment |= {name: value for name, value in os.environ.items() if name not in VARIABLES}
    line = [sys.executable, "-c", before + FAULTS]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(not allocator._is_glibc(), reason="not glibc")
@pytest.mark.parametrize("before", [CALL, COMMAND])
def test_freed_memory_is_used_again(before):
    assert faults(before) * 5 < faults("")


@pytest.mark.skipif(not allocator._is_glibc(), reason="not glibc")
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
