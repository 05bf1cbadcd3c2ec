"""Forms of a config: flat, with the names of the command line; as JSON, in which runs store it; and the run name."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

Section = TypeVar("Section", bound=Any)
"""A config, or one of its parts."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten a config, or its JSON form, to ``{"chaos.z0": (1.0,), ...}``, with the names of the command line."""
    flat: dict[str, Any] = {}
    for name, value in (config if isinstance(config, Mapping) else vars(config)).items():
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def replaced(config: Section, name: str, value: Any) -> Section:
    """Return the config with a new value of one field, named as in :func:`flatten`."""
    first, _, rest = name.partition(".")
    changed = copy.copy(config)
    vars(changed)[first] = replaced(vars(config)[first], rest, value) if rest else value
    return changed


def to_json(config: Any) -> dict[str, Any]:
    """Convert to nested plain types, which are equal after a round trip through JSON."""
    content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return content


def from_json(content: Any, kind: type[Section]) -> Section:
    """Convert from the form of :func:`to_json` to a dataclass."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_json(value, hints[name]) for name, value in content.items()})
    return tuple(content) if isinstance(content, list) else content  # type: ignore[return-value]  # kind is its type


def run_name(config: Any) -> str:
    """Return the data set and a short hash of the whole config, so that other options never resume the wrong run."""
    text = json.dumps(to_json(config), sort_keys=True)
    return f"{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
