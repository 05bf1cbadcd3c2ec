"""Compile training steps for TPU slices, without one.

    python -m benchmarks.tpu_programs FILE --nets NET ... --layouts LAYOUT ... --slices SLICE ...     run by tpu.py

Programs that FILE has already are not compiled again.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import time
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo
from benchmarks.tpu_page import SLICES
from csbp_jax import configs
from csbp_jax.config import Config, replaced
from csbp_jax.data.source import ArraySource
from csbp_jax.runtime import sharding
from csbp_jax.runtime.files import write_json
from csbp_jax.training.compiled import compile_run

# Preset, the network that takes the place of the preset's, and examples per chip and step.
NETS = {
    "digits": ("digits", "small_conv", 32),
    "CNN7": ("cifar10_dvs_tebn_cnn7", "cnn7", 32),
    "VGGSNN": ("cifar10_dvs_tebn_cnn7", "vggsnn", 32),
    "SEW-ResNet-18": ("imagenet_sew_resnet18", "sew_resnet18", 32),
    "SEW-ResNet-34": ("imagenet_sew_resnet34", "sew_resnet34", 32),
    "TEBN-ResNet-34": ("imagenet_tebn_resnet34", "sew_resnet34", 32),
    "SEW-ResNet-50": ("imagenet_sew_resnet34", "sew_resnet50", 32),
}


def load(net: str) -> tuple[Config, int]:
    """The config of a network in bfloat16, and the examples per chip and step."""
    preset, name, per_chip = NETS[net]
    config = configs.load(preset)
    config = replaced(replaced(config, "model.name", name), "model.precision", "bfloat16")
    if net == "digits":
        config = replaced(config, "model.input_shape", (8, 8, 1))
    if net == "VGGSNN":
        config = dataclasses.replace(
            config, chaos=dataclasses.replace(config.chaos, z0=(15.0,), taps=("conv1.membrane",))
        )
    return config, per_chip


def mesh_of(name: str) -> Mesh:
    """A data-parallel mesh of the chips of a slice, or of several."""
    topology, slices = SLICES[name]
    options = {"num_slices": slices} if slices > 1 else {}
    devices = topologies.get_topology_desc(topology_name=topology, platform="tpu", **options).devices
    return sharding.data_mesh(devices)


def compile_step(config: Config, per_chip: int, mesh: Mesh) -> tuple[Any, float]:
    """Compile the training step of a config as a run would, and return it with the seconds of the compilation."""
    shape, size = config.model.input_shape, per_chip * mesh.size
    events = config.data.name == "cifar10_dvs"
    frames = np.zeros((1, config.model.time_steps if events else 1, *shape), np.uint8)
    source = ArraySource(frames, np.zeros(1, np.int32), config.model.classes)
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        run = compile_run(dataclasses.replace(config, batch_size=size), source, 10_000, mesh=mesh)
        state = jax.eval_shape(run.pure_init, jax.random.key(0))
        placed = sharding.shardings(config.layout, state, mesh)
        state = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, placed)
        rows = sharding.batch_sharding(mesh)
        batch = {
            "x": jax.ShapeDtypeStruct((size, *frames.shape[1:]), np.uint8, sharding=rows),
            "y": jax.ShapeDtypeStruct((size,), np.int32, sharding=rows),
        }
        began = time.perf_counter()
        program = run.train_step.lower(state, batch).compile()
    return program, time.perf_counter() - began


def describe(program: Any, per_chip: int, seconds: float) -> dict[str, Any]:
    """Counts of a compiled step, per chip and step."""
    memory, cost, text = program.memory_analysis(), program.cost_analysis(), program.as_text()
    work = hlo.work(text, hlo.hbm_size)
    return {
        "batch": per_chip,
        "seconds": round(seconds, 1),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "flops": cost["flops"],
        "xla_bytes": cost["bytes accessed"],
        "bytes": work.bytes,
        "loops": work.loops,
        "kernels": work.kernels,
        "by_source": by_source(text),
        "collectives": hlo.collectives(text),
    }


def by_source(text: str) -> dict[str, int]:
    """Bytes moved by what made them: copies of layout, convolutions, the norms' sums, pooling, the neuron, the rest."""
    totals: dict[str, int] = {}
    modules, _ = hlo.computations(text)
    for instruction, work in hlo.kernels(text, hlo.hbm_size):
        name = _source(instruction, modules)
        totals[name] = totals.get(name, 0) + work.bytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def _source(instruction: hlo.Instruction, modules: hlo.Modules) -> str:
    attributes = instruction.attributes
    opcodes = {instruction.opcode}
    if instruction.opcode == "fusion" and "calls=%" in attributes:
        called = attributes.split("calls=%")[1].split(",")[0].split(" ")[0]
        opcodes |= {inside.opcode for inside in modules[called].values()}
    if "convolution" in opcodes or "dot" in opcodes:
        return "convolutions and products"
    if instruction.opcode.startswith("copy"):
        return "copies"
    if "select-and-scatter" in opcodes or "reduce-window" in opcodes:
        return "pooling"
    if "/norm/" in attributes and "reduce" in opcodes:
        return "sums of norms"
    if instruction.opcode.removesuffix("-start") in hlo.COLLECTIVES:
        return "collectives"
    return "other fusions"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=pathlib.Path)
    for name in ("--nets", "--layouts", "--slices"):
        parser.add_argument(name, nargs="+", required=True)
    options = parser.parse_args()
    file = options.file
    content = json.loads(file.read_text()) if file.exists() else {"programs": {}}
    wanted = [(net, name, layout) for net in options.nets for name in options.slices for layout in options.layouts]
    for net, name, layout in wanted:
        key = f"{net}, {name}, {layout}"
        if key in content["programs"]:
            continue
        print(f"{time.strftime('%H:%M:%S')} {key}", flush=True)
        config, per_chip = load(net)
        program, seconds = compile_step(dataclasses.replace(config, layout=layout), per_chip, mesh_of(name))
        content["programs"][key] = describe(program, per_chip, seconds)
        content["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
        write_json(file, content)


if __name__ == "__main__":
    main()
