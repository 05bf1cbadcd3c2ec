"""Validation of the values of a config: their types, their ranges (schema.py) and the rules between them (rules.py)."""

import dataclasses
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from csbp_jax.config.forms import flatten
from csbp_jax.config.rules import RULES, Rule, refusal
from csbp_jax.config.schema import Config
from csbp_jax.ranges import Range


def hints(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field of a config's class, named as on the command line, and its annotation."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from hints(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


HINTS = dict(hints(Config))
"""Annotation of each field."""


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


def check(config: Config) -> Config:
    """Check all values and return the config itself.

    Raises:
      ConfigError: a value is not allowed; the message names the first such field and the allowed values.
    """
    flat = flatten(config)
    for name, hint in HINTS.items():
        check_value(name, flat[name], hint)
    check_rules(RULES, flat)
    return config


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
