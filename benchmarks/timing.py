"""Timing in rounds: every program runs once per round, in a new order, so that all see the same machine."""

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Report = Callable[[str], None]
"""Prints a line on progress."""


def timed(
    programs: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """``{name: seconds [rounds]}`` of functions without arguments, each called once before the first round."""
    for program in programs.values():
        program()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            began = clock()
            programs[name]()
            seconds[name].append(clock() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def pin_to_core() -> None:
    """Pin this process to its first core, and make the orders of rounds reproducible."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random.seed(0)


def spread(values: np.ndarray | float) -> dict[str, float]:
    """``{median, min, max}``."""
    return {"median": float(np.median(values)), "min": float(np.min(values)), "max": float(np.max(values))}


def cell(numbers: Mapping[str, float], digits: int = 2, unit: float = 1.0) -> str:
    """``median (minimum-maximum)``."""
    median, low, high = (f"{unit * numbers[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low}-{high})"
