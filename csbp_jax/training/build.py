"""From a config and a user's own parts to what is compiled: data, a config that they complete, and a recipe."""

import contextlib
import functools
import operator
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax

from csbp_jax import data, learner, losses, models, weights
from csbp_jax.config import (
    Config,
    ConfigError,
    Rule,
    Traced,
    check,
    check_rules,
    flatten,
    marks_by_field,
    one_line,
    replaced,
)
from csbp_jax.data import DataSource
from csbp_jax.data.device import transform
from csbp_jax.data.source import UserSource
from csbp_jax.data.user import arrays
from csbp_jax.learner import Recipe, optimizer
from csbp_jax.training.config_view import ConfigView
from csbp_jax.training.plugin_file import defined_in_plugin, error_line
from csbp_jax.training.plugins import Own

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

TRACED: dict[str, Any] = {
    field: traced.stand_in for field, traced in marks_by_field(Traced).items() if not traced.only_if_varied
}
"""Fields that are traced, with a valid value for each: runs that differ in them share a compilation."""

TRACED_BESIDE: dict[str, Any] = {
    field: traced.stand_in for field, traced in marks_by_field(Traced).items() if traced.only_if_varied
}
"""Fields that are traced too where members of an experiment differ in them, with a valid value for each."""


def load(config: Config, own: Own, data_dir: str | pathlib.Path) -> tuple[Config, Splits, str, weights.Plan | None]:
    """Return the config with what the data determine, their splits and fingerprint, and the file of initial weights.

    Raises:
      ConfigError: a value is impossible, or the data or the file cannot be read or do not fit.
    """
    check(config)
    plan = weights.plan(config) if config.weights and not own.model else None
    splits, fingerprint = load_data(config, own, data_dir)
    resolved = resolve(config, splits)
    return resolved, splits, fingerprint, plan and weights.matched(plan, resolved.model)


def load_data(
    config: Config, own: Own, data_dir: str | pathlib.Path, traced: Collection[str] = tuple(TRACED)
) -> tuple[dict[str, DataSource], str]:
    """Load the splits of the data, and a fingerprint that changes when their records do.

    Args:
      traced: fields that own data cannot read, as runs that differ in them have the same.

    Raises:
      ConfigError: as ``data.load``, or own data are not what they should be.
    """
    if not own.data:
        return data.load(config, data_dir), data.fingerprint(config, data_dir)
    with blamed(own, ["data"]):  # for all runs that share a compilation
        loaded = own.data(ConfigView(config, traced), pathlib.Path(data_dir))
    splits = arrays.sources(loaded, config, own.label)
    if config.data.workers and any(defined_in_plugin(type(source.source)) for source in splits.values()):
        raise ConfigError(
            f"data.workers: {config.data.workers} is not possible for a source that {own.label} defines, which other "
            "processes do not know; take data.threads"
        )
    return dict(splits), arrays.fingerprint(splits)


