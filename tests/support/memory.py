"""Memory that XLA plans for a program."""

from typing import Any


def memory_of(jitted, *arguments) -> Any:
    """Return XLA's memory analysis of a jitted function, compiled for these arguments."""
    analysis = jitted.lower(*arguments).compile().memory_analysis()
    assert analysis is not None
    return analysis
