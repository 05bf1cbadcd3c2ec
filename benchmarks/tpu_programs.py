"""Compile one training step for a TPU slice, without one.

    python -m benchmarks.tpu_programs FILE NET SLICE LAYOUT [--code]     run by tpu.py

XLA rewrites, lays out and schedules the program and assigns its memory in a tenth of the time; then it generates code
for each kernel, which changes none of the counts. Unless ``--code`` is passed, the process ends before that.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo, lowering, time_to_accuracy
from benchmarks.tpu_page import SLICES
from csbp_jax import configs
from csbp_jax.config import Config, replaced
from csbp_jax.runtime import hardware, sharding
from csbp_jax.runtime.files import write_json

# Preset, the network that takes the place of the preset's, and examples per chip and step.
NETS = {
    "digits": ("digits", "small_conv", 32),
    "small": ("cifar10_quick_bp", "small_conv", 64),
    "large": ("cifar10_quick_bp", "small_conv", 64),
    "CNN7": ("cifar10_dvs_tebn_cnn7", "cnn7", 32),
    "VGGSNN": ("cifar10_dvs_tebn_cnn7", "vggsnn", 32),
    "ResNet-19": ("cifar10_tet_resnet19_t4", "resnet19_tet", 32),
    "SEW-ResNet-18": ("imagenet_sew_resnet18", "sew_resnet18", 32),
    "SEW-ResNet-34": ("imagenet_sew_resnet34", "sew_resnet34", 32),
    "TEBN-ResNet-34": ("imagenet_tebn_resnet34", "sew_resnet34", 32),
    "SEW-ResNet-50": ("imagenet_sew_resnet34", "sew_resnet50", 32),
    "Spikformer-8-512": ("imagenet_spikformer_8_512", "spikformer_imagenet", 32),
}

VARIANTS = {
    "remat": ("model.remat", True),
    "a norm over all chips": ("model.norm_groups", 1),
    "a norm per slice": ("model.norm_groups", 2),
}
"""Option and value that a network's name asks for by ``NET with VARIANT``; the last is for two slices."""

COMPILER_OPTIONS = {
    "overlap asked for": {
        "xla_enable_async_all_reduce": True,
        "xla_tpu_enable_async_collective_fusion": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
        "xla_jf_crs_combiner_threshold_in_bytes": 1_000_000,
    }
}
"""Options of XLA that other variants ask for: asynchronous all-reduces, which are combined up to 1 MB only."""


def load(net: str, chips: int) -> tuple[Config, int]:
    """The config of a network in bfloat16, and the examples per chip and step.

    Where a preset's norms have groups, as its original's GPUs did, each chip is a group.
    """
    net, _, variant = net.partition(" with ")
    preset, name, per_chip = NETS[net]
    config = time_to_accuracy.config(net) if net in time_to_accuracy.NETWORKS else configs.load(preset)
    config = replaced(replaced(config, "model.name", name), "model.precision", "bfloat16")
    if net == "digits":
        config = replaced(config, "model.input_shape", (8, 8, 1))
    if net == "VGGSNN":
        config = dataclasses.replace(
            config, chaos=dataclasses.replace(config.chaos, z0=(15.0,), taps=("conv1.membrane",))
        )
    if config.model.norm_groups > 1:
        config = replaced(config, "model.norm_groups", chips)
    if variant in VARIANTS:
        config = replaced(config, *VARIANTS[variant])
    return config, per_chip


def mesh_of(name: str) -> Mesh:
    """A data-parallel mesh of the chips of a slice, or of several."""
    topology, slices = SLICES[name]
    options = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu", **options).devices
    return sharding.data_mesh(devices)


def lower_step(config: Config, per_chip: int, mesh: Mesh) -> jax.stages.Lowered:
    """Lower the training step of a config as a run on TPUs would."""
    run, _, *arguments = _shapes(config, per_chip, mesh)
    return run.train_step.lower(*arguments)


def flops(config: Config, per_chip: int) -> float:
    """Count the operations of a step per chip; XLA counts before it optimises, and on this machine's devices only."""
    run, _, *arguments = _shapes(config, per_chip, sharding.data_parallel(1))
    return hardware.flops(run.train_step, *arguments)


def _shapes(config: Config, per_chip: int, mesh: Mesh) -> lowering.Shapes:
    frames = config.model.time_steps if config.data.name == "cifar10_dvs" else 1
    config = dataclasses.replace(config, batch_size=per_chip * mesh.size)
    return lowering.shapes(config, (frames, *config.model.input_shape), np.uint8, mesh, platform="tpu")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An optimised program, the report of its memory, and the seconds that XLA took."""

    text: str
    memory: str
    seconds: float


def optimise(lowered: jax.stages.Lowered, code: bool, xla_options: Mapping[str, bool | int]) -> Compiled:
    """Let XLA optimise a program, which ``code`` also compiles to the end; else XLA goes on in a thread.

    xla_options: passed to XLA.

    Raises:
      SystemExit: XLA cannot compile the program.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, began = pathlib.Path(name), time.perf_counter()
        options = {"xla_dump_to": name, **xla_options}
        thread = threading.Thread(target=lowered.compile, kwargs={"compiler_options": options}, daemon=True)
        thread.start()
        # XLA writes the files in this order.
        report = "*after_optimizations-buffer-assignment.txt"
        program = "*after_optimizations_after_buffer_assignment.txt"
        while thread.is_alive() and (code or not any(folder.glob(program))):
            thread.join(0.2)
        thread.join(None if code else 1.0)  # long enough to finish the file
        seconds = time.perf_counter() - began
        # The program of the step is the largest; JAX may compile small ones beside it.
        files = sorted(folder.glob(program), key=lambda file: file.stat().st_size)
        if not files:
            raise SystemExit("XLA did not compile the program; its message is above")
        stem = files[-1].name.removesuffix(program[1:])
        return Compiled(files[-1].read_text(), (folder / (stem + report[1:])).read_text(), seconds)


