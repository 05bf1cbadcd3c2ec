"""A process that times the programs of a library, on requests that it reads from standard input.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass
class Program:
    """A program to be timed.

    stages: functions without arguments, called in this order and timed separately.
    check: returns the arrays by which programs are compared.
    info: JSON that answers the request to make the program.
    prepare: called before the stages, not timed.
    """

    stages: Sequence[Callable[[], Any]]
    check: Callable[[], dict[str, np.ndarray]] = dict
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    prepare: Callable[[], Any] = lambda: None


def drawn(shape: Sequence[int], seed: int = 0, mean: float = 0.3) -> np.ndarray:
    """Normal numbers around ``mean`` with deviation 1, float32; the same for every library."""
    return mean + np.random.default_rng(seed).standard_normal(shape, np.float32)


def megabytes() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measured(program: Program, calls: int) -> dict[str, list[float]]:
    """``{wall: [stages], cpu: [stages]}``, seconds per call; CPU time is that of all threads."""
    wall, cpu = np.zeros((2, len(program.stages)))
    for _ in range(calls):
        program.prepare()
        for i, stage in enumerate(program.stages):
            began = time.perf_counter(), time.process_time()
            stage()
            wall[i] += time.perf_counter() - began[0]
            cpu[i] += time.process_time() - began[1]
    return {"wall": list(wall / calls), "cpu": list(cpu / calls)}


def answers(module: Any, requests: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answer each request, for the program that was made last."""
    started = megabytes()
    program: Any = None
    for request in requests:
        (kind, value), *rest = request.items()
        if kind == "make":
            program = None  # frees the memory of the previous program
            began = time.perf_counter()
            program = module.PROGRAMS[value](**dict(rest)["arguments"])
            first = measured(program, 1)
            yield program.info | {"ready_seconds": time.perf_counter() - began, "first": first}
        elif kind == "time":
            yield measured(program, value)
        elif kind == "check":
            np.savez(value, **program.check())
            yield {}
        else:
            yield {"peak_MB": megabytes(), "start_MB": started}


def main() -> None:
    name, core = sys.argv[1:]
    # Before the import of the library, which sizes its thread pools by the affinity.
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
