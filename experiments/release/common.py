"""The map of both parts: training steps on a fixed batch."""

import itertools
from collections.abc import Iterator
from typing import Any

from csbp_jax import data
from csbp_jax.config import Config
from csbp_jax.instruments import training_map
from csbp_jax.training.build import resolve

STEPS, WARMUP = 300, 100


def prepared(config: Config, data_dir: str) -> tuple[Config, dict[str, Any], int]:
    """``(resolved config, batch, steps per epoch)``."""
    parts = data.load(config, data_dir)
    config = resolve(config, parts)
    return config, training_map.batches(config, parts["train"], 1)[0], len(parts["train"]) // config.batch_size


def steps(batch: Any, count: int = STEPS) -> Iterator[Any]:
    """The batch for each of ``count`` steps."""
    return itertools.repeat(batch, count)
