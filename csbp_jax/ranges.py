"""Ranges of numbers, for the values of a config and for the arguments of library functions."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Range(NamedTuple):
    """A range in words, and its predicate, which also holds elementwise for NumPy arrays."""

    words: str
    contains: Callable[[Any], Any]

    def or_none(self) -> "Range":
        """Return the range with None as another value."""
        return Range(f"{self.words}, or None", lambda v: v is None or self.contains(v))


WHOLE_FROM_0 = Range("0 or a positive whole number", lambda v: (v >= 0) & (v % 1 == 0))
WHOLE_FROM_1 = Range("a positive whole number", lambda v: (v >= 1) & (v % 1 == 0))
FROM_0 = Range("0 or more", lambda v: v >= 0)
ABOVE_0 = Range("above 0", lambda v: v > 0)
FROM_0_TO_1 = Range("from 0 to 1", lambda v: (v >= 0) & (v <= 1))
FROM_0_BELOW_1 = Range("at least 0 and below 1", lambda v: (v >= 0) & (v < 1))
BETWEEN_0_AND_1 = Range("between 0 and 1", lambda v: (v > 0) & (v < 1))
BETWEEN_MINUS_1_AND_1 = Range("between -1 and 1", lambda v: (v > -1) & (v < 1))


def integers(least: int, most: int) -> Range:
    """Return the range of whole numbers from ``least`` to ``most``."""
    return Range(f"from {least} to {most:,}", lambda v: (v >= least) & (v <= most))


def require(function: str, allowed: Range, **values: Any) -> None:
    """Check concrete arguments of a library function: numbers of Python, and numbers and arrays of NumPy.

    JAX's arrays are not checked: a traced one has no value yet, and to look at a concrete one waits for the device.

    Raises:
      ValueError: a number is outside the range, or NaN; names the function and the argument.
      TypeError: a value is text, which NumPy would read as a number.
    """
    for name, value in values.items():
        if isinstance(value, str):
            raise TypeError(f"{function}: {name} is {value!r}, a text, but must be a number, {allowed.words}")
        # NumPy is not imported for this: the command line checks a config without it.
        is_concrete = isinstance(value, int | float) or hasattr(value, "__array_interface__")
        if is_concrete and not _all(allowed.contains(value)):
            text = " ".join(str(value).split())  # an array may take several lines
            raise ValueError(f"{function}: {name} is {text}, but must be {allowed.words}")


def _all(flags: Any) -> bool:
    return bool(flags.all() if hasattr(flags, "all") else flags)
