"""Runs of tests on one device, without figures: half a second each."""

import contextlib

import pytest

from csbp_jax.reporting import plots_training
from csbp_jax.runtime import sharding
from csbp_jax.training import compiled, loop
from csbp_jax.training.plugins import Own


def compile_run(config, source, steps_per_epoch, own=Own()):
    """A run on one device, which shares the programs of earlier ones."""
    return compiled.compile_run(config, source, steps_per_epoch, own, sharding.data_parallel(1))


@contextlib.contextmanager
def patched():
    """Use it in the training loop, and draw none of its figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_run", compile_run)
        patch.setattr(plots_training, "draw", lambda *_: None)
        yield
