"""The values of a config by their names on the command line: read, replaced, checked, and as JSON in a run's folder.

A check is of types and ranges (schema.py) and of the rules between fields (rules.py).
"""

import copy
import dataclasses
import hashlib
import json
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from csbp_jax.config.errors import ConfigError, suggestion
from csbp_jax.config.removed import as_earlier
from csbp_jax.config.rules import RULES, Rule, refusal
from csbp_jax.ranges import Range

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


def hints(kind: Any) -> dict[str, Any]:
    """Return the annotation of each field of a config's class, named as on the command line."""
    flat: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = hints(hint) if dataclasses.is_dataclass(hint) else None
        flat |= {name: hint} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return flat


def allowed_range(hint: Any) -> Range | None:
    """Return the range in an annotation; with ``None`` in its words, where that is a value too."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    allowed = next((extra for extra in extras if isinstance(extra, Range)), None)
    return allowed.or_none() if allowed and types.NoneType in get_args(kind) else allowed


def check_value(name: str, value: Any, hint: Any) -> None:
    """Check the type and the range of one value.

    Raises:
      ConfigError: it is not allowed; the message has its name and the allowed values.
    """
    kind, allowed = get_args(hint)[0] if get_origin(hint) is Annotated else hint, allowed_range(hint)
    if not _fits(value, kind):
        raise refusal(name, repr(value), _in_words(kind))
    if allowed and not allowed.contains(value):
        raise refusal(name, value, allowed.words)


def check(config: Section) -> Section:
    """Check all values and return the config itself.

    Raises:
      ConfigError: a value is not allowed; the message names the first such field and the allowed values.
    """
    check_values(config)
    check_rules(RULES, flatten(config))
    return config


def check_values(config: Any) -> None:
    """Check the type and the range of each value, but not the rules between fields.

    Raises:
      ConfigError: as :func:`check`.
    """
    flat = flatten(config)
    for name, hint in hints(type(config)).items():
        check_value(name, flat[name], hint)


def replace(config: Section, field: str = "", value: Any = None, /, **fields: Any) -> Section:
    """Return the config with other values: ``config.replace("chaos.z0", 0)``, ``config.replace(epochs=1, seed=2)``.

    Fields are named as on the command line; ``chaos.z0.TAP`` is the strength at one of several taps. A field of
    several values takes one value too, and a list.

    Raises:
      ConfigError: there is no such field, or a value is not allowed.
    """
    known = hints(type(config))
    for name, new in (({field: value} if field else {}) | fields).items():
        if tap := name.partition("chaos.z0.")[2]:
            name, new = "chaos.z0", _strengths(config, tap, new)
        if name not in known:
            raise ConfigError(f"{name}: there is no such field; {suggestion(name, known)}")
        config = replaced(config, name, _converted(new, known[name]))
    return check(config)


def _strengths(config: Any, tap: str, value: float) -> tuple[float, ...]:
    """Return the strengths of all taps, with another one at ``tap``."""
    taps, z0 = config.chaos.taps, config.chaos.z0
    if tap not in taps:
        raise ConfigError(f"chaos.z0.{tap}: there is no such tap; {suggestion(tap, taps)}")
    z0 = z0 if len(z0) > 1 else z0 * len(taps)
    if len(z0) != len(taps):
        check(config)  # refuses it
    strengths = dict(zip(taps, z0, strict=True)) | {tap: value}
    return tuple(strengths.values())


def _converted(value: Any, hint: Any) -> Any:
    """Return a value of NumPy or JSON, or a single one of several, as the field's type has it."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    kinds = get_args(kind) if types.NoneType in get_args(kind) else (kind,)
    value = value.tolist() if hasattr(value, "tolist") else value
    for several in (k for k in kinds if get_origin(k) is tuple and value is not None):
        items = value if isinstance(value, tuple | list) else (value,)
        return tuple(_converted(item, get_args(several)[0]) for item in items)
    return float(value) if float in kinds and isinstance(value, int) and _fits(value, float) else value


def check_rules(rules: Iterable[Rule], values: Mapping[str, Any]) -> None:
    """Check rules between fields, and facts of the data or the machine, of which ``values`` holds those that they name.

    Raises:
      ConfigError: as :func:`check`.
    """
    for rule in rules:
        others = {name: values[name] for name in rule.others}
        if not rule.allows(values[rule.field], *others.values()):
            raise refusal(rule.field, values[rule.field], rule.words, others, rule.why)


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) is tuple:
        return (
            isinstance(value, tuple)
            and all(_fits(item, kinds[0]) for item in value)
            and (kinds[-1] is Ellipsis or len(value) == len(kinds))
        )
    if get_origin(hint) is Literal:
        return value in kinds
    if kinds:  # X | None
        return any(_fits(value, kind) for kind in kinds)
    if hint is float:  # finite, which a whole number beyond all floats is not
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    return bool(isinstance(value, hint)) and (hint is bool or not isinstance(value, bool))


def _in_words(hint: Any) -> str:
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(kinds)
    if get_origin(hint) is tuple:
        return f"({', '.join('...' if kind is Ellipsis else _in_words(kind) for kind in kinds)})"
    if kinds:
        return " or ".join(map(_in_words, kinds))
    words = {
        bool: "True or False",
        int: "a whole number",
        float: "a finite number",
        str: "a text",
        types.NoneType: "None",
    }
    return words[hint]


def to_json(config: Any) -> dict[str, Any]:
    """Convert to nested plain types, which are equal after a round trip through JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(content: Any, kind: type[Section]) -> Section:
    """Convert from the form of :func:`to_json` to a dataclass."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_json(value, hints[name]) for name, value in content.items()})
    return tuple(content) if isinstance(content, list) else content  # type: ignore[return-value]  # kind is its type


def run_name(config: Any) -> str:
    """Return the data set and a short hash of the whole config, so that other options never resume the wrong run.

    Options that were removed since count at their defaults, and those that were added only at other values, so that a
    command still finds the run that it began.
    """
    text = json.dumps(as_earlier(to_json(config)), sort_keys=True)
    return f"{config.data.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
