"""What both parts share."""

import itertools

from csbp_jax import data
from csbp_jax.instruments import training_map
from csbp_jax.training.compiled import resolve

STEPS, WARMUP = 300, 100


def prepared(config, data_dir):
    """``(config, batch, steps an epoch)``."""
    parts = data.load(config, data_dir)
    config = resolve(config, parts)
    return config, training_map.batches(config, parts["train"], 1)[0], len(parts["train"]) // config.batch_size


def steps(batch, count=STEPS):
    return itertools.repeat(batch, count)