def class_names(config: Config, splits: Mapping[str, DataSource], data_dir: str | pathlib.Path) -> list[str]:
    """Return the names of the classes, labels or values, in their order; of own data, as they name them."""
    train = splits["train"]
    if not isinstance(train, UserSource):
        return data.classes(config, data_dir)
    names = list(train.class_names)
    return names if len(names) == config.model.classes else [str(n) for n in range(config.model.classes)]


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
      ConfigError: the model expects another input shape or number of classes, the loss other targets, or a split is
        empty.
    """
    source, name = splits["train"], config.data.name
    config = replaced(config, "model.classes", config.model.classes or source.classes)
    record = data.example_batch(source)
    _check_target(config, record["y"])
    # The transform may change height and width; it reads from the config whether the input has them.
    prepare, _ = transform.make(replaced(config, "model.input_shape", record["x"].shape[2:]), source.events)
    shape = jax.eval_shape(prepare, jax.random.key(0), record)["x"].shape[2:]
    config = replaced(config, "model.input_shape", config.model.input_shape or shape)
    check_rules(_DATA_RULES, flatten(config) | {"classes of the data": source.classes, "frames of the data": shape})
    for split, records in splits.items():
        if len(records) == 0:
            raise ConfigError(f"{name}: its {split} split is empty; it needs more records")
    return config


def _check_target(config: Config, y: Any) -> None:
    loss = config.loss
    axes = 1 + (loss.per == "step") + (loss.task != "class" or y.dtype.kind == "f")
    if y.ndim != axes:
        raise ConfigError(
            f"loss.task: {loss.task} of each {loss.per} is not possible with data.name {config.data.name}, of which "
            f"each target is {y.dtype} {y.shape[1:]}; a class of each example is --loss.task class --loss.per example"
        )


def build_recipe(config: Config, own: Own, steps_per_epoch: int, hparams: dict[str, Any] | None = None) -> Recipe:
    """Build the recipe of a training step from the user's own parts, and the config's for those that are missing.

    Args:
      hparams: traced values, for own parts that name them; by default the config's.

    Raises:
      ConfigError: an own part fails, or stands beside an option that replaces it.
    """
    if own.model and config.weights:
        raise ConfigError(
            f"weights: {config.weights}, but {own.label} has its own model, for which no table of names exists"
        )
    if own.term and config.chaos.term != "chaos":
        raise ConfigError(
            f"chaos.term: {config.chaos.term} replaces the term, but {own.label} has its own; leave one of them out"
        )

    def made(part: str, *arguments: Any) -> Any:
        function = getattr(own, part)
        if part not in own.with_hparams:
            return function(ConfigView(config, ["seed"]), *arguments)
        traced = hparams or learner.hyperparameters(config, steps_per_epoch)
        beside = [field for field in TRACED_BESIDE if learner.hyperparameter_name(field) in traced]
        return function(ConfigView(config, [*TRACED, *beside]), *arguments, hparams=traced)

    with blamed(own):
        neuron = made("neuron") if own.neuron else models.neuron(config.model.neuron, config.model.time_steps)
        if not callable(neuron):
            raise TypeError(f"it returns {neuron!r}; expected is a neuron, a function of (x, state=None)")
        model = made("model", neuron) if own.model else models.build(config.model, neuron)
        tx = optimizer.build(config.optimizer, config.epochs, steps_per_epoch, ordered_layers(config, model))
        tx = made("control", tx) if own.control else tx
        loss = made("loss") if own.loss else losses.build(config.loss)
        return Recipe(model, tx, loss, config, steps_per_epoch, made("term") if own.term else None)


@contextlib.contextmanager
def blamed(own: Own, parts: Collection[str] = ("neuron", "model", "loss", "term", "control")) -> Iterator[None]:
    """Report an error by the line of a user's file that raised it or, without one, by the functions that may have.

    Raises:
      ConfigError: any error within the block, if there is a file.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or not own.code:
            raise
        names = ", ".join(name for name in own.plugins if name in parts)
        cause = f"{own.file}: {names}: {type(error).__name__}: {one_line(error)[:400]} (docs/own.md)"
        raise ConfigError(error_line(error) or cause) from error


def ordered_layers(config: Config, model: Any) -> tuple[str, ...]:
    """Return the layers of a network in their order if the config's optimiser needs them, else nothing."""
    needs_order = config.optimizer.layer_decay != 1 or config.optimizer.name == "muon"
    return models.layer_names(model, config.model.input_shape) if needs_order else ()


def with_others(config: Config, fields: Mapping[str, Any]) -> Config:
    """Return a config with other values of some fields, by their names, which are not checked."""
    return functools.reduce(lambda changed, field: replaced(changed, field, fields[field]), fields, config)


def without_traced(config: Config, own: Own) -> Config:
    """Return a config that is equal for two that differ in :data:`TRACED` alone.

    With a user's own function that does not take the traced values, for two that differ in the seed alone.
    """
    return with_others(config, TRACED if own.shares else {"seed": TRACED["seed"]})
