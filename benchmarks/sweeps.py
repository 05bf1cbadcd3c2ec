"""Timing of a sweep's members against single runs: of a step, and of runs in separate processes."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.process import ROOT, Worker, in_rounds
from benchmarks.timing import Report, spread
from csbp_jax import configs
from csbp_jax.config import Config, Optimizer, to_json

MEMBERS = 8
DIGITS = configs.load("digits")


def _dense(*features: int, batch: int = DIGITS.batch_size, T: int = DIGITS.model.time_steps) -> Config:
    model = dataclasses.replace(DIGITS.model, name="dense", features=features, time_steps=T)
    return dataclasses.replace(
        DIGITS, batch_size=batch, model=model, chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",))
    )


# Convolutional and dense, narrow and wide: which of loop and vmap is faster on CPU decides what sweeps do there.
NETS = {
    "digits": DIGITS,
    "digits, narrow": dataclasses.replace(DIGITS, model=dataclasses.replace(DIGITS.model, features=(4, 8))),
    "dense": _dense(128, 128),
    "dense, narrow": _dense(16),
    "dense, wide": _dense(1024, 1024),
    "dense, T=16, batch 128": _dense(128, 128, batch=128, T=16),
}
RUN = ("--batch-size", "25", "--epochs", "2")  # two epochs of 50 steps


def members(rounds: int, report: Report, nets: Mapping[str, Config] = NETS) -> dict[str, Any]:
    """``{net: {alone_ms, loop, vmap}}``: a member's step over that of a single run, CPU time of a core."""
    rows = {}
    for name, config in nets.items():
        report(f"sweep, {name}")
        with contextlib.ExitStack() as stack:
            workers = {}
            for how in ("alone", "loop", "vmap"):
                workers[how] = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
                arguments = {"config": to_json(config), "number": MEMBERS, "how": how}
                workers[how].ask(make="members", arguments=arguments)
            clocks = in_rounds(workers, rounds, calls=3)
        seconds = {how: clock["cpu"].sum(1) / MEMBERS for how, clock in clocks.items()}
        rows[name] = {
            "members": MEMBERS,
            "alone_ms": spread(1e3 * seconds["alone"]),
            **{how: spread(seconds[how] / seconds["alone"]) for how in ("loop", "vmap")},
        }
    return rows


def experiment(rounds: int, report: Report, number: int = 24, epochs: int = 30) -> dict[str, Any]:
    """CPU seconds of runs of a dense network on 200 digits by an experiment, and over those of its bare steps."""
    report("experiment")
    config = dataclasses.replace(
        _dense(128, 128, batch=20), epochs=epochs, optimizer=Optimizer("sgd", lr=0.1, momentum=0.9)
    )
    with contextlib.ExitStack() as stack:
        workers = {}
        for how in ("experiment", "loop"):
            workers[how] = stack.enter_context(Worker(sys.executable, "benchmarks.ours"))
            workers[how].ask(make="experiment", arguments={"config": to_json(config), "number": number, "how": how})
        clocks = in_rounds(workers, rounds, warm=1)
    seconds = {how: clock["cpu"].sum(1) for how, clock in clocks.items()}
    return {
        "runs": number,
        "seconds": spread(seconds["experiment"]),
        "over_loop": spread(seconds["experiment"] / seconds["loop"]),
    }


def processes(total: int, started: int, report: Report) -> dict[str, Any]:
    """Wall seconds of ``total`` members of the digits net in one sweep, and in processes, as many at once as cores.

    Only ``started`` processes run, and their time is scaled; all share a warm compilation cache.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:

        def command(*words):
            line = [sys.executable, "-m", "csbp_jax", *words, *RUN]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": f"{folder}/cache"}
            began = time.perf_counter()
            subprocess.run(line, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began

        def alone(seed):
            return command("train", "digits", "--runs", f"{folder}/runs", "--name", f"r{seed}", "--seed", str(seed))

        report(f"sweep, {started} processes of {total}")
        alone(total)  # fills the cache
        began = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            single = list(pool.map(alone, range(started)))
        in_processes = time.perf_counter() - began
        report(f"sweep, {total} members")
        words = ("sweep", "digits", "--sweeps", f"{folder}/sweeps", "--name", "s", "--grid", f"seed=0:{total}")
        in_sweep = command(*words)
    return {
        "members": total,
        "steps": 100,
        "cores": cores,
        "processes_run": started,
        "process_seconds": spread(np.array(single)),
        "processes_seconds": in_processes * total / started,
        "sweep_seconds": in_sweep,
        "times_less": in_processes * total / started / in_sweep,
    }


def waiting(rounds: int, steps: int, report: Report) -> dict[str, Any]:
    """Share of a run's wall time spent waiting for data: CIFAR in memory, cached frames of DVS-CIFAR10."""
    rows = {}
    for name in ("cifar10_small", "cifar10_dvs_small"):
        report(f"waiting for data, {name}")
        config = configs.load(name)
        with Worker(sys.executable, "benchmarks.ours") as worker:
            arguments = {"config": to_json(config), "examples": 4 * config.batch_size, "steps": steps}
            worker.ask(make="reading", arguments=arguments)
            wall = in_rounds({"run": worker}, rounds, warm=0)["run"]["wall"].sum(1)
            share = worker.check()["waited"][-rounds:] / wall
        rows[name] = {"share": spread(share), "ms_a_step": spread(1e3 * wall / steps)}
    return rows
