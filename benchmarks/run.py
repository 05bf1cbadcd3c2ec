"""Measure the speed of this package on this machine, beside other libraries and beside memory traffic alone.

    make bench        (python -m benchmarks.run [--quick] [--out docs/checks/bench] [--peers .bench] [--only PART ...])

Each other library is installed once into an environment in the folder ``--peers`` (or BENCH_PEERS). Each library runs
in its own process, pinned to a core, with a single thread and the same allocator. All compute on the CPU, also where
there is a GPU or TPU. In each round every program runs once, in a new order. Seconds are CPU time of the process unless
they are called wall time; ratios are medians over rounds of the ratio within a round, with minimum and maximum. Values
are compared before times.

Each part is written to bench.json when it ends, and the pages after the last. A call that stops leaves the other parts
as they were: go on with ``--only`` and the parts that it did not reach.

``--quick`` takes under three minutes, with small arrays and nets, and writes to ``.bench/quick``.
"""

import argparse
import json
import os
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import convolutions, neuron, page, peers, steps, sweeps
from benchmarks.process import TUNABLES, machine
from benchmarks.timing import spread
from csbp_jax.runtime.files import write_json
from csbp_jax.training.metrics_log import read_rows

Pythons = Mapping[str, str]
"""The Python of each other library's environment."""

Content = dict[str, Any]


def report(message: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def neurons(pythons: Pythons, quick: bool) -> Content:
    """The neuron and the chaos term."""
    shapes, rounds = (neuron.QUICK, 5) if quick else (neuron.SHAPES, 21)
    rows, versions, agreement = neuron.measure(pythons, shapes, rounds, report)
    term = neuron.chaos_term(rounds)
    return {"neuron": rows, "versions": versions, "agreement": agreement, "chaos_term": term}


def other_neurons(_: Pythons, quick: bool) -> Content:
    """The neurons other than LIF."""
    shapes, rounds = (neuron.QUICK, 5) if quick else (neuron.SHAPES, 21)
    return {
        "other_neurons": {"machine": machine(), "rounds": rounds, "rows": neuron.other_neurons(shapes, rounds, report)}
    }


def training_steps(pythons: Pythons, quick: bool) -> Content:
    """Training steps of networks."""
    python = pythons.get("spikingjelly")
    nets = {"CNN7": steps.measure(steps.narrow(steps.NETS["CNN7"], 0.125), python, 3)} if quick else None
    return {"steps": nets or steps.all_nets(python, 9, report)}


def dispatch(_: Pythons, quick: bool) -> Content:
    """The dispatch of a step."""
    report("dispatch of a step")
    return {"dispatch": steps.dispatch(5 if quick else 21)}


def convolutions_alone(pythons: Pythons, quick: bool) -> Content:
    """Convolutions without the rest of the step."""
    report("convolutions")
    width, rounds = (0.125, 3) if quick else (None, 5)
    nets = {net: steps.narrow(config, width) if width else config for net, config in steps.NETS.items()}
    return {"convolutions": convolutions.measure(nets, pythons.get("spikingjelly"), rounds)}


def growth(_: Pythons, quick: bool) -> Content:
    """Time and memory against T and batch size."""
    report("growth with T and batch")
    values = (1, 4) if quick else (1, 4, 16)
    return {"growth": steps.growth(3 if quick else 7, values, values)}


def long(_: Pythons, quick: bool) -> Content:
    """Long sequences, at once and in chunks."""
    report("long sequences")
    return {"long": steps.long(3 if quick else 9)}


def members(_: Pythons, quick: bool) -> Content:
    """Members of a sweep against single runs."""
    nets = {name: sweeps.NETS[name] for name in ("digits", "dense")} if quick else sweeps.NETS
    return {"members": sweeps.members(5 if quick else 21, report, nets)}


def experiment(_: Pythons, quick: bool) -> Content:
    """Runs of an experiment against their bare steps."""
    return {"experiment": sweeps.experiment(3 if quick else 9, report)}


def processes(_: Pythons, quick: bool) -> Content:
    """A sweep against separate processes."""
    return {"processes": sweeps.processes(*((4, 2) if quick else (64, 8)), report)}


def waiting(_: Pythons, quick: bool) -> Content:
    """Share of the time spent waiting for data."""
    return {"waiting": sweeps.waiting(1 if quick else 3, 2 if quick else 3, report)}


def first_step(runs: str, cache: str) -> float:
    """Wall seconds of ``csbp_jax train digits`` on the CPU until it has logged its first step; it is then ended."""
    log = pathlib.Path(runs) / "r" / "metrics.jsonl"
    line = [sys.executable, "-m", "csbp_jax", "train", "digits", "--runs", runs, "--name", "r"]
    line += ["--epochs", "1", "--log-every", "1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": cache}
    began = time.perf_counter()
    with subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL) as process:
        while True:
            seconds = time.perf_counter() - began
            if any(row["kind"] == "train" for row in read_rows(log)):
                process.kill()
                return seconds
            assert process.poll() is None
            time.sleep(0.01)


def starts(_: Pythons, quick: bool) -> Content:
    """Wall seconds from the command to the first step's metrics, without and with a compilation cache."""
    measured: dict[str, list[float]] = {"cold": [], "warm": []}
    for n in range(1 if quick else 5):
        report(f"start {n + 1}")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("cold", "warm"):
                measured[name].append(first_step(f"{folder}/{name}", f"{folder}/cache"))
    return {"starts": {name: spread(np.array(values)) for name, values in measured.items()}}


PARTS: dict[str, Callable[[Pythons, bool], Content]] = {
    "neuron": neurons,
    "other_neurons": other_neurons,
    "steps": training_steps,
    "dispatch": dispatch,
    "convolutions": convolutions_alone,
    "growth": growth,
    "long": long,
    "members": members,
    "experiment": experiment,
    "processes": processes,
    "waiting": waiting,
    "starts": starts,
}
WITH_PEERS = {"neuron", "steps", "convolutions"}
IN_QUICK = ("neuron", "steps", "dispatch", "members")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--peers", type=pathlib.Path, default=pathlib.Path(os.environ.get("BENCH_PEERS", ".bench")))
    parser.add_argument("--only", nargs="+", choices=PARTS)
    if arguments is None and sys.argv[1:] == ["--environment"]:
        arguments = shlex.split(os.environ.get("CSBP_ARGS", ""))  # as make has them
    options = parser.parse_args(arguments)
    out = options.out or pathlib.Path(".bench/quick" if options.quick else "docs/checks/bench")
    random.seed(0)
    file = out / "bench.json"
    empty: Content = {"quick": options.quick, "load": {}, "seconds": {}}
    content: Content = json.loads(file.read_text()) if file.exists() else empty
    if content["quick"] != options.quick:
        parser.error(f"--out: {file} holds a {'quick' if content['quick'] else 'full'} run; give another folder")
    # Parts that this call does not measure, or not yet, stay in the file.
    origin: Content = {"machine": machine(), "allocator": TUNABLES}
    content = origin | content if options.only else content | origin
    parts = options.only or (IN_QUICK if options.quick else PARTS)
    pythons = peers.pythons(options.peers, report) if WITH_PEERS & set(parts) else {}
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        began, load = time.perf_counter(), os.getloadavg()[0]
        content |= PARTS[part](pythons, options.quick)
        content["load"][part] = round(load, 2)
        content["seconds"][part] = round(time.perf_counter() - began)
        content.setdefault("machines", {})[part] = machine()
        content.setdefault("allocators", {})[part] = TUNABLES
        write_json(file, content)
    page.write(out, content)
    print((out / "README.md").read_text())


if __name__ == "__main__":
    main()
