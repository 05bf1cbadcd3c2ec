"""A process that times the programs of one library, as told line by line on its standard input.

    python -m benchmarks.worker MODULE CORE

MODULE has ``PROGRAMS``, ``{name: function(**arguments) -> Program}``, and ``VERSIONS``. Requests and answers are lines
of JSON: ``{"make": name, "arguments": {...}}``, ``{"time": calls}``, ``{"check": file}``, ``{"memory": 0}``. What the
library prints goes to standard error. Needs numpy only, since it runs in the environments of other libraries.
"""

import dataclasses
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass
class Program:
    """stages: functions without arguments, called in this order and timed apart.
    check: gives the arrays by which programs are compared.
    about: what there is to say before it is timed, as JSON.
    """

    stages: Sequence[Callable[[], Any]]
    check: Callable[[], dict[str, np.ndarray]] = dict
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def drawn(shape, seed=0, mean=0.3):
    """Standard normal numbers about ``mean``, float32; the same for every library."""
    return mean + np.random.default_rng(seed).standard_normal(shape, np.float32)


def megabytes():
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measured(program, calls):
    """``{wall: [stages], cpu: [stages]}``, seconds a call; CPU time is of all threads."""
    wall, cpu = np.zeros((2, len(program.stages)))
    for _ in range(calls):
        for i, stage in enumerate(program.stages):
            began = time.perf_counter(), time.process_time()
            stage()
            wall[i] += time.perf_counter() - began[0]
            cpu[i] += time.process_time() - began[1]
    return {"wall": list(wall / calls), "cpu": list(cpu / calls)}


def answers(module, requests):
    """The answer to each request; the program is the one made last."""
    program, started = None, megabytes()
    for request in requests:
        (kind, value), *rest = request.items()
        if kind == "make":
            program = None  # two would not fit into memory where one does
            began = time.perf_counter()
            program = module.PROGRAMS[value](**dict(rest)["arguments"])
            first = measured(program, 1)
            yield program.about | {"ready_seconds": time.perf_counter() - began, "first": first}
        elif kind == "time":
            yield measured(program, value)
        elif kind == "check":
            np.savez(value, **program.check())
            yield {}
        else:
            yield {"peak_MB": megabytes(), "start_MB": started}


def main():
    name, core = sys.argv[1:]
    # Before the library is imported, which sizes its pools of threads by it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    answer_to = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module = importlib.import_module(name)
    print(json.dumps({"versions": module.VERSIONS}), file=answer_to)
    for answer in answers(module, map(json.loads, sys.stdin)):
        print(json.dumps(answer), file=answer_to)


if __name__ == "__main__":
    main()
