"""One of the processes that restore a checkpoint, in float64, and train on from it. Run by test_continuing.py."""

import dataclasses
import itertools
import pathlib
import sys

import jax
import numpy as np

from csbp_jax import configs, data
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.runtime import multihost, sharding
from csbp_jax.runtime.preemption import Stop
from csbp_jax.training import compiled
from csbp_jax.training.checkpoint import checkpoint

STEPS = 20
DIGITS = configs.load("digits")


def begin(layout):
    """A run's program and its first state, in float64."""
    config = dataclasses.replace(
        DIGITS,
        layout=layout,
        batch_size=16,
        model=dataclasses.replace(DIGITS.model, name="dense", features=(16, 8), time_steps=2),
        chaos=dataclasses.replace(DIGITS.chaos, anneal="step", taps=("fc1.membrane",)),
    )
    run = compiled.compile_run(config, data.load(config)["train"], 78)
    return run, to_default_precision(run.init(jax.random.key(0)))


def go_on(run, state):
    """The state after STEPS more."""
    start = int(state.step)
    for batch in itertools.islice(run.batches(0, start), STEPS):
        state, _ = run.train_step(state, run.shard_batch(batch))
    return state


def arrays(run, state):
    """All numbers that a state holds, by name."""
    numbers = {"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state}
    leaves, _ = jax.tree_util.tree_flatten_with_path(numbers)
    return {jax.tree_util.keystr(path): np.asarray(run.replicate(leaf)) for path, leaf in leaves}


def main(how, layout, folder, out):
    with multihost.connected(how, Stop()):
        run, state = begin(layout)
        with checkpoint.open_folder(pathlib.Path(folder)) as checkpoints:
            found = checkpoints.restore(state)
        restored = arrays(run, found)
        after = arrays(run, go_on(run, found))
        print({device.process_index for device in sharding.data_parallel().devices.flat}, flush=True)
        if multihost.is_host0():
            np.savez(
                out, **{f"restored{k}": v for k, v in restored.items()}, **{f"after{k}": v for k, v in after.items()}
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
