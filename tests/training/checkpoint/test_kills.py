"""A run killed at a hundred moments, in training, in saves and in collections of old checkpoints, loses no bit."""

import collections
import itertools
import os
import pathlib
import random
import subprocess
import sys

import pytest

from csbp_jax.training import run_json
from csbp_jax.training.checkpoint import location, manifest
from csbp_jax.training.metrics_log import read_rows
from tests.support.checkpoint_arrays import arrays

TESTS = pathlib.Path(__file__).parents[2]
EPOCHS = 250
MOMENTS = {"anywhere": 60, "save": 25, "soon after a save's beginning": 20, "collection": 15}
LINE = [
    *("train", "digits", "--name", "r", "--epochs", str(EPOCHS), "--batch-size", "512"),
    *("--log-every", "1", "--model.name", "dense", "--model.features", "8", "--model.time-steps", "2"),
    *("--chaos.taps", "fc1.membrane"),
]


def live(runs, moment, seed, cache, checkpoint_every=1):
    """One process, to its end or its death; its exit code."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    environment |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    line = [
        sys.executable,
        TESTS / "support" / "kill_itself.py",
        moment,
        str(seed),
        runs.parent / "log",
        *LINE,
        "--runs",
        str(runs),
    ]
    line += ["--checkpoint-every", str(checkpoint_every)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -9), done.stderr
    assert "damaged" not in done.stdout
    return done.returncode


def whole_ones(runs):
    """The steps of the checkpoints, all of them whole."""
    folder = runs / "r" / "checkpoints"
    found = location.steps(folder) if folder.exists() else []
    for step in found:
        assert manifest.verify(folder / str(step)) is None, step
    return found


def left(runs):
    """All that a run leaves and that no clock decides."""
    clocks = ("seconds", "examples_per_second", "waiting")
    rows = [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(runs / "r" / "metrics.jsonl")]
    return (
        run_json.read_result(runs / "r") | {"seconds": 0},
        rows,
        arrays(runs / "r" / "checkpoints"),
    )


@pytest.mark.slow
def test_a_run_killed_at_a_hundred_moments_loses_no_bit(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert live(tmp_path / "whole" / "runs", "none", 0, tmp_path / "cache", checkpoint_every=EPOCHS) == 0
    whole = left(tmp_path / "whole" / "runs")
    moments = [moment for moment, times in MOMENTS.items() for _ in range(times)]
    random.Random(0).shuffle(moments)
    seeds = itertools.count()
    # How far a life comes is the machine's affair: a run that ends before all kills are spent is followed by another.
    for number in itertools.count():
        runs = tmp_path / "killed" / f"runs-{number}"
        steps: list[int] = []
        while live(runs, moments[-1] if moments else "none", next(seeds), tmp_path / "cache") == -9:
            moments.pop()
            now = whole_ones(runs)
            # What was saved stays, and of two there are always two.
            assert now[-1:] >= steps[-1:] and len(now) >= min(len(steps), 2)
            steps = now
        assert left(runs) == whole
        if not moments:
            break
    killed = collections.Counter((tmp_path / "killed" / "log").read_text().splitlines())
    print(f"{killed.total()} kills ({dict(killed)}) of {number + 1} runs of {2 * EPOCHS} steps")
    assert killed == MOMENTS
