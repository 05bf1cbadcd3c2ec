"""The compilation cache: private or not at all, the user's word first, a killed writer's rest dropped."""

import os
import subprocess
import sys

import pytest

from csbp_jax.runtime import compilation_cache
from tests.support.checkout import ROOT


def use(root, **environment):
    reported: list[str] = []
    environment |= {"XDG_CACHE_HOME": str(root)}
    compilation_cache.enable(environment, reported.append)
    return environment.get("JAX_COMPILATION_CACHE_DIR"), reported


def test_the_folder_is_private_and_used(tmp_path):
    folder = tmp_path / "new" / "csbp_jax"
    for _ in range(2):
        assert use(tmp_path / "new") == (str(folder), [])
    assert folder.stat().st_mode & 0o777 == 0o700


def test_without_xdg_it_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment: dict[str, str] = {}
    compilation_cache.enable(environment, pytest.fail)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / ".cache" / "csbp_jax")


def test_without_a_home_folder_there_is_no_cache_and_one_line(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 5)  # a user that the system does not know
    environment: dict[str, str] = {}
    reported: list[str] = []
    compilation_cache.enable(environment, reported.append)
    (line,) = reported
    assert line.startswith("~/.cache/csbp_jax: cannot be used (") and "home directory" in line and not environment


@pytest.mark.parametrize("variable, value", [("COMPILATION_CACHE_DIR", "x"), ("ENABLE_COMPILATION_CACHE", "0")])
def test_the_users_word_counts(tmp_path, variable, value):
    given = {f"JAX_{variable}": value}
    environment = {**given, "XDG_CACHE_HOME": str(tmp_path)}
    compilation_cache.enable(environment, pytest.fail)
    assert environment == {**given, "XDG_CACHE_HOME": str(tmp_path)} and list(tmp_path.iterdir()) == []


def opened(folder):
    folder.mkdir(mode=0o700)
    folder.chmod(0o770)


def linked(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def not_a_folder(folder):
    folder.write_text("")


def somebody_elses(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


@pytest.mark.parametrize("make, reported", [
    (opened, "is open to other users; chmod 700 it"),
    (linked, "is not a directory"),
    (not_a_folder, "cannot be used"),
    (somebody_elses, "belongs to another user"),
])  # fmt: skip
def test_a_directory_that_is_not_private_is_not_used(tmp_path, make, reported):
    make(tmp_path / "csbp_jax")
    used, (line,) = use(tmp_path)
    assert used is None
    assert line.startswith(f"{tmp_path}/csbp_jax: {reported}") and line.endswith(
        "continuing without a compilation cache"
    )


PROGRAM = """
import os, sys, time
from csbp_jax.runtime import compilation_cache
compilation_cache.enable(os.environ, print)
import jax
from jax import monitoring
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
for _ in range(int(sys.argv[1])):
    compilation_cache.enable({"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}, print)
    events.clear()
    jax.jit(lambda x: x * 3 + 1)(2.0)
    jax.jit(lambda x: x * 5 + 1)(2.0)
    print(sum("cache_hits" in name for name in events), sum("cache_misses" in name for name in events))
"""
"""Compiles two programs, as often as its argument says, and prints how many were in the cache, and how many not; each
time drops incomplete entries first, as a new process does."""


@pytest.mark.full
def test_processes_share_programs_and_an_incomplete_entry_is_replaced(tmp_path):
    """In the process that JAX reads its variables in, and without a warning."""
    names = ("JAX_ENABLE_COMPILATION_CACHE",)
    environment = {k: v for k, v in os.environ.items() if k not in names}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def counts(times):
        line = [sys.executable, "-W", "error", "-c", PROGRAM, str(times)]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)
        assert done.stderr == ""
        return [tuple(map(int, line.split())) for line in done.stdout.splitlines()]

    ((hits, misses),) = counts(1)
    assert (hits, misses > 1) == (0, True)
    entry, *_ = (tmp_path / "csbp_jax").glob("*-cache")
    os.truncate(entry, entry.stat().st_size // 2)
    entry.with_name(entry.name.removesuffix("cache") + "atime").unlink()
    assert counts(2) == [(misses - 1, 1), (misses, 0)]
