"""A run of two epochs of two steps on the digits, with a checkpoint after each."""

import dataclasses
import io

from csbp_jax import configs
from csbp_jax.reporting.terminal import Console
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows

SMALL = dataclasses.replace(
    configs.load("digits"),
    epochs=2,
    batch_size=512,
    checkpoint_every=1,
    log_every=1,
    model=dataclasses.replace(configs.load("digits").model, features=(2, 2), time_steps=2),
)


def run(config, root, **options):
    """The result of a run, and what it printed."""
    text = io.StringIO()
    result = train(config, root=root, console=Console(file=text, width=200), **options)
    return result, text.getvalue()


def timeless_rows(file):
    """The rows of a ``metrics.jsonl`` without what its clocks say."""
    clocks = ("seconds", "examples_per_second", "waiting")
    return [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(file)]
