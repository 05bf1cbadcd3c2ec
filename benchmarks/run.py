"""Speed of this package on this machine, beside other libraries and beside what memory alone would cost.

    make bench        (python -m benchmarks.run [--quick] [--out docs/results/bench] [--peers .bench] [--only PART ...])

The other libraries are installed into environments of their own, once, in the folder ``--peers`` (or BENCH_PEERS). Each
library runs in a process of its own, pinned to one core, with one thread and one allocator setting; in each round every
program runs once, in a new order. Seconds are CPU time of the process unless wall is said; ratios are medians over
rounds of the ratio within a round, with minimum and maximum. Values are compared before times.

``--quick`` takes under three minutes, with small arrays and nets, and writes to ``.bench/quick``.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import shlex
import sys
import tempfile
import time

import numpy as np

from benchmarks import convolutions, neuron, page, peers, start, steps, sweeps
from benchmarks.process import TUNABLES
from benchmarks.timing import spread
from csbp_jax.runtime.files import write_json


def tell(message):
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def neurons(pythons, quick):
    shapes, rounds = (neuron.QUICK, 5) if quick else (neuron.SHAPES, 21)
    rows, versions, agreement = neuron.measure(pythons, shapes, rounds, tell)
    term = neuron.chaos_term(rounds)
    return {"neuron": rows, "versions": versions, "agreement": agreement, "chaos_term": term}


def training_steps(pythons, quick):
    python = pythons.get("spikingjelly")
    nets = {"CNN7": steps.measure(steps.narrow(steps.NETS["CNN7"], 0.125), python, 3)} if quick else None
    return {"steps": nets or steps.all_nets(python, 9, tell), "dispatch": steps.dispatch(5 if quick else 21)}


def convolutions_alone(pythons, quick):
    tell("convolutions")
    width, rounds = (0.125, 3) if quick else (None, 5)
    return {"convolutions": convolutions.measure(pythons.get("spikingjelly"), rounds, width)}


def growth(pythons, quick):
    tell("growth with T and batch")
    values = (1, 4) if quick else (1, 4, 16)
    return {"growth": steps.growth(pythons.get("spikingjelly"), 3 if quick else 7, values, values)}


def long(_, quick):
    tell("long sequences")
    return {"long": steps.long(3 if quick else 9)}


def members(_, quick):
    nets = {name: sweeps.NETS[name] for name in ("digits", "dense")} if quick else sweeps.NETS
    return {"members": sweeps.members(5 if quick else 21, tell, nets)}


def processes(_, quick):
    return {"processes": sweeps.processes(*((4, 2) if quick else (64, 8)), tell)}


def waiting(_, quick):
    return {"waiting": sweeps.waiting(1 if quick else 3, 2 if quick else 3, tell)}


def starts(_, quick):
    """Wall seconds from the command to the first step's metrics, without and with a compilation cache."""
    found = {"cold": [], "warm": []}
    for n in range(1 if quick else 5):
        tell(f"start {n + 1}")
        with tempfile.TemporaryDirectory() as place:
            for name in ("cold", "warm"):
                found[name].append(start.seconds(f"{place}/{name}", XDG_CACHE_HOME=f"{place}/cache"))
    return {"starts": {name: spread(np.array(values)) for name, values in found.items()}}


PARTS = {
    "neuron": neurons,
    "steps": training_steps,
    "convolutions": convolutions_alone,
    "growth": growth,
    "long": long,
    "members": members,
    "processes": processes,
    "waiting": waiting,
    "starts": starts,
}
WITH_PEERS = {"neuron", "steps", "convolutions", "growth"}
IN_QUICK = ("neuron", "steps", "members")


def machine():
    """Processor, cores and system."""
    name = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, default=pathlib.Path(os.environ.get("BENCH_PEERS", ".bench")))
    parser.add_argument("--only", nargs="+", choices=PARTS)
    if arguments is None and sys.argv[1:] == ["--environment"]:
        arguments = shlex.split(os.environ.get("CSBP_ARGS", ""))  # as make has them
    options = parser.parse_args(arguments)
    out = options.out or pathlib.Path(".bench/quick" if options.quick else "docs/results/bench")
    random.seed(0)
    file = out / "bench.json"
    # Parts that are not measured now stay as they were.
    content = json.loads(file.read_text()) if options.only and file.exists() else {}
    about = {"machine": machine(), "allocator": TUNABLES, "quick": options.quick, "load": {}, "seconds": {}}
    content = about | content
    parts = options.only or (IN_QUICK if options.quick else PARTS)
    pythons = peers.pythons(options.peers, tell) if WITH_PEERS & set(parts) else {}
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        began, load = time.perf_counter(), os.getloadavg()[0]
        content |= PARTS[part](pythons, options.quick)
        content["load"][part] = round(load, 2)
        content["seconds"][part] = round(time.perf_counter() - began)
        write_json(file, content)
    page.write(out, content)
    print((out / "README.md").read_text())


if __name__ == "__main__":
    main()
