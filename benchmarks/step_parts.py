"""Where a training step's time goes, by part: convolutions, norm, neuron, pooling, and so on.

    python -m benchmarks.step_parts [NET ...] [--rounds 9] [--out docs/checks/bench]

Each net's step runs under JAX's profiler, on one core and on two, in a process of its own. An instruction of the
compiled program belongs to the part that its path names (Flax names the layers); a fusion of two parts belongs to that
of its last operation, and copies that XLA adds have no path. Its time is that of the threads, without what runs inside
of it. Dispatch is CPU time of the thread that starts a step, and "waiting" what remains of the wall time on one core.
Input is CPU time beside the step: a batch of records in memory (bytes, as CIFAR-10's) is drawn, and moved to the
device. Bytes are those that the program's kernels move (``hlo.py``).
Beside each are the machine's limits, measured in the same process: copies, and products of matrices.

Writes step_parts.json after each net, step_parts.md and step_parts.png.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hlo, ours_step, steps, time_to_accuracy
from benchmarks.process import ROOT, TUNABLES, machine
from benchmarks.tables import table
from csbp_jax import configs, data
from csbp_jax.config import Config
from csbp_jax.data.source import ArraySource
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.runtime import sharding
from csbp_jax.runtime.files import write_json
from experiments import study

NETS: dict[str, Config] = {
    "digits": configs.load("digits"),
    "small": time_to_accuracy.config("small"),
    "large": time_to_accuracy.config("large"),
    **steps.NETS,
}
PATHS = {
    "chaos term": r"/tap",
    "neuron": r"/neuron",
    "norm": r"/norm",
    "convolutions": r"conv_general_dilated|/conv/|^convolution",
    "pooling": r"reduce.window|select.and.scatter|/pool",
    "dense layers": r"/dense/|readout|dot_general",
    "loss, metrics, other": r"jvp|argmax",
}
"""``{part: pattern of an instruction's path}``; the first that matches counts. The rest is the optimiser."""
REST, COPIES = "optimiser, guard", "copies"
PARTS = (*PATHS, REST, COPIES)
DISPATCH, WAITING = "dispatch", "waiting"
COLUMNS = (*PARTS, DISPATCH, WAITING)
TRIES = 3
"""Processes that are measured on two cores, which a virtual machine may move between them."""


def part_of(path: str, name: str = "") -> str:
    """The part of a step to which an instruction belongs, by its path in the program, or else by its name."""
    named = (part for part, pattern in PATHS.items() if re.search(pattern, path or name))
    return next(named, REST if path else COPIES)


def parts_of(text: str) -> dict[str, str]:
    """``{instruction: part}`` of all instructions in the text of a compiled program."""
    modules, _ = hlo.computations(text)

    def path(instruction: hlo.Instruction) -> str:
        """Its own, or else that of the last instruction that it fuses."""
        own, *fused = (re.search(r'op_name="([^"]*)"', i.attributes) for i in hlo.inside(instruction, modules))
        return next((match[1] for match in (own, *reversed(fused)) if match), "")

    return {i.name: part_of(path(i), i.name) for module in modules.values() for i in module.values()}


def bytes_by_part(text: str, nbytes: hlo.Size = hlo.size) -> dict[str, int]:
    """Bytes that a program's kernels move, by part."""
    parts, total = parts_of(text), collections.Counter[str]()
    for instruction, work in hlo.kernels(text, nbytes):
        total[parts[instruction.name]] += work.bytes
    return dict(total)


def traffic(programs: Mapping[str, Mapping[str, int]]) -> str:
    """A table of the bytes that programs move, ``{program: {part: bytes}}``: percent by part."""
    body = [
        [name, f"{sum(of.values()) / 1e9:.3g}", *(f"{100 * of.get(part, 0) / sum(of.values()):.0f}" for part in PARTS)]
        for name, of in programs.items()
    ]
    return table(["net", "GB", *PARTS], body)


def own_times(events: Iterable[tuple[str, float, float]]) -> dict[str, list[float]]:
    """Times of each name among ``(name, start, end)`` of a thread, each without those of events inside of it."""
    times = collections.defaultdict[str, list[float]](list)
    open_events: list[tuple[float, list[float], int]] = []
    for name, start, end in sorted(events, key=lambda event: (event[1], -event[2])):
        while open_events and open_events[-1][0] <= start:
            open_events.pop()
        if open_events:
            outer_end, outer, index = open_events[-1]
            outer[index] -= min(end, outer_end) - start
        times[name].append(end - start)
        open_events.append((end, times[name], len(times[name]) - 1))
    return dict(times)


def seconds_by_part(folder: str, parts: Mapping[str, str]) -> dict[str, float]:
    """Seconds of all threads, by part, in a profile that JAX wrote to a folder; each event counts as the median."""
    (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
    times = collections.defaultdict[str, list[float]](list)
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for name, values in own_times((e.name, e.start_ns, e.end_ns) for e in line.events).items():
                times[name] += values
    total = collections.defaultdict[str, float](float)
    for name, part in parts.items():
        total[part] += len(times[name]) * float(np.median(times[name] or [0])) / 1e9
    return dict(total)


def measured(config: Config, rounds: int) -> dict[str, Any]:
    """Time a net's step on the cores of this process: medians of seconds."""
    compiled, state, batch, _ = ours_step.compiled_step(config)
    text, batch = compiled.as_text(), jax.device_put(batch)
    clocks = {"wall": time.perf_counter, "cpu": time.process_time, "dispatch": time.thread_time}

    def run(state: Any, count: int) -> tuple[Any, dict[str, list[float]]]:
        seconds: dict[str, list[float]] = {name: [] for name in clocks}
        for _ in range(count):
            began = {name: clock() for name, clock in clocks.items()}
            state, metrics = compiled(state, batch)
            seconds["dispatch"].append(time.thread_time() - began["dispatch"])
            float(metrics["loss"])
            for name in ("wall", "cpu"):
                seconds[name].append(clocks[name]() - began[name])
        return state, seconds

    state, _ = run(state, 2)
    state, seconds = run(state, rounds)
    options = jax.profiler.ProfileOptions()
    options.host_tracer_level, options.python_tracer_level = 3, 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run(state, rounds)
        parts = seconds_by_part(folder, parts_of(text))
    return {
        **{name: float(np.median(values)) for name, values in seconds.items()},
        "parts": {part: second / rounds for part, second in parts.items()},
        "input": input_seconds(config),
        "bytes": bytes_by_part(text),
        "limits": limits(rounds),
    }


def input_seconds(config: Config, rounds: int = 50) -> float:
    """CPU seconds of a batch: records in memory are drawn, stacked and moved to the device."""
    frames = ours_step.batch_of(config)["x"].shape[1:]
    records = np.zeros((8 * config.batch_size, *frames), np.uint8)
    source = ArraySource(records, np.zeros(len(records), np.int32), config.model.classes)
    batches, mesh = data.train_batches(source, config.batch_size, 0), sharding.data_parallel()

    def run(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(sharding.shard_batch(next(batches), mesh))

    run(5)
    began = time.process_time()
    run(rounds)
    return (time.process_time() - began) / rounds


def limits(rounds: int, side: int = 1024, elements: int = 1 << 25) -> dict[str, float]:
    """Bytes a second of a copy, and operations a second of a product of matrices, on the cores of this process."""
    a, x = jnp.ones((side, side)), jnp.ones(elements)
    programs = {
        "flops": (jax.jit(jnp.dot), (a, a), 2 * side**3),
        "bytes": (jax.jit(lambda x: x + 1), (x,), 8 * elements),
    }
    result = {}
    for name, (program, arguments, work) in programs.items():
        jax.block_until_ready(program(*arguments))
        began = time.perf_counter()
        for _ in range(rounds):
            jax.block_until_ready(program(*arguments))
        result[name] = work * rounds / (time.perf_counter() - began)
    return result


def on_cores(net: str, cores: Sequence[int], rounds: int) -> dict[str, Any]:
    """``measured`` in a process that may use these cores."""
    line = [sys.executable, "-m", "benchmarks.step_parts", net, "--rounds", str(rounds), "--inside"]
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, "JAX_PLATFORMS": "cpu"}
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # the child inherits it
    try:
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=environment)
    finally:
        os.sched_setaffinity(0, usable)
    if done.returncode:
        raise SystemExit(f"{net}: {(done.stderr.strip().splitlines() or ['no error'])[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def on_both(net: str, cores: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """``measured`` on two cores, in ``TRIES`` processes, with the ``exchange`` between the cores before and after."""

    def exchange() -> float:
        line = [sys.executable, "-m", "benchmarks.exchange", *map(str, cores)]
        return float(subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT).stdout)

    tries = []
    for _ in range(TRIES):
        before = exchange()
        tries.append(on_cores(net, cores, rounds) | {"exchange": [before, exchange()]})
    return tries


def rows(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """``{net: {column: share of a step's wall time on one core}}``."""
    result = {}
    for net, of_cores in content["nets"].items():
        alone = of_cores["1"]
        shares = {part: alone["parts"].get(part, 0) / alone["wall"] for part in PARTS}
        shares[DISPATCH] = alone["dispatch"] / alone["wall"]
        result[net] = shares | {WAITING: 1 - sum(shares.values())}
    return result


def page(content: Mapping[str, Any]) -> str:
    """The page: shares of a step on one core, and what both cores do."""
    shares = rows(content)
    largest = {net: max(PARTS, key=row.__getitem__) for net, row in shares.items()}
    answer = "; ".join(f"{net}: {part} {100 * shares[net][part]:.0f} %" for net, part in largest.items())
    alone = {net: of["1"] for net, of in content["nets"].items()}
    limits = [row["limits"] for row in alone.values()]
    return f"""# Where a step's time goes

**Largest part of a step's wall time on one core: {answer}.**

![share of each part](step_parts.png)

Percent of a step on one core, steps as they are trained, with the chaos term where the preset has one:

{_times(shares, alone)}

A fusion of two parts counts as that of its last operation. Copies: those that XLA adds. Waiting: reading of the
metrics, and what else no part has. Input comes beside the step: CPU time of drawing a batch of records in memory and
of moving it to the device.

Megabytes that a step's kernels move, and milliseconds that copies of as many bytes would take:

{_megabytes(alone)}

## On two cores

{_on_both(content["nets"])}

Each number is of a process of its own. The last column is what a byte takes to the other core and back
(`benchmarks/exchange.py`), before and after: about 150 ns where the cores share a cache, 330 and more where they do
not. A virtual machine's cores may change between the two. What was tried to make a step faster, on one core and on two,
is in [decisions](../../design/decisions.md#devices-and-processes).

`{content["command"]}` on {content["machine"]}. The machine copies {_range([row["bytes"] / 1e9 for row in limits])} GB/s
and computes products of matrices at {_range([row["flops"] / 1e9 for row in limits])} Gflop/s on one core, measured with
each net.
"""


def _times(shares: Mapping[str, Mapping[str, float]], alone: Mapping[str, Mapping[str, Any]]) -> str:
    body = [
        [net, f"{1e3 * of['wall']:.1f}", *(f"{100 * share:.0f}" for share in (*shares[net].values(), beside))]
        for net, of in alone.items()
        for beside in [of["input"] / of["wall"]]
    ]
    return table(["net", "ms", *COLUMNS, "input"], body)


def _megabytes(alone: Mapping[str, Mapping[str, Any]]) -> str:
    body = [
        [net, *(f"{of['bytes'].get(part, 0) / 1e6:.1f}" for part in PARTS), *(f"{ms:.1f}" for ms in milliseconds)]
        for net, of in alone.items()
        for milliseconds in [(_at_copy(of), 1e3 * of["wall"])]
    ]
    return table(["net", *PARTS, "as copies, ms", "step, ms"], body)


def _on_both(nets: Mapping[str, Any]) -> str:
    body = [
        [
            net,
            ", ".join(f"{alone['wall'] / run['wall']:.2f}" for run in tries),
            ", ".join(f"{run['cpu'] / alone['cpu']:.2f}" for run in tries),
            ", ".join("-".join(f"{ns:.0f}" for ns in sorted(run["exchange"])) for run in tries),
        ]
        for net, of in nets.items()
        for alone, tries in [(of["1"], of.get("2", []))]
    ]
    return table(["net", "faster than on one", "CPU time over one core's", "ns from core to core and back"], body)


def _at_copy(alone: Mapping[str, Any]) -> float:
    return 1e3 * sum(alone["bytes"].values()) / float(alone["limits"]["bytes"])


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def figure(content: Mapping[str, Any]) -> Any:
    """A bar for each net, divided into its parts."""
    shares = rows(content)
    drawn = empty_figure(8, 0.45 * len(shares) + 1.6)
    axes = drawn.subplots()
    left = np.zeros(len(shares))
    for i, part in enumerate(COLUMNS):
        widths = np.array([100 * max(row[part], 0) for row in shares.values()])
        axes.barh(
            list(shares),
            widths,
            left=left,
            label=part,
            color=PALETTE[i % len(PALETTE)],
            hatch="//" * (i >= len(PALETTE)),
        )
        left += widths
    axes.set(xlabel="% of a step on one core", xlim=(0, 100))
    axes.invert_yaxis()
    drawn.legend(loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, study.CHECKS / "bench")
    parser.add_argument("nets", nargs="*", metavar="NET", help=", ".join(NETS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.nets) - NETS.keys():
        parser.error(f"NET: {', '.join(sorted(unknown))} is unknown; there are {', '.join(NETS)}")
    if options.inside:
        print(json.dumps(measured(NETS[options.nets[0]], options.rounds)))
        return
    file = options.out / "step_parts.json"
    content = json.loads(file.read_text()) if file.exists() else {"nets": {}}
    content |= {"machine": machine(), **study.provenance("python -m benchmarks.step_parts", ("jax", "jaxlib", "flax"))}
    cores = sorted(os.sched_getaffinity(0))[:2]
    for net in options.nets or NETS:
        print(f"{time.strftime('%H:%M:%S')} {net}", flush=True)
        content["nets"][net] = {"1": on_cores(net, cores[-1:], options.rounds)}
        if len(cores) > 1:
            content["nets"][net]["2"] = on_both(net, cores, options.rounds)
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
        file.with_suffix(".md").write_text(page(content))
        study.save_figure(figure(content), options.out, "step_parts")
    print(page(content))


if __name__ == "__main__":
    main()
