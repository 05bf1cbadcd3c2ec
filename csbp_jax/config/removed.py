"""Options that earlier versions had, or did not have yet, and how their stored configs are read."""

import copy
from collections.abc import Mapping
from typing import Any

from csbp_jax.config.errors import ConfigError

REMOVED: dict[str, Any] = {"data.erasing_probability": 0.25, "loss.membrane": 0.0}
"""The default of each option that is gone, by its name on the command line: ``SECTION.FIELD``."""
ADDED: dict[str, Any] = {
    "data.crop_padding": 4,
    "model.remat_neurons": False,
    "model.read_out": "mean",
    "model.read_out_decay": 0.0,
    "model.neuron.coupling": 0.5,
    "model.neuron.adaptation_scale": None,
    "model.neuron.form": "symplectic",
}
"""The default of each option that came since runs are named, by its name: also ``SECTION.PART.FIELD``."""


def as_current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config, in its JSON form, as this version stores it.

    It lacks the removed options: at its default, such an option changes nothing, and a run that has it is loaded and
    resumed as one without. Options that it could not have yet are at their defaults.

    Raises:
      ConfigError: a removed option has another value.
    """
    remaining = copy.deepcopy(dict(config))
    for name, default in REMOVED.items():
        section, _, field = name.partition(".")
        fields = remaining.get(section)
        if not isinstance(fields, Mapping) or field not in fields:
            continue
        if fields[field] != default:
            raise ConfigError(f"{name}: {fields[field]} is not possible, as this version has no such option")
        remaining[section] = {other: value for other, value in fields.items() if other != field}
    for name, default in ADDED.items():
        part, field = _part_with(name, remaining)
        if part is not None:
            part.setdefault(field, default)
    return remaining


def as_earlier(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of a config as earlier versions stored it.

    It has the removed options at their defaults, and lacks those that were added since and are at their defaults.
    """
    earlier = copy.deepcopy(dict(config))
    for name, default in REMOVED.items():
        section, _, field = name.partition(".")
        earlier[section][field] = default
    for name, default in ADDED.items():
        part, field = _part_with(name, earlier)
        if part is not None and part[field] == default:
            del part[field]
    return earlier


def _part_with(name: str, config: Any) -> tuple[dict[str, Any] | None, str]:
    """Return the part of a stored config that has an option, None if the config has no such part, and its field."""
    *parts, field = name.split(".")
    for part in parts:
        config = config.get(part) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else None, field
