"""Options that earlier versions had, and how their stored configs are read."""

import copy
from collections.abc import Mapping
from typing import Any

from csbp_jax.config.errors import ConfigError

REMOVED: dict[str, Any] = {"data.erasing_probability": 0.25, "loss.membrane": 0.0}
"""The default of each such option, by its name on the command line: ``SECTION.FIELD``."""


def without_removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config, in its JSON form, without the removed options.

    At its default, such an option changes nothing, and a run that has it is loaded and resumed as one without.

    Raises:
      ConfigError: a removed option has another value.
    """
    remaining = dict(config)
    for name, default in REMOVED.items():
        section, _, field = name.partition(".")
        fields = remaining.get(section)
        if not isinstance(fields, Mapping) or field not in fields:
            continue
        if fields[field] != default:
            raise ConfigError(f"{name}: {fields[field]} is not possible, as this version has no such option")
        remaining[section] = {other: value for other, value in fields.items() if other != field}
    return remaining


def with_removed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of a config with the removed options at their defaults, as earlier versions stored it."""
    complete = copy.deepcopy(dict(config))
    for name, default in REMOVED.items():
        section, _, field = name.partition(".")
        complete[section][field] = default
    return complete
