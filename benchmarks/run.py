"""Speed of the neuron and of the chaos term on this machine, each beside what memory alone would cost.

    make bench        (python -m benchmarks.run [--out docs/results/bench] [--rounds 21])

Pinned to one core; in each round every program runs once, in a new order, so that all see the same machine. Ratios are
medians over rounds of the ratio within a round, with minimum and maximum. Forward and backward of the neuron are two
programs, as in a network, where other layers stand between them. ``make`` sets the allocator so that fresh buffers
are not paid for in page faults; without it these figures measure the kernel.
"""

import argparse
import dataclasses
import os
import pathlib
import platform
import random
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, configs, data, learner, losses, models, neurons, optimizer
from csbp_jax.config import Chaos
from csbp_jax.report import write_json

SHAPES = {"T=4": (16, 4, 62500), "T=16": (16, 16, 62500), "T=100": (16, 100, 6250)}


def timed(programs, rounds):
    """``{name: seconds [rounds]}``, interleaved."""
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
    return {"median": float(np.median(values)), "min": float(values.min()), "max": float(values.max())}


def memory_copy(array, copies):
    """Reads and writes ``copies`` times the array's bytes, between buffers that exist."""
    source = np.stack([np.asarray(array)] * copies)
    target = source.copy()
    return lambda: np.copyto(target, source)


def two_programs(f, x, bars):
    """Forward and backward of f, compiled apart."""
    forward, backward = jax.jit(lambda x: jax.vjp(f, x)), jax.jit(lambda pull, bars: pull(bars))

    def program():
        _, pull = jax.block_until_ready(forward(x))
        jax.block_until_ready(backward(pull, bars))

    return program


def minimum_traffic(x):
    """Elementwise programs that move the neuron's bytes without its recurrence: 4 in, 8 out; 8 in, 4 out."""
    forward, backward = jax.jit(lambda x: (x * 2, x + 1)), jax.jit(lambda u, g: u * g)
    g = x + 1

    def program():
        _, u = jax.block_until_ready(forward(x))
        jax.block_until_ready(backward(u, g))

    return program


def neuron(rounds):
    """lif forward and backward, float32, hard reset, triangle."""
    rows = {}
    for label, shape in SHAPES.items():
        x = jax.random.normal(jax.random.key(0), shape)
        bars = (jax.random.normal(jax.random.key(1), shape), jnp.zeros((shape[0], shape[2])))
        programs = {
            "lif": two_programs(lambda x: neurons.lif(x, 0.25), x, bars),
            "minimum traffic": minimum_traffic(x),
            "memory copy": memory_copy(x, 3),
        }
        seconds = timed(programs, rounds)
        rows[label] = {
            "ns_per_element_step": {name: spread(1e9 * s / x.size) for name, s in seconds.items()},
            "lif_over_memory_copy": spread(seconds["lif"] / seconds["memory copy"]),
            "lif_over_minimum_traffic": spread(seconds["lif"] / seconds["minimum traffic"]),
        }
    return rows


def chaos_element(rounds):
    """Value and gradient of the term on 2e6 elements, beside one read and one write of them."""
    h = 3 * jax.random.normal(jax.random.key(0), (4, 500_000))
    gradient = jax.jit(jax.value_and_grad(chaos.term))
    programs = {"term": lambda: jax.block_until_ready(gradient(h)), "memory copy": memory_copy(h, 1)}
    seconds = timed(programs, rounds)
    return {
        "ns_per_element": {name: spread(1e9 * s / h.size) for name, s in seconds.items()},
        "term_over_memory_copy": spread(seconds["term"] / seconds["memory copy"]),
    }


def chaos_step(rounds):
    """A training step of the digits preset with its tap, over the same step without."""
    config = configs.load("digits")
    model, batch = models.build(config.model), next(data.train_batches(data.load(config)["train"], 32, 0))
    tx = optimizer.build(config.optimizer, 30, 39)
    programs = {}
    for name, arm in (("with", config), ("without", dataclasses.replace(config, chaos=Chaos()))):
        init, train_step, _ = learner.make(model, tx, losses.rate_cross_entropy, arm)
        box = [jax.jit(init)(jax.random.key(0))]
        step = jax.jit(train_step, donate_argnums=0)

        def program(step=step, box=box):
            box[0], metrics = step(box[0], batch)
            jax.block_until_ready(metrics)

        programs[name] = program
    seconds = timed(programs, 5 * rounds)
    return {
        "ms_per_step": {name: spread(1e3 * s) for name, s in seconds.items()},
        "share_of_a_step": spread(1 - seconds["without"] / seconds["with"]),
    }


def cell(numbers, digits=2, unit=1.0):
    return " ".join(
        [
            f"{unit * numbers['median']:.{digits}f}",
            f"({unit * numbers['min']:.{digits}f}-{unit * numbers['max']:.{digits}f})",
        ]
    )


def page(content):
    """The figures in Markdown, median (minimum-maximum)."""
    rows = [
        f"| {label} | {cell(row['ns_per_element_step']['lif'])} | {cell(row['ns_per_element_step']['memory copy'])} "
        f"| {cell(row['lif_over_memory_copy'])} | {cell(row['lif_over_minimum_traffic'])} |"
        for label, row in content["neuron"].items()
    ]
    element, step = content["chaos_element"], content["chaos_step"]
    return f"""# Speed

`make bench` on {content["machine"]}, jax {content["versions"]["jax"]}, one core, {content["rounds"]} interleaved
rounds; median (minimum-maximum). Nothing here was run on a GPU or TPU.

## The neuron: `lif` forward and backward, float32, 24 bytes an element and time step

| 1e6 neurons (T=100: 1e5) | lif, ns | memory copy of 24 bytes, ns | lif / copy | lif / minimum-traffic XLA programs |
|---|---|---|---|---|
{chr(10).join(rows)}

## The chaos term

- Value and gradient: {cell(element["ns_per_element"]["term"])} ns an element; one read and write of `h`:
  {cell(element["ns_per_element"]["memory copy"])} ns; ratio {cell(element["term_over_memory_copy"])}.
- Share of a training step of the digits preset (tap `conv1.membrane`, batch 32, T = 4):
  {cell(step["share_of_a_step"], 1, 100)} % of {cell(step["ms_per_step"]["with"])} ms.
"""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/bench"))
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random.seed(0)
    content = {
        "command": "make bench",
        "machine": f"{platform.machine()} CPU, Python {platform.python_version()}",
        "allocator": os.environ.get("GLIBC_TUNABLES", ""),
        "versions": {package: metadata.version(package) for package in ("jax", "jaxlib", "numpy")},
        "rounds": options.rounds,
        "neuron": neuron(options.rounds),
        "chaos_element": chaos_element(options.rounds),
        "chaos_step": chaos_step(options.rounds),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "bench.json", content)
    (options.out / "README.md").write_text(page(content))
    print(page(content))


if __name__ == "__main__":
    main()
