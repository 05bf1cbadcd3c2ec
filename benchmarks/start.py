"""Where the time of a start goes: imports, programs, the first step and the first epoch, cold and warm.

    python -m benchmarks.start [--rounds 5] [--only PART ...] [--data-dir data] [--peers .bench]
        [--out docs/checks/bench]

- ``digits``: wall and CPU seconds of ``csbp_jax train digits`` until each moment, with an empty compilation cache, with
  the one that it leaves, and without.
- ``programs``: what one start compiles, from JAX's own log, and what it imports.
- ``peers``: of the small network of benchmarks.time_to_accuracy, what the first epoch takes beyond a later one, of this
  package and of SpikingJelly, with nothing compiled and with all. Needs CIFAR-10.

Writes start.json and start.md.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import peers, time_to_accuracy
from benchmarks.process import machine
from benchmarks.tables import table
from benchmarks.timing import cell, spread
from csbp_jax.runtime.files import write_json
from csbp_jax.training.metrics_log import read_rows
from experiments import study

MOMENTS = {"start": "norms of the gradients", "train": "first step", "epoch": "first epoch"}
NETWORK = "two epochs"
time_to_accuracy.NETWORKS[NETWORK] = time_to_accuracy.NETWORKS["small"] | {"epochs": [2]}
STAGES = {"jaxpr_trace": "tracing", "jaxpr_to_mlir_module": "lowering", "backend_compile": "compilation"}
"""JAX's name of an event, ``/jax/core/compile/NAME_duration``, and ours."""
SHOWN = 8
"""Rows of programs and of imported packages."""

PARTS = ("digits", "programs", "peers")

Clocks = dict[str, float]
"""``{wall, cpu}`` seconds from the start of a process."""


def command(folder: str) -> list[str]:
    """Train the digits for an epoch in a folder of runs."""
    line = [sys.executable, "-m", "csbp_jax", "train", "digits", "--runs", folder, "--name", "r"]
    return [*line, "--epochs", "1", "--log-every", "1"]


def moments(folder: str, last: str = "epoch", **environment: str) -> dict[str, Clocks]:
    """``{moment: clocks}`` of a start on the CPU, with more environment variables; it is ended after the ``last``."""
    log, seen = pathlib.Path(folder) / "r" / "metrics.jsonl", dict[str, Clocks]()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    began = time.perf_counter()
    with subprocess.Popen(command(folder), env=environment, stdout=subprocess.DEVNULL) as process:
        while last not in seen:
            clocks = {"wall": time.perf_counter() - began, "cpu": time_to_accuracy.cpu_seconds(process.pid)}
            for kind in (row["kind"] for row in read_rows(log)):
                seen.setdefault(kind, clocks)
            assert last in seen or process.poll() is None
            time.sleep(0.01)
        process.kill()
    return {moment: seen[moment] for moment in MOMENTS if moment in seen}


