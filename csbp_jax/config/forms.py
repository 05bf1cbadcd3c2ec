"""Forms of a config: flat, with the names of the command line; as JSON, in which runs store it; and the run name."""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from csbp_jax.config.schema import Config

Section = TypeVar("Section", bound=Any)
"""A config, or one of its parts."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a config, or its JSON form, to ``{"chaos.z0": (1.0,), ...}``, with the names of the command line."""
    if isinstance(config, Mapping):
        fields = dict(config)
    else:
        fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def replaced(config: Section, name: str, value: Any) -> Section:
    """Return the config with a new value of one field, named as in :func:`flatten`."""
    first, _, rest = name.partition(".")
    change: Any = {first: replaced(getattr(config, first), rest, value) if rest else value}
    return dataclasses.replace(config, **change)


LATER_FIELDS = {
    "weights_table": "",
    "loss_limit": 1000.0,
    "data.randaugment_operations": 2,
    "data.randaugment_magnitude": 9,
    "data.erasing_probability": 0.25,
    "data.mix_off_epochs": 0,
    "model.pool": None,
    "model.max_delay": None,
    "model.init_rate": None,
    "loss.firing": 0.0,
    "loss.firing_low": 0.02,
    "loss.firing_high": 0.5,
    "model.drop_path": None,
    "data.test_speaker": "",
    "data.shorter_side": None,
    "data.resizer": "pillow",
    "model.embed": None,
    "model.depth": None,
    "model.heads": None,
    "model.patch": None,
    "model.neuron.scale_input": False,
    "model.neuron.at_threshold": "silent",
    "model.neuron.name": "lif",
    "model.neuron.synapse_decay": 0.5,
    "model.neuron.adaptation": 0.2,
    "model.neuron.adaptation_decay": 0.9,
    "model.neuron.levels": 4,
    "model.neuron.order": 2,
    "optimizer.layer_decay": 1.0,
    "optimizer.sam_radius": 0.0,
    "loss.membrane": 0.0,
}
"""Fields added since runs were first written, with their defaults. They are stored only with another value, so that the
names of earlier runs, and the files in which they resume, stay the same. The defaults are repeated here because
they are what a stored config without the field means: a test fails where that of the dataclass changes."""


def to_json(config: Config) -> dict[str, Any]:
    """Convert to nested plain types, which are equal after a round trip through JSON.

    Fields of ``LATER_FIELDS`` are left out at their defaults.
    """
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    for name, default in LATER_FIELDS.items():
        *sections, field = name.split(".")
        fields = functools.reduce(operator.getitem, sections, content)
        if fields[field] == default:
            del fields[field]
    return content


def flatten_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten the JSON form of a config, as :func:`flatten`, with the fields that it leaves out."""
    flat = flatten(content)
    return flat | {name: value for name, value in LATER_FIELDS.items() if name not in flat}


def from_json(content: dict[str, Any]) -> Config:
    """Convert from the form of :func:`to_json`."""
    config: Config = _from_json(Config, content)
    return config


def _from_json(kind: Any, content: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        values = {name: _from_json(hints[name], value) for name, value in content.items()}
        return kind(**values)  # type: ignore[operator]  # mypy narrows to an instance, but it is a class
    return tuple(content) if isinstance(content, list) else content


def run_name(config: Config) -> str:
    """Return the data set and a short hash of the whole config, so that other options never resume the wrong run."""
    text = json.dumps(to_json(config), sort_keys=True)
    return f"{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
