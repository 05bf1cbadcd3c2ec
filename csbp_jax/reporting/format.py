"""Values as text: fields of a config, and intervals in percent."""

from collections.abc import Mapping
from typing import Any

from csbp_jax.reporting.statistics import Interval


def value_text(value: Any, separator: str = " / ") -> str:
    """Format the value of a config field; the items of a tuple or list are joined by ``separator``."""
    return separator.join(map(str, value)) if isinstance(value, tuple | list) else str(value) or "''"


def fields_text(fields: Mapping[str, Any]) -> str:
    """Format fields of a config as ``chaos.z0 3.0, optimizer.lr 0.05``."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in fields.items())


def percent(interval: Interval) -> str:
    """Format an interval in percent, as ``98.12 [97.50, 98.74]``."""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.mean:.2f}"
    return f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def energy(nanojoules: float) -> str:
    """Format an energy with a unit that fits it.

    >>> energy(1868.2), energy(28270), energy(0.5)
    ('1.868 µJ', '28.27 µJ', '0.5 nJ')
    """
    size, unit = next(((size, unit) for size, unit in ((1e6, "mJ"), (1e3, "µJ")) if nanojoules >= size), (1.0, "nJ"))
    return f"{nanojoules / size:.4g} {unit}"
