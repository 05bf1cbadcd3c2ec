"""Pytest plugin of ``tools/mutants.py``: records which lines each test executes, or runs chosen tests in their order.

Its job is JSON in the environment variable ``MUTANTS``. ``{"trace": [files], "out": file}`` runs each test without what
earlier ones have traced, compiled or computed, and writes ``{test: {"cpu", "lines", "starts", "full"}}`` of those that
pass.
Lines of functions that the import of the package calls count as executed by each of them.
``{"first": [tests], "never": [tests], "out": file}`` writes the name of a test that fails.
"""

import collections
import inspect
import json
import os
import pathlib
import sys
import threading

import pytest

JOB = json.loads(os.environ["MUTANTS"])
TRACED = frozenset(JOB.get("trace", ()))
TREE = os.getcwd() + os.sep
executed: set = set()
on_import: set = set()
of_fixture: dict = collections.defaultdict(set)
started: list = []
caches: list = []
records: dict = {}
passed: set = set()


def pytest_collection_modifyitems(items):
    ranks, never = {test: rank for rank, test in enumerate(JOB.get("first", ()))}, set(JOB.get("never", ()))
    items[:] = sorted((i for i in items if i.nodeid not in never), key=lambda i: ranks.get(i.nodeid, len(ranks)))


def pytest_collection_finish():
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    own = [module for module in list(sys.modules.values()) if str(getattr(module, "__file__", "")).startswith(TREE)]
    if (package := sys.modules.get("csbp_jax")) and package not in own:
        pytest.exit(f"csbp_jax is imported from {package.__file__}, not from the mutated tree", returncode=90)
    # Most of a test's time is compilation, and most of the programs of two mutants are the same.
    jax.config.update("jax_compilation_cache_dir", JOB["programs"])
    compilation_cache.reset_cache()  # the conftest has set another
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if TRACED:
        # What remembers calls, and what is still empty, would hide code from later tests.
        values = [value for module in own if module.__name__ != __name__ for value in vars(module).values()]
        caches.extend(value.cache_clear for value in values if hasattr(value, "cache_clear"))
        caches.extend([jax.clear_caches, *(v.clear for v in values if isinstance(v, dict | set) and not v)])
        sys.addaudithook(lambda event, _: started.append(event) if event == "subprocess.Popen" else None)
        threading.settrace(trace)
        sys.settrace(trace)
        on_import.update(executed)


def trace(frame, _event, _arg):
    """Record the line of a frame of the traced files; the lines of others raise no events."""
    if frame.f_code.co_filename not in TRACED:
        return None
    executed.add((frame.f_code.co_filename.removeprefix(TREE), frame.f_lineno))
    return trace


def trace_import(frame, event, arg):
    """As ``trace``, without the lines of modules and classes."""
    return trace(frame, event, arg) if frame.f_code.co_flags & inspect.CO_OPTIMIZED else None


if TRACED:
    sys.settrace(trace_import)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    """Keeps the lines of a fixture apart, for all tests that share it."""
    before = executed.copy()
    executed.clear()
    result = yield
    of_fixture[fixturedef] |= executed
    executed.update(before)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    for clear in caches:
        clear()
    executed.clear()
    started.clear()
    before = sum(os.times()[:4])
    result = yield
    if TRACED and item.nodeid in passed:
        fixtures = [of_fixture[used[-1]] for used in item._fixtureinfo.name2fixturedefs.values()]
        lines, cpu = sorted(executed.union(on_import, *fixtures)), sum(os.times()[:4]) - before
        full = item.get_closest_marker("full") is not None
        records[item.nodeid] = {"cpu": cpu, "lines": lines, "starts": bool(started), "full": full}
    return result


def pytest_runtest_logreport(report):
    if report.failed and not TRACED:
        pathlib.Path(JOB["out"]).write_text(report.nodeid)
    elif report.when == "call" and report.passed:
        passed.add(report.nodeid)


def pytest_sessionfinish():
    if TRACED:
        sys.settrace(None)
        pathlib.Path(JOB["out"]).write_text(json.dumps(records))
