"""Programs timed in rounds: in each, every program runs once, in a new order, so that all see the same machine."""

import random
import time

import numpy as np


def timed(programs, rounds):
    """``{name: seconds [rounds]}`` of functions without arguments; each is called once before."""
    for program in programs.values():
        program()
    seconds = {name: [] for name in programs}
    for _ in range(rounds):
        for name in random.sample(list(programs), len(programs)):
            began = time.perf_counter()
            programs[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values):
    return {"median": float(np.median(values)), "min": float(np.min(values)), "max": float(np.max(values))}


def cell(numbers, digits=2, unit=1.0):
    """``median (minimum-maximum)``."""
    median, low, high = (f"{unit * numbers[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({low}-{high})"
