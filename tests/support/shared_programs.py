"""Runs of tests that share their compiled programs, one per config and process, and draw no figures."""

import contextlib

import pytest

from csbp_jax import learner
from csbp_jax.config import replaced
from csbp_jax.runtime import sharding
from csbp_jax.training import compiled, loop, session
from csbp_jax.training.plugins import Own

# Read on the host, or traced in the state: two configs that differ in these alone have the same programs.
_NOT_COMPILED = {
    "seed": 0,
    "weights": "",
    "log_every": 1,
    "checkpoint_every": 1,
    "eval_batch_size": 180,
    "patience": 0,
    "loss_limit": 0.0,
    "data.workers": 0,
    "chaos.z0": (1.0,),
    "chaos.beta": 1.0,
    "chaos.target": 0.5,
    "chaos.scale": 1.0,
    "optimizer.lr": 0.1,
}
_runs: dict = {}
_unscheduled: dict = {}


def _compiled(config):
    """The config with one value of each field that no program depends on."""
    for field, value in _NOT_COMPILED.items():
        config = replaced(config, field, value)
    return replaced(config, "epochs", 1) if config.optimizer.schedule == "constant" else config


def compile_run(config, source, steps_per_epoch, own=Own(), mesh=None):
    """A :class:`CompiledRun` on one device, with the programs of an earlier run where they are the same."""
    mesh = sharding.data_parallel(1) if mesh is None else mesh
    run = compiled.compile_run(config, source, steps_per_epoch, own, mesh)
    if own.plugins:
        return run
    key = _compiled(config)
    first = _runs.setdefault((key, steps_per_epoch, mesh), run)
    # What is traced in the state is an argument, so that one initialisation serves all of its values.
    init, hparams = first.init, learner.hyperparameters(config, steps_per_epoch)
    vars(run)["init"] = lambda key, given=None: init(key, hparams | (given or {}))
    for name in ("train_step",):
        vars(run)[name] = getattr(first, name)
    # Neither gradients nor an evaluation know the schedule of the learning rate.
    key = replaced(replaced(key, "epochs", 1), "optimizer.schedule", "constant")
    first = _unscheduled.setdefault((key, steps_per_epoch, mesh), run)
    for name in ("gradient_norms", "_eval_step"):
        vars(run)[name] = getattr(first, name)
    return run


@contextlib.contextmanager
def patched():
    """Use these functions in the training loop, and draw none of its figures: half a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_run", compile_run)
        patch.setattr(session.plots_training, "draw", lambda *_: None)
        yield