def digits(rounds: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """``{cache: {moment: {clock: spread}}}`` of starts with no cache, an empty one, and the one that it leaves."""
    measured: dict[str, list[dict[str, Clocks]]] = {"off": [], "cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            measured["off"].append(moments(f"{folder}/off", JAX_ENABLE_COMPILATION_CACHE="false"))
            for name in ("cold", "warm"):
                measured[name].append(moments(f"{folder}/{name}", XDG_CACHE_HOME=f"{folder}/cache"))
    return {
        name: {
            moment: {clock: spread(np.array([run[moment][clock] for run in runs])) for clock in ("wall", "cpu")}
            for moment in runs[0]
        }
        for name, runs in measured.items()
    }


def programs() -> dict[str, Any]:
    """``{compiled: {program: {times, stage: seconds}}, imported: {package: seconds}}`` of a cold start."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": folder}
        options: Any = {"capture_output": True, "text": True, "check": True, "env": environment}
        line = [sys.executable, "-m", "benchmarks.start", "--inside", folder]
        compiled = json.loads(subprocess.run(line, **options).stdout.splitlines()[-1])
        line = [sys.executable, "-X", "importtime", "-c", "import csbp_jax.cli.main, csbp_jax.training.loop"]
        imports = subprocess.run(line, **options).stderr
    imported = dict[str, float]()
    for microseconds, module in re.findall(r"^import time: +(\d+) \|.*\| +([\w.]+)$", imports, re.MULTILINE):
        package = module.split(".")[0]
        imported[package] = imported.get(package, 0) + int(microseconds) / 1e6
    return {"compiled": compiled, "imported": imported}


def inside(folder: str) -> None:
    """Train in this process, and print what JAX compiled."""
    import jax

    from csbp_jax.cli.main import main

    seen: dict[str, dict[str, float]] = {}

    def listen(event: str, duration_secs: float, **of: str | int) -> None:
        stage = STAGES.get(event.removeprefix("/jax/core/compile/").removesuffix("_duration"))
        if stage:
            row = seen.setdefault(
                re.sub(r"^jit[_(]|\)$", "", str(of["fun_name"])), dict.fromkeys(("times", *STAGES.values()), 0)
            )
            row[stage] += duration_secs
            row["times"] += stage == "compilation"

    jax.monitoring.register_event_duration_secs_listener(listen)
    main(command(folder)[3:])
    print(json.dumps(seen))


def first_epochs(rounds: int, data_dir: pathlib.Path, python: str) -> dict[str, dict[str, dict[str, float]]]:
    """``{library: {clock: spread}}`` of the first epoch beyond the second, cold and warm."""
    makers: dict[str, Callable[..., Any]] = {
        "csbp_jax": time_to_accuracy.ours,
        "SpikingJelly, eagerly": functools.partial(time_to_accuracy.spikingjelly, python=python, how="eagerly"),
        "SpikingJelly, compiled": functools.partial(time_to_accuracy.spikingjelly, python=python, how="compiled"),
    }
    beyond: dict[str, list[Clocks]] = {}
    for seed in range(rounds):
        for name, make in makers.items():
            with tempfile.TemporaryDirectory() as temporary:
                folder = pathlib.Path(temporary)
                for state in ("cold", "warm"):
                    shutil.rmtree(folder / "runs", ignore_errors=True)  # the cache stays
                    line, ended = make(NETWORK, folder, seed, data_dir)
                    first, second = time_to_accuracy.run(line, folder, ended, 2)
                    clocks = {clock: 2 * first[clock] - second[clock] for clock in ("wall", "cpu")}
                    beyond.setdefault(f"{name}, {state}", []).append(clocks)
                    print(f"{name}, {state}: {clocks}", flush=True)
    return {
        name: {clock: spread(np.array([row[clock] for row in rows])) for clock in ("wall", "cpu")}
        for name, rows in beyond.items()
    }


def page(content: Mapping[str, Any]) -> str:
    """The page, of the parts that were measured."""
    starts = content["digits"]
    cold, warm = (starts[name]["train"]["cpu"]["median"] for name in ("cold", "warm"))
    body = [
        [name, *(f"{cell(of[moment]['wall'])} / {cell(of[moment]['cpu'])}" for moment in MOMENTS if moment in of)]
        for name, of in starts.items()
    ]
    compiled = sorted(content["programs"]["compiled"].items(), key=lambda item: -_total(item[1]))
    shown = compiled[:SHOWN]
    others = {stage: sum(row[stage] for _, row in compiled[SHOWN:]) for stage in ("times", *STAGES.values())}
    rows = [
        [f"`{name}`", f"{row['times']:.0f}", *(f"{row[stage]:.2f}" for stage in STAGES.values())] for name, row in shown
    ]
    rows.append(
        [f"{len(compiled[SHOWN:])} others", f"{others['times']:.0f}", *(f"{others[s]:.2f}" for s in STAGES.values())]
    )
    imported = sorted(content["programs"]["imported"].items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {seconds:.2f}" for name, seconds in imported[:SHOWN])
    rest = sum(seconds for _, seconds in imported[SHOWN:])
    beside = ""
    if "peers" in content:
        ends = [[name, cell(of["cpu"], 1)] for name, of in content["peers"].items()]
        beside = f"""
## Beside SpikingJelly

CPU-seconds that the first epoch of [the small network](time_to_accuracy.md) takes beyond the second, from the start of
the process, with nothing compiled before and with the cache that this leaves:

{table(["", "CPU-seconds"], ends)}
"""
    return f"""# Where the time of a start goes

**The first step of `csbp_jax train digits` comes after {cold:.1f} CPU-seconds, and after {warm:.1f} once its
programs are in the cache.**

Seconds from the start of the process, wall / CPU, median (minimum-maximum) of {content["rounds"]} starts:

{table(["compilation cache", *MOMENTS.values()], body)}

Off: without a cache. Cold: with an empty one, and warm with what the cold start left.

## Programs and imports

Of a cold start, seconds:

{table(["program", "times compiled", *STAGES.values()], rows)}

Imports, in seconds of their own: {listed}, others {rest:.2f}.
{beside}
`{content["command"]}` on {content["machine"]}, at a load of {content["load"]:.1f}.
"""


def _total(row: Mapping[str, float]) -> float:
    return sum(row[stage] for stage in STAGES.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, study.CHECKS / "bench", data_dir=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--peers", type=pathlib.Path, default=pathlib.Path(os.environ.get("BENCH_PEERS", ".bench")))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        inside(options.inside)
        return
    file = options.out / "start.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    content |= {"machine": machine(), "load": os.getloadavg()[0], "rounds": options.rounds}
    content |= study.provenance("python -m benchmarks.start", ("jax", "jaxlib", "flax"))
    if "digits" in options.only:
        content["digits"] = digits(options.rounds)
    if "programs" in options.only:
        content["programs"] = programs()
    if "peers" in options.only:
        python = peers.pythons(options.peers, only=["spikingjelly"]).get("spikingjelly")
        if python is None:
            raise SystemExit("SpikingJelly cannot be installed; the line above says why")
        content["peers"] = first_epochs(min(options.rounds, 3), pathlib.Path(options.data_dir), python)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    file.with_suffix(".md").write_text(page(content))
    print(page(content))


if __name__ == "__main__":
    main()