def memory(report: str) -> dict[str, int]:
    """Return bytes of ``{arguments, temporaries, outputs}`` in main memory, from XLA's report of its buffers."""
    totals = {"arguments": 0, "temporaries": 0, "outputs": 0}
    for size, kind in re.findall(r"^allocation \d+: size (\d+), (.*):$", report, re.MULTILINE):
        if "color" in kind or "thread-local" in kind or "constant" in kind:
            continue
        if "parameter" in kind:
            totals["arguments"] += int(size)
        else:
            totals["outputs" if "maybe-live-out" in kind else "temporaries"] += int(size)
    return totals


def describe(program: Compiled, per_chip: int, operations: float) -> dict[str, Any]:
    """Counts of a compiled step, per chip and step."""
    work = hlo.work(program.text, hlo.hbm_size)
    return {
        "batch": per_chip,
        "seconds": round(program.seconds, 1),
        **memory(program.memory),
        "flops": operations,
        "bytes": work.bytes,
        "loops": work.loops,
        "kernels": work.kernels,
        "by_source": by_source(program.text),
        "parts": hlo.bytes_by_part(program.text, hlo.hbm_size),
        "neuron": neuron_kernels(program.text),
        "collectives": hlo.collectives(program.text),
        "overlapped": overlapped(program.text),
    }


def overlapped(text: str) -> dict[str, int]:
    """Count the all-reduces that are in a fusion with a convolution, which goes on beside them, and their bytes."""
    modules, _ = hlo.computations(text)
    operands: dict[str, int] = {}
    for instruction in (i for computation in modules.values() for i in computation.values() if i.opcode == "fusion"):
        inside = hlo.inside(instruction, modules)
        if any(i.opcode == "convolution" for i in inside):
            operands |= {hlo.channel_of(i): hlo.size(i.type) for i in inside if i.opcode == "all-reduce"}
    return {"count": len(operands), "bytes": sum(operands.values())}


def by_source(text: str) -> dict[str, int]:
    """Bytes moved by what made them: copies of layout, convolutions, the norms' sums, pooling, the rest."""
    totals: dict[str, int] = {}
    modules, _ = hlo.computations(text)
    for instruction, work in hlo.kernels(text, hlo.hbm_size):
        name = _source(instruction, modules)
        totals[name] = totals.get(name, 0) + work.bytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def neuron_kernels(text: str) -> dict[str, int]:
    """Count the layers with neurons (scope ``neuron``), and the kernels that hold their operations, by pass.

    Also how many of these kernels hold a convolution, and all bytes that they move.
    """
    totals = {"forward": 0, "reverse": 0, "with a convolution": 0, "bytes": 0}
    layers = set()
    modules, _ = hlo.computations(text)
    for instruction, work in hlo.kernels(text, hlo.hbm_size):
        inside = hlo.inside(instruction, modules)
        matches = [re.search(r'op_name="([^"]*)/neuron/', i.attributes) for i in inside]
        scopes = {match[1] for match in matches if match}
        if work.kernels and scopes:
            in_reverse = {scope for scope in scopes if "transpose(" in scope}
            layers |= scopes - in_reverse
            totals["reverse" if in_reverse else "forward"] += 1
            totals["with a convolution"] += any(i.opcode in ("convolution", "dot") for i in inside)
            totals["bytes"] += work.bytes
    return {"layers": len(layers), **totals}


def _source(instruction: hlo.Instruction, modules: hlo.Modules) -> str:
    attributes = instruction.attributes
    opcodes = {inside.opcode for inside in hlo.inside(instruction, modules)}
    if "convolution" in opcodes or "dot" in opcodes:
        return "convolutions and products"
    if instruction.opcode.startswith("copy"):
        return "copies"
    if "select-and-scatter" in opcodes or "reduce-window" in opcodes:
        return "pooling"
    if "/norm/" in attributes and "reduce" in opcodes:
        return "sums of norms"
    if instruction.opcode.removesuffix("-start") in (*hlo.COLLECTIVES, "recv"):
        return "collectives"
    return "other fusions"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=pathlib.Path)
    for name in ("net", "slice", "layout"):
        parser.add_argument(name)
    parser.add_argument("--code", action="store_true")
    options = parser.parse_args()
    mesh = mesh_of(options.slice)
    config, per_chip = load(options.net, mesh.size)
    config = dataclasses.replace(config, layout=options.layout)
    operations = flops(config, per_chip)
    xla_options = COMPILER_OPTIONS.get(options.net.partition(" with ")[2], {})
    program = optimise(lower_step(config, per_chip, mesh), options.code, xla_options)
    content = json.loads(options.file.read_text()) if options.file.exists() else {"programs": {}}
    content["programs"][f"{options.net}, {options.slice}, {options.layout}"] = describe(program, per_chip, operations)
    content["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    write_json(options.file, content)
    os._exit(0)  # without waiting for XLA's threads


if __name__ == "__main__":
    main()
