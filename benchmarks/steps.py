"""Timing of training steps of networks of the literature, beside plain PyTorch with SpikingJelly's neurons."""

import contextlib
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.process import ARENAS, TUNABLES, Failed, Worker, in_rounds
from benchmarks.timing import Report, spread
from csbp_jax.config import Chaos, Config, Model, Neuron, Optimizer, to_json

TEBN, TET = Neuron(decay=0.25), Neuron(decay=0.5)
IF = Neuron(decay=1.0, surrogate="arctan", surrogate_param=2.0, detach_reset=True)
EXACT = "ours at highest precision"
OF_INFO = ("compile_seconds", "temporary_MB", "form", "graph_breaks")
OPTIMIZER = Optimizer(name="sgd", lr=0.01, momentum=0.9, schedule="constant")


def _config(batch: int, model: Model, taps: tuple[str, ...]) -> Config:
    chaos = Chaos(z0=(15.0,) * len(taps), beta=0.98, taps=taps)
    return Config(batch_size=batch, model=model, chaos=chaos, optimizer=OPTIMIZER)


# At full width, with small batches, and SEW-ResNet-18 on small images, so that a step takes seconds on one core.
NETS = {
    "CNN7": _config(
        2, Model("cnn7", (48, 48, 2), time_steps=10, dropout=0.0, neuron=TEBN), ("conv1.membrane", "fc1.dense")
    ),
    "VGGSNN": _config(2, Model("vggsnn", (48, 48, 2), time_steps=4, neuron=TET), ("conv1.membrane",)),
    "ResNet-19": _config(2, Model("resnet19_tet", (32, 32, 3), time_steps=4, neuron=TET), ("stem.membrane",)),
    "SEW-ResNet-18": _config(
        4, Model("sew_resnet18", (64, 64, 3), classes=1000, time_steps=4, neuron=IF), ("stem_spike.membrane",)
    ),
}
TINY = Config(
    batch_size=1,
    model=Model("dense", (8,), classes=8, time_steps=1, features=(8,) * 11),
    optimizer=Optimizer(name="adam", lr=0.001),
)


def narrow(config: Config, width: float) -> Config:
    """The config with a multiplier of its network's channels."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, width=width))


def plain(config: Config) -> Config:
    """The config without the chaos term."""
    return dataclasses.replace(config, chaos=Chaos())


def measure(config: Config, python: str | None, rounds: int, extras: bool = True) -> dict[str, Any]:
    """Time a step of ours and of SpikingJelly, if its Python is given.

    With extras, also of ours with the chaos term, and of ours at highest precision. SpikingJelly's is timed in each of
    ``peers.MODES`` and ``peers.LAYOUTS``, and has the numbers of the fastest, and beside it those of the fastest that
    runs eagerly. A form that does not compile is left out, and ``failed`` has its error.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        workers: dict[str, Worker] = {}
        info: dict[str, Any] = {}
        failed: dict[str, str] = {}

        def start(name, python, module, **arguments):
            cache = f"{folder}/{name.replace(', ', '-').replace(' ', '-')}"  # torch calls g++ by text
            worker = stack.enter_context(Worker(python, module, cache=cache))
            info[name] = worker.ask(make="step", arguments=arguments)
            workers[name] = worker

        file = f"{folder}/batch.npz"
        start("ours", sys.executable, "benchmarks.ours", config=to_json(plain(config)), batch_file=file)
        if extras:
            start("ours with chaos", sys.executable, "benchmarks.ours", config=to_json(config))
            start(EXACT, sys.executable, "benchmarks.ours", config=to_json(plain(config)), precision="highest")
        if python:
            net = {"model": to_json(config)["model"], "lr": OPTIMIZER.lr, "momentum": OPTIMIZER.momentum}
            for mode, layout in itertools.product(peers.MODES, peers.LAYOUTS):
                form, options = f"{mode}, {layout}", {"batch_file": file, "layout": layout, "mode": peers.MODES[mode]}
                try:
                    start(form, python, peers.MODULES["spikingjelly"], **net, **options)
                except Failed as problem:
                    failed[form] = str(problem)
        clocks = in_rounds(workers, rounds)
        chosen = {name: name for name in workers if name.startswith("ours")}
        if python:
            forms = [name for name in workers if name not in chosen]
            chosen["spikingjelly"] = peers.fastest(clocks, forms)
            chosen["spikingjelly, eagerly"] = peers.fastest(clocks, [f for f in forms if f.startswith("eagerly")])
        memory = {name: workers[key].ask(memory=0) for name, key in chosen.items()}
        losses = {name: workers[key].check()["losses"] for name, key in chosen.items()}
    clocks = {name: clocks[key] for name, key in chosen.items()}
    info = {name: info[key] | ({} if key == name else {"form": key}) for name, key in chosen.items()}
    return _row(config, clocks, info, memory, losses) | ({"failed": failed} if failed else {})


