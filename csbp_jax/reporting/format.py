"""Values as text: fields of a config, and intervals in percent."""

from collections.abc import Mapping
from typing import Any

from csbp_jax.reporting.statistics import Interval


def value_text(value: Any, separator: str = " / ") -> str:
    """Format the value of a config field; the items of a tuple or list are joined by ``separator``."""
    return separator.join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def option_text(value: Any) -> str:
    """Format the value of a config field as it is typed on the command line."""
    return value_text(value, " ")


def fields_text(fields: Mapping[str, Any]) -> str:
    """Format fields of a config as ``chaos.z0 3.0, optimizer.lr 0.05``."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in fields.items())


def percent(interval: Interval) -> str:
    """Format an interval in percent, as ``98.12 [97.50, 98.74]``."""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:.2f}"
    return f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
