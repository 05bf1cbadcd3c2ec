"""Commands on a device that JAX reaches as it reaches TPUs and GPUs: through a plugin, XLA's own one of CPUs.

A plugin lacks what only JAX's own CPU client has, such as the count of a program's operations before it is compiled.
"""

import os
import shutil
import subprocess
import sys

import filelock
import pytest

from benchmarks.h100 import install
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.metrics_log import read_rows
from tests.support import processes

pytestmark = pytest.mark.slow
SMALL = ["--model.features", "4", "8", "--model.time-steps", "2", "--batch-size", "64", "--epochs", "2"]


@pytest.fixture(scope="module")
def on_plugin(tmp_path_factory):
    """``(function, folder)``: runs a command on the plugin in the folder, and returns its output."""
    wheels = processes.ROOT / ".bench" / "pjrt"
    wheels.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(wheels / "lock"):
            install(wheels, ["xla-cpu-pjrt==0.0.1"])
    except SystemExit as error:
        pytest.skip(f"needs a plugin of JAX, which cannot be installed: {error}")
    library = wheels / "xla_plugins" / "xla_cpu_pjrt" / "xla_cpu_pjrt.so"
    environment = {
        "JAX_PLATFORMS": "plugin,cpu",
        "PJRT_NAMES_AND_LIBRARY_PATHS": f"plugin:{library}",
        "PYTHONPATH": str(processes.ROOT),
        "XLA_FLAGS": "",
    }
    folder = tmp_path_factory.mktemp("plugin")

    def run(*words):
        line = [sys.executable, "-m", "tests.support.on_plugin", *words]
        done = subprocess.run(line, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run, folder


@pytest.fixture(scope="module")
def trained(on_plugin):
    """The folder of a run that lost its last checkpoint, and was resumed from the one before."""
    command, on = on_plugin
    words = ("train", "digits", *SMALL, "--checkpoint-every", "1", "--name", "run")
    command(*words)
    run = on / "runs" / "run"
    (run / "result.json").unlink()
    shutil.rmtree(list(layout.complete(run / "checkpoints").values())[-1])
    assert "resumed after step" in command(*words)
    return run


def test_a_run_trains_resumes_and_knows_its_utilisation(trained):
    rows = read_rows(trained / "metrics.jsonl")
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1, 2]
    assert all(0 < row["utilisation"] < 1 for row in rows if row["kind"] in ("train", "epoch"))


@pytest.mark.parametrize(
    "words", ["evaluate", "inspect", "robustness --examples 8 --only noise,pgd", "export --to stablehlo"]
)
def test_a_trained_run_is_used(on_plugin, trained, words):
    command, *options = words.split()
    assert on_plugin[0](command, str(trained), *options)


def test_a_sweep_trains_its_members_at_once(on_plugin):
    grid = "chaos.z0=0,3 seed=0:2"
    assert "paired over seeds" in on_plugin[0]("sweep", "digits", *SMALL, "--grid", grid, "--name", "grid")