def _row(
    config: Config,
    clocks: Mapping[str, Mapping[str, np.ndarray]],
    info: Mapping[str, Any],
    memory: Mapping[str, Any],
    losses: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Numbers of each program; ``same`` says how equal ours, at highest precision, and SpikingJelly's are."""
    seconds = {name: clock["cpu"].sum(1) for name, clock in clocks.items()}
    row = {
        name: {
            "ms": spread(1e3 * seconds[name]),
            "wall_ms": spread(1e3 * clocks[name]["wall"].sum(1)),
            "over_ours": spread(seconds[name] / seconds["ours"]),
            "parameters": info[name]["parameters"],
            # Until the first step is done; for ours, also the compilation alone, and what the step allocates.
            "ready_seconds": info[name]["ready_seconds"],
            **{key: info[name][key] for key in OF_INFO if key in info[name]},
            **memory[name],
            "losses": [float(loss) for loss in losses[name][:3]],
        }
        for name in clocks
    }
    shape = {"batch": config.batch_size, "T": config.model.time_steps, "input": list(config.model.input_shape)}
    result: dict[str, Any] = {"about": shape | {"width": config.model.width or 1.0}, "programs": row}
    if "ours with chaos" in clocks:
        result["chaos_share"] = spread(1 - seconds["ours"] / seconds["ours with chaos"])
    if {EXACT, "spikingjelly"} <= set(clocks):
        a, b = row[EXACT], row["spikingjelly"]
        differences = np.abs(np.subtract(a["losses"], b["losses"])) / np.abs(a["losses"])
        result["same"] = {"parameters": a["parameters"] == b["parameters"], "losses_differ": differences.tolist()}
    return result


def growth(rounds: int, steps: Sequence[int], batches: Sequence[int]) -> dict[str, Any]:
    """Time and memory of a quarter-width CNN7 against T and batch, each point in fresh processes."""
    base = narrow(NETS["CNN7"], 0.25)
    points: dict[str, dict[str, Any]] = {"T": {}, "batch": {}}
    for axis, values in (("T", steps), ("batch", batches)):
        for value in values:
            model = dataclasses.replace(base.model, time_steps=value if axis == "T" else 4)
            config = dataclasses.replace(base, model=model, batch_size=4 if axis == "T" else value)
            points[axis][str(value)] = measure(config, None, rounds, extras=False)
    return points


def long(rounds: int, T: int = 1000, length: int = 50) -> dict[str, Any]:
    """Time a dense net over T time steps, at once and in chunks, and over 64 time steps."""
    cases = {"64 steps": (64, None), "whole": (T, None), "in chunks": (T, length)}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        info: dict[str, Any] = {}
        for name, (steps, chunk) in cases.items():
            workers[name] = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
            info[name] = workers[name].ask(make="long", arguments={"T": steps, "length": chunk})
        seconds = {name: clocks["cpu"].sum(1) for name, clocks in in_rounds(workers, rounds).items()}
    return {
        "programs": {
            name: {"ms": spread(1e3 * s), "temporary_MB": info[name]["temporary_MB"]} for name, s in seconds.items()
        },
        "chunks_over_whole": spread(seconds["in chunks"] / seconds["whole"]),
        "T": T,
        "length": length,
    }


def dispatch(rounds: int, steps: int = 300) -> dict[str, Any]:
    """Wall microseconds per step of a 12-layer net of 8 units with Adam on a single example.

    Also with an arena of the allocator for each thread, as glibc's default is, instead of one for all.
    """
    allocators = {"": TUNABLES, "arenas_": ARENAS}
    programs = {"": "dispatch", "counting_": "counting"}
    with contextlib.ExitStack() as stack:
        workers, info = {}, {}
        for (arenas, tunables), (name, program) in itertools.product(allocators.items(), programs.items()):
            worker = stack.enter_context(Worker(sys.executable, "benchmarks.ours", tunables))
            info = worker.ask(make=program, arguments={"config": to_json(TINY), "steps": steps})
            workers[f"{arenas}{name}us"] = worker
        clocks = in_rounds(workers, rounds)
    microseconds = {name: spread(1e6 / steps * clock["wall"].T[0]) for name, clock in clocks.items()}
    return {"leaves": info["leaves"]} | microseconds


def all_nets(python: str | None, rounds: int, report: Report, width: float | None = None) -> dict[str, Any]:
    """``{network: row}``; a network that fails is reported and left out."""
    rows = {}
    for name, config in NETS.items():
        report(f"training step, {name}")
        try:
            rows[name] = measure(narrow(config, width) if width else config, python, rounds)
        except Failed as problem:
            report(f"{name} is left out: {problem}")
    return rows
