"""The config at given fields, and which configs share a compilation."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from csbp_jax.config import (
    Config,
    ConfigError,
    FixedInExperiments,
    NoSetting,
    flatten,
    marks_by_field,
    replaced,
    suggestion,
)
from csbp_jax.runs.run import plain
from csbp_jax.training import build
from csbp_jax.training.plugins import Own

Fields = Mapping[str, Any]
"""``{"chaos.z0": 3.0, ...}``: fields of a config by their names on the command line, or of a system of one's own."""


def key(fields: Fields) -> str:
    """Return a text by which equal fields are found."""
    return json.dumps({name: plain(value) for name, value in fields.items()}, sort_keys=True)


def check_field(config: Config, field: str) -> None:
    """Raise ConfigError for a field that members cannot differ in."""
    known = [*flatten(config), *(f"chaos.z0.{tap}" for tap in config.chaos.taps)]
    if field not in known:
        raise ConfigError(f"there is no field {field}; {suggestion(field, known)}")
    if refusal := marks_by_field(NoSetting).get(field):
        raise ConfigError(f"{field} is no field of a setting, {refusal.why}")


def at(config: Config, fields: Fields) -> Config:
    """Return the config with these fields, as :meth:`csbp_jax.config.Config.replace`.

    Raises:
      ConfigError: a field does not exist, or a value is not possible, or not where members train together.
    """
    taps = fields.get("chaos.taps", config.chaos.taps)
    with_taps = replaced(config, "chaos.taps", (taps,) if isinstance(taps, str) else taps)
    for field in fields:
        check_field(with_taps, field)
    config = config.replace(**fields)
    flat = flatten(config)
    for field, fixed in marks_by_field(FixedInExperiments).items():
        if flat[field] != fixed.value:
            raise ConfigError(f"{field}: {flat[field]} is not possible in an experiment, {fixed.why}")
    return config


def compile_group(config: Config, own: Own = Own()) -> Config:
    """Return the compile group of a config: equal for two configs that can train in one compilation."""
    beside = {field: build.TRACED_BESIDE[field] for field in traceable(config, own)}
    return build.with_others(build.without_traced(config, own), beside)


def traceable(config: Config, own: Own = Own()) -> tuple[str, ...]:
    """Return those of :data:`csbp_jax.training.build.TRACED_BESIDE` that a config's network allows.

    None with a user's own parts that may read them from their config. The weight decay not with a control of the user's
    own, which need not pass it on. The neuron's not if it has parameters of its own, nor with tdBN or MS-ResNet, which
    take the threshold when the network is built.
    """
    if not own.shares or {"neuron", "model", "loss"}.intersection(own.plugins):
        return ()
    model, neuron = config.model, config.model.neuron
    built_with_threshold = model.norm == "tdbn" or model.name in ("ms_resnet18", "ms_resnet34")
    of_neuron = neuron.learn == "none" and "psn" not in neuron.name and not built_with_threshold
    without = (() if of_neuron else ("model.neuron.",)) + ("optimizer.",) * ("control" in own.plugins)
    return tuple(field for field in build.TRACED_BESIDE if not field.startswith(without))


def varying(configs: Sequence[Config], own: Own = Own()) -> frozenset[str]:
    """Return those of :data:`csbp_jax.training.build.TRACED_BESIDE` in which the configs of a group differ."""
    flat, names = [flatten(config) for config in configs], traceable(configs[0], own)
    return frozenset(name for name in names if any(fields[name] != flat[0][name] for fields in flat))
