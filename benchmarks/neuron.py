"""Timing of the neuron, forward and backward, beside the minimum traffic, a memory copy, and other libraries."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.process import Failed, Worker, in_rounds
from benchmarks.timing import Report, spread

DECAY = 0.5
SHAPES = {"T=4": (16, 4, 62500), "T=16": (16, 16, 62500), "T=100": (16, 100, 6250)}
QUICK = {"T=4": (16, 4, 6250), "T=16": (16, 16, 6250), "T=100": (16, 100, 625)}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "lif": ("neuron", {"decay": DECAY}),
    "lif, learned decay and threshold": ("neuron", {"decay": DECAY, "learned": True}),
    "lif, spikes alone": ("neuron", {"decay": DECAY, "alone": True}),
    "lif, arguments kept": ("neuron", {"decay": DECAY, "donated": False}),
    "minimum traffic": ("minimum_traffic", {}),
    "one sequence of zeros": ("zeros", {}),
    "memory copy": ("memory_copy", {"copies": 3}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "spyx": ("spyx", {}),
    "spyx, arguments donated": ("spyx", {"donated": True}),
    **{name: (name, {}) for name in ("spikingjelly", "snntorch", "norse")},
    **{f"{name}, compiled": (name, {"mode": "default"}) for name in ("spikingjelly", "snntorch", "norse")},
}
"""Programs of other libraries: ``{program: (library, arguments)}``; torch's run eagerly unless they are compiled."""
STATES = {"lif": 1, "cuba": 2, "alif": 2, "adlif": 2, "clif": 2, "ilif": 1, "psn": 1, "masked_psn": 1, "sliding_psn": 1}
"""Neurons of ``model.neuron.name``, and their arrays of states per time step; of a PSN, its membrane alone."""
SMALL = (4, 20, 500)  # for the comparison of values, which takes longer than timing on a large sequence


def measure(
    pythons: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], rounds: int, report: Report
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """``({label: {program: numbers}}, {program: versions}, {program: agreement})``; CPU time of one core."""
    with contextlib.ExitStack() as stack:
        workers = _started(stack, pythons, report)
        versions = {name: worker.versions for name, worker in workers.items() if name == "lif" or name in pythons}
        agreement = _agreement(workers)
        rows = {}
        for label, shape in shapes.items():
            report(f"neuron, {label}")
            for name, worker in workers.items():
                _make(worker, name, shape)
            rows[label] = _row(in_rounds(workers, rounds), int(np.prod(shape)))
    return rows, versions, agreement


def other_neurons(shapes: Mapping[str, tuple[int, ...]], rounds: int, report: Report) -> dict[str, Any]:
    """``{label: {neuron: numbers}}``; CPU time of one core, and its ratio to that of lif, per state."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(sys.executable, "benchmarks.ours")) for name in STATES}
        rows = {}
        for label, shape in shapes.items():
            report(f"other neurons, {label}")
            for name, worker in workers.items():
                worker.ask(make="named_neuron", arguments={"shape": list(shape), "name": name, "decay": DECAY})
            seconds = {name: clocks["cpu"] for name, clocks in in_rounds(workers, rounds).items()}
            total = {name: s.sum(1) for name, s in seconds.items()}
            rows[label] = {
                name: {
                    "ns": spread(1e9 * total[name] / int(np.prod(shape))),
                    "stages_ns": [spread(1e9 * stage / int(np.prod(shape))) for stage in seconds[name].T],
                    "over_lif": spread(total[name] / total["lif"]),
                    "states": count,
                    "over_lif_per_state": spread(total[name] / total["lif"] / count),
                }
                for name, count in STATES.items()
            }
    return rows


def chaos_term(rounds: int, elements: int = 2_000_000) -> dict[str, Any]:
    """Time value and gradient of the term, beside reading and writing its tensor once."""
    with Worker(sys.executable, "benchmarks.ours") as term, Worker(sys.executable, "benchmarks.ours") as copy:
        term.ask(make="chaos_term", arguments={"shape": [4, elements // 4]})
        copy.ask(make="memory_copy", arguments={"shape": [4, elements // 4], "copies": 1})
        seconds = {n: clocks["cpu"].sum(1) for n, clocks in in_rounds({"term": term, "copy": copy}, rounds).items()}
    return {
        "ns_per_element": {name: spread(1e9 * s / elements) for name, s in seconds.items()},
        "term_over_copy": spread(seconds["term"] / seconds["copy"]),
    }


def _started(stack: contextlib.ExitStack, pythons: Mapping[str, str], report: Report) -> dict[str, Worker]:
    workers = {name: stack.enter_context(Worker(sys.executable, "benchmarks.ours")) for name in OURS}
    for name, peer in {name: peer for name, (peer, _) in OTHERS.items() if peer in pythons}.items():
        try:
            worker = stack.enter_context(Worker(pythons[peer], peers.MODULES[peer]))
            _make(worker, name, SMALL)
        except Failed as problem:
            report(f"{name} is left out: {problem}")
        else:
            workers[name] = worker
    return workers


def _make(worker: Worker, name: str, shape: Sequence[int]) -> None:
    program, arguments = OURS[name] if name in OURS else ("neuron", {"decay": DECAY, **OTHERS[name][1]})
    worker.ask(make=program, arguments={"shape": list(shape), **arguments})


def _agreement(workers: Mapping[str, Worker]) -> dict[str, Any]:
    """Share of spikes that differ from lif's, and the largest difference of an input gradient over the largest."""
    _make(workers["lif"], "lif", SMALL)
    ours, agreement = workers["lif"].check(), dict[str, dict[str, Any]]()
    for name in workers:
        if name in OTHERS:
            other = workers[name].check()
            agreement[name] = {
                "spikes_differ": float((other["spikes"] != ours["spikes"]).mean()),
                "gradient_differs": float(
                    np.abs(other["gradient"] - ours["gradient"]).max() / np.abs(ours["gradient"]).max()
                ),
            }
            agreement[name]["same"] = _verdict(agreement[name])
    return agreement


def faster(row: Mapping[str, Any], peer: str) -> str:
    """The faster program of a library that need not donate, eagerly or compiled, in a row of ``measure``."""
    names = [name for name in (peer, f"{peer}, compiled") if name in row]
    return min(names, key=lambda name: row[name]["over_lif"]["median"])


def how(rows: Mapping[str, Any]) -> str:
    """How torch's libraries ran, in rows of ``measure``."""
    compiled = any(name.endswith(", compiled") for row in rows.values() for name in row)
    return (
        "run eagerly and under `torch.compile`, and the faster counts"
        if compiled
        else "run eagerly (under `torch.compile`: not yet measured)"
    )


def _verdict(numbers: Mapping[str, float]) -> str:
    if numbers["spikes_differ"] > 1e-3:
        return "time only"
    return "spikes" if numbers["gradient_differs"] > 1e-4 else "spikes and gradient"


def _row(clocks: Mapping[str, Mapping[str, np.ndarray]], elements: int) -> dict[str, Any]:
    seconds = {name: clock["cpu"] for name, clock in clocks.items()}
    total = {name: s.sum(1) for name, s in seconds.items()}
    return {
        name: {
            "ns": spread(1e9 * total[name] / elements),
            "wall_ns": spread(1e9 * clocks[name]["wall"].sum(1) / elements),
            "stages_ns": [spread(1e9 * stage / elements) for stage in seconds[name].T],
            "over_lif": spread(total[name] / total["lif"]),
            "over_minimum": spread(total[name] / total["minimum traffic"]),
        }
        for name in clocks
    }
