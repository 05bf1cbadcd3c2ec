"""Runs and sweeps of tests that share their compiled programs, one per config and process, and draw no figures."""

import contextlib
import types

import pytest

from csbp_jax.config import replaced
from csbp_jax.runtime import sharding
from csbp_jax.sweep import driver, grid, vectorised
from csbp_jax.training import compiled, loop
from csbp_jax.training.plugins import Own

# Read by the loop on the host, or traced in the state: two configs that differ in these alone have the same programs.
_NOT_COMPILED = {
    "seed": 0,
    "log_every": 1,
    "flip_every": 0,
    "checkpoint_every": 1,
    "patience": 0,
    "loss_limit": 0.0,
    "data.workers": 0,
    "chaos.z0": (1.0,),
    "chaos.unit": "plain",
    "optimizer.lr": 0.1,
}
_PROGRAMS = ("train_step", "gradient_norms", "flip_ratio", "_eval_step")
_runs: dict = {}
_sweeps: dict = {}
_traced: set = set()


def compile_run(config, source, steps_per_epoch, own=Own(), mesh=None):
    """A :class:`CompiledRun` on one device, with the programs of an earlier run where they are the same."""
    mesh = sharding.data_parallel(1) if mesh is None else mesh
    run = compiled.compile_run(config, source, steps_per_epoch, own, mesh)
    if own.plugins:
        return run
    key = config
    for field, value in _NOT_COMPILED.items():
        key = replaced(key, field, value)
    if config.optimizer.schedule == "constant":
        key = replaced(key, "epochs", 1)
    first = _runs.setdefault((key, steps_per_epoch, mesh), run)
    for name in _PROGRAMS:
        vars(run)[name] = getattr(first, name)
    return run


def vectorised_runs(members, splits, mesh, own=Own()):
    """:class:`VectorisedRuns`, the same object for the same compile group."""
    if own.plugins:
        return vectorised.VectorisedRuns(members, splits, mesh, own)
    traces_neuron = len({member.model.neuron for member in members}) > 1
    key = (grid.compile_group(members[0]), None if traces_neuron else members[0].model.neuron, mesh)
    if key not in _sweeps:
        _sweeps[key] = vectorised.VectorisedRuns(members, splits, mesh)
    return _sweeps[key]


def trace_step(config, splits, own=Own()):
    """Check a config as a sweep does, once."""
    if own.plugins or config not in _traced:
        vectorised.trace_step(config, splits, own)
    _traced.add(config)


@contextlib.contextmanager
def patched():
    """Use these functions in the training loop and in sweeps, and draw none of their figures: half a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_run", compile_run)
        patch.setattr(driver, "VectorisedRuns", vectorised_runs)
        patch.setattr(driver, "trace_step", trace_step)
        patch.setattr(loop, "plots", types.SimpleNamespace(draw_run=lambda *_: None))
        patch.setattr(driver, "plots_sweep", types.SimpleNamespace(draw_sweep=lambda *_: None))
        yield
