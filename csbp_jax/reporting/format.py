"""Values as text: fields of a config, intervals, and energies."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def value_text(value: Any, separator: str = " / ") -> str:
    """Format the value of a config field; the items of a tuple or list are joined by ``separator``."""
    return separator.join(map(str, value)) if isinstance(value, tuple | list) else str(value) or "''"


def short_texts(values: Iterable[Any]) -> list[str]:
    """Format a field of several settings: numbers with four significant digits, or all where these would be equal.

    >>> short_texts([0.008127437971495266, 3.0, (1.0, 0.25)]), short_texts([0.99791, 0.99792])
    (['0.008127', '3.0', '1.0 0.25'], ['0.99791', '0.99792'])
    """
    whole = [value_text(value, " ") for value in values]
    short = [value_text(_rounded(value), " ") for value in values]
    return short if len(set(short)) == len(set(whole)) else whole


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def fields_text(fields: Mapping[str, Any]) -> str:
    """Format fields of a config as ``chaos.z0 3.0, optimizer.lr 0.05``."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in fields.items())


def interval_text(interval: Iterable[float | None], share: bool = True) -> str:
    """Format a mean and the ends of its interval, of a share in percent, without those that are None or NaN.

    >>> interval_text([0.9812, 0.975, 0.9874]), interval_text([3.0, None, None], share=False)
    ('98.12 [97.50, 98.74]', '3')
    """
    known = [number for number in interval if number is not None and not math.isnan(number)]
    mean, *ends = [f"{100 * number:.2f}" if share else f"{number:.4g}" for number in known] or [""]
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def energy(nanojoules: float) -> str:
    """Format an energy with a unit that fits it.

    >>> energy(1868.2), energy(28270), energy(0.5)
    ('1.868 µJ', '28.27 µJ', '0.5 nJ')
    """
    size, unit = next(((size, unit) for size, unit in ((1e6, "mJ"), (1e3, "µJ")) if nanojoules >= size), (1.0, "nJ"))
    return f"{nanojoules / size:.4g} {unit}"
