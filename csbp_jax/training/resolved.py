"""Fields that a config takes from the data, the shape of the input and the number of classes, and their checks."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import jax

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, Rule, check_rules, flatten
from csbp_jax.data import DataSource
from csbp_jax.data.device import transform

Splits = Mapping[str, DataSource]
"""``{"train": source, "validation": source, "test": source}``"""

_BATCH_RULES = (
    Rule("batch_size", ("training examples",), operator.le, "at most their number"),
    Rule(
        "batch_size",
        ("devices of a batch", "optimizer.accumulate"),
        lambda size, devices, count: size % (devices * count) == 0,
        "multiples of their product",
    ),
)
_DATA_RULES = (
    Rule("model.classes", ("classes of the data",), operator.eq, "their number, or 0, which takes it from the data"),
    Rule(
        "model.input_shape",
        ("frames of the data",),
        operator.eq,
        "their shape, or input_shape=() and classes=0, which take both from the data",
    ),
)


def resolve(config: Config, splits: Splits, devices: int | None = None) -> Config:
    """Fill in the fields that the model takes from the data, and check the training batch.

    Args:
      config: of the run.
      splits: of its data.
      devices: number of devices that share a batch; all by default.

    Raises:
      ConfigError: as :func:`resolve_model`, the data set is too small for a batch, or a batch cannot be divided over
        devices and microbatches.
    """
    config = resolve_model(config, splits)
    facts = {"training examples": len(splits["train"]), "devices of a batch": devices or jax.device_count()}
    check_rules(_BATCH_RULES, flatten(config) | facts)
    return config


def resolve_model(config: Config, splits: Splits) -> Config:
    """Fill in the fields that the model takes from the data (``input_shape``, ``classes``), and check the result.

    Raises:
      ConfigError: the model expects another input shape or number of classes, or a split is empty.
    """
    source, name = splits["train"], config.data.name
    config = _with(config, classes=config.model.classes or source.classes)
    shape = _frame_shape(config, source)
    config = _with(config, input_shape=config.model.input_shape or shape)
    check_rules(_DATA_RULES, flatten(config) | {"classes of the data": source.classes, "frames of the data": shape})
    for split, records in splits.items():
        if len(records) == 0:
            raise ConfigError(f"{name}: its {split} split is empty; it needs more records")
    return config


def _with(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


def _frame_shape(config: Config, source: DataSource) -> tuple[int, ...]:
    """Return ``(H, W, C)`` as the network sees it."""
    record = data.example_batch(source)
    # The transform may change height and width; it reads from the config whether the input has them.
    prepare, _ = transform.make(_with(config, input_shape=record["x"].shape[2:]), source.events)
    shape: tuple[int, ...] = jax.eval_shape(prepare, jax.random.key(0), record)["x"].shape[2:]
    return shape
