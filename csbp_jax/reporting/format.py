"""Values as text: fields of a config, and intervals in percent."""

import math
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


def as_number(value: Any) -> float | None:
    """Return a number, or the only number of a tuple or list; None for anything else."""
    value = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def percent(interval: Interval) -> str:
    """Format an interval in percent, as ``98.12 [97.50, 98.74]``."""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:.2f}"
    return f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def points(interval: Interval) -> str:
    """Format a difference in percentage points, as ``+0.53 [-0.12, +1.18]``.

    Pairs that all differ by the same leave an interval without width, as if no other pair could differ: it is
    ``+0.53 (all equal)``.
    """
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:+.2f}"
    if math.isclose(interval.low, interval.high, abs_tol=1e-9):
        return f"{100 * interval.mean:+.2f} (all equal)"
    return f"{100 * interval.mean:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
