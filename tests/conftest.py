"""Strict settings for all tests: 8 virtual CPU devices, no implicit rank promotion, float64 only where asked for."""

import dataclasses
import gc
import io
import os
import pathlib
import resource
import signal
import sys
from importlib import metadata

# No compilation cache of the user's, and in processes that tests start none at all; no GPU or TPU.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the tests' time is code generation: LLVM's optimisation, and XLA's newer emitters of fused loops, which take
# almost four times as long as the older ones. The programs that XLA hands them, which tests look at, stay as they are.
# The slow tests run with the user's flags.
# XLA aborts on a flag that it does not know: two of them are those of the pinned jaxlib.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * metadata.version("jaxlib").startswith("0.10."),
)

import filelock
import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiled programs of earlier runs of the tests, of which most are the same: more than half of the tests' time.
jax.config.update("jax_enable_compilation_cache", True)
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

DATA = pathlib.Path(__file__).parent / "data"
# Started or shared by tests, some of it in an environment of its own; not imported for its docstrings.
collect_ignore_glob = ["support/*"]

# A shell's job in the background ignores Ctrl-C, as would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup

# Hundreds of thousands of objects of modules, tests and cached programs live until the end: each full collection walks
# them all and takes up to a second, and with Python's thresholds there are dozens.
gc.set_threshold(50_000, 20, 20)


def pytest_sessionstart():
    """Removes a terminal's or a CI service's settings, with which rich takes a string for a terminal.

    Not before: pytest itself follows them, and has read them by then.
    """
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        os.environ.pop(name, None)


MOST_MEMORY = 3 * 2**29
"""Bytes in memory, 1.5 GiB, from which on a file's compiled programs are forgotten at its end."""


def resident():
    """Return the bytes of this process in memory; 0 where Linux does not tell."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def pytest_runtest_teardown(item, nextitem):
    """Forgets compiled programs after a file, where they take much memory: a worker would hold 6 GB at its end."""
    if nextitem is not None and nextitem.path != item.path and resident() > MOST_MEMORY:
        jax.clear_caches()
        gc.collect()


def pytest_sessionfinish(session):
    """Prints the largest memory of this worker, or of this process where there are no workers."""
    if not hasattr(session.config, "workerinput") and session.config.getoption("numprocesses", None):
        return  # only starts the workers
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    worker = os.environ.get("PYTEST_XDIST_WORKER", "tests")
    print(f"\n{worker}: at most {most / 2**30:.2f} GiB of memory", file=sys.__stderr__)


def pytest_collection_finish():
    """Leaves out of all later collections what lives until the end: the imported modules and the tests."""
    gc.freeze()


FULL = ("benchmarks", "docs", "examples", "experiments")
"""Folders whose tests `make test` leaves to `make test-all`: studies with their numbers, benchmarks, pages."""


def pytest_ignore_collect(collection_path, config):
    """Leaves out the folders of FULL where none of their tests can be chosen: what they import takes seconds."""
    of_tests = collection_path.parent == pathlib.Path(__file__).parent
    if of_tests and collection_path.name in FULL and "not full" in config.option.markexpr:
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests of FULL before pytest chooses by marks."""
    folder = pathlib.Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(folder) and item.path.relative_to(folder).parts[0] in FULL:
            item.add_marker("full")


FOR_CPU = ("dynamics", "instruments", "learner", "models", "neurons")
"""Folders whose tests, like those in no folder, trace the form of the CPU alone, which is less to trace and to lower.

All other tests, those of training too, trace the forms of every platform, as a user's programs do.
"""


@pytest.fixture(autouse=True, scope="module")
def one_platform(request):
    """Traces programs for the CPU alone, in a module of FOR_CPU or of no folder."""
    folder = pathlib.Path(__file__).parent
    of_tests = request.path.is_relative_to(folder)
    if of_tests and (request.path.parent == folder or request.path.relative_to(folder).parts[0] in FOR_CPU):
        from csbp_jax.xla.platform import traced_for

        with traced_for("cpu"):
            yield
    else:
        yield


@pytest.fixture
def x64():
    """Runs the test in float64."""
    from csbp_jax.runtime import hardware

    with hardware.float64():
        yield


@pytest.fixture(scope="session")
def reference():
    """Loads a file of ``tests/data`` by name."""

    def load(name):
        with np.load(DATA / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run of two epochs on the digits, shared by all workers; no test may change it."""
    from csbp_jax import configs
    from csbp_jax.reporting import terminal
    from csbp_jax.training import loop
    from tests.support import shared_programs

    config = configs.load("digits")
    model = dataclasses.replace(config.model, features=(4, 8), time_steps=3)
    config = dataclasses.replace(config, model=model, epochs=2, batch_size=64, checkpoint_every=1)
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared_runs"
    with filelock.FileLock(f"{root}.lock"), pytest.MonkeyPatch.context() as patch:
        if not (root / "trained" / "result.json").exists():
            patch.setattr(loop, "compile_run", shared_programs.compile_run)
            loop.train(config, name="trained", root=root, console=terminal.Console(file=io.StringIO()))
    return root / "trained"


@pytest.fixture(scope="module")
def no_figures():
    """Trains, evaluates and inspects without figures, in modules that do not look at them: each costs half a second."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plots_training.draw", "plots_evaluation.draw", "plots_inspection.draw"):
            patch.setattr(f"csbp_jax.reporting.{name}", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def one_compilation_per_config():
    """Trains on one device, runs of one config by the same programs."""
    from tests.support import shared_programs

    with shared_programs.patched():
        yield


@pytest.fixture
def refused(capsys):
    """Runs a command that is refused, and returns the one line that it prints."""
    from csbp_jax.cli import main

    def run(*words, code=2):
        assert main.main([*map(str, words)]) == code
        error = capsys.readouterr().err
        assert error.startswith("csbp_jax: ") and error.count("\n") == 1, error
        return error

    return run


@pytest.fixture(scope="session")
def publish(tmp_path_factory):
    """The environment that ``make docs`` and ``make wheel`` use, made as they make it."""
    from tests.support.checkout import ROOT, make

    venv = tmp_path_factory.mktemp("publish") / "venv"
    done = make(ROOT, f"PYTHON={sys.executable}", f"PUBLISH={venv}", venv / ".installed")
    if done.returncode:
        pytest.skip(f"requirements-publish.txt cannot be installed: {done.stderr.strip().splitlines()[0]}")
    return venv


@pytest.fixture(scope="session")
def tpu_compiler():
    """The folder of TPU's compiler, where ``make tpu`` has installed it."""
    folder = pathlib.Path(__file__).parent.parent / ".bench" / "tpu"
    if not (folder / "installed.txt").exists():
        pytest.skip("needs TPU's compiler: run make tpu once, and stop it when it compiles")
    return folder
