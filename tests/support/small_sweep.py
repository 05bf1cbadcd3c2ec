"""A small sweep: its config, its console, and the results of a training that did not happen."""

import dataclasses
import functools
import io

from csbp_jax import configs, sweep
from csbp_jax.config import Optimizer
from csbp_jax.reporting.terminal import Console

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=3,
    batch_size=320,
    eval_batch_size=360,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(5, 4), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",), anneal="step"),
    optimizer=Optimizer(name="sgd", lr=0.05),
)
QUIET = functools.partial(Console, file=io.StringIO())


def run(folder, axes, config=SMALL, **options):
    """The sweep ``s`` in a folder."""
    return sweep.run(config, axes, name="s", root=folder, console=QUIET(), **options)


def untrained(runs, configs, show):
    """Results of members, in place of ``vectorised.train``: what tables need of them."""
    accuracy = {"validation_accuracy": 0.5, "test_accuracy": 0.5, "test_loss": 1.0}
    report = {"epoch": 1, **accuracy}
    return [
        {"diverged": False, "epochs": [{"task_loss": 1.0}], "last": report, "chosen": report, "bad_steps": 0}
        for _ in configs
    ]
