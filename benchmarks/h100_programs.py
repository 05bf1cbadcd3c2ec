"""Compile the neuron and training steps for an H100, without one.

    python -m benchmarks.h100_programs FILE KEY=PART ...        run by h100.py, with JAX's CUDA plugin on Python's path

Writes each part under its key, and keeps the other keys of FILE.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hlo, time_to_accuracy
from benchmarks.h100_device import compiled
from benchmarks.steps import NETS
from csbp_jax import configs, learner, losses, models, neurons
from csbp_jax.config import Config
from csbp_jax.learner import optimizer
from csbp_jax.models import layers
from csbp_jax.runtime.files import write_json
from csbp_jax.xla import gpu_convolution, pooling, time_loop
from csbp_jax.xla.platform import traced_for

STEPS = (4, 16, 32, 100)
Report = Callable[[str], None]
SHAPE = (16, 62500)  # a million neurons
KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": jnp.bfloat16},
    "float32, learned decay and threshold": {"learned": True},
}
FORMS = ("a step a pass", "XLA")
MEMBERS = 32
PRESETS = {"cifar10_dvs_tebn_cnn7": 8_100, "cifar100_tebn_resnet19": 45_000}
"""Two experiments of the paper, with their numbers of training records."""


def _net(of: str, **model: Any) -> Config:
    config = NETS[of]
    return dataclasses.replace(config, batch_size=32, model=dataclasses.replace(config.model, **model))


_SEW34 = _net("SEW-ResNet-18", name="sew_resnet34", input_shape=(224, 224, 3), precision="bfloat16")
STEP_NETS = {
    "CNN7, float32": _net("CNN7", time_steps=10),
    "CNN7, bfloat16": _net("CNN7", time_steps=10, precision="bfloat16"),
    "VGGSNN, float32": _net("VGGSNN", time_steps=10),
    "VGGSNN, bfloat16": _net("VGGSNN", time_steps=10, precision="bfloat16"),
    "SEW-ResNet-34, bfloat16": _SEW34,
}
AS_IT_IS = {
    "digits, float32": configs.load("digits"),
    "small, float32": time_to_accuracy.config("small"),
    "large, float32": time_to_accuracy.config("large"),
    **{
        f"{net}, {precision}": _net(net, precision=precision)
        for net in ("ResNet-19", "SEW-ResNet-18")
        for precision in ("float32", "bfloat16")
    },
    "SEW-ResNet-34, bfloat16, remat_neurons": dataclasses.replace(
        _SEW34, model=dataclasses.replace(_SEW34.model, remat_neurons=True)
    ),
}
"""Compiled in one form only: at T up to 4, a loop over single steps is the unrolled program."""
POOLED = {
    "3x3, stride 2, bfloat16": (jax.ShapeDtypeStruct((32, 4, 112, 112, 64), jnp.bfloat16), (3, 2, 1)),
    "3x3, stride 2, float32": (jax.ShapeDtypeStruct((32, 4, 112, 112, 64), jnp.float32), (3, 2, 1)),
    "2x2, float32": (jax.ShapeDtypeStruct((32, 8, 32, 32, 256), jnp.float32), (2, 2, 0)),
}
"""Max pooling as in the stem of SEW-ResNet and in PLIF-Net on CIFAR-10: input, and size, stride and padding."""


@contextlib.contextmanager
def traced_for_gpu(form: str) -> Iterator[None]:
    """Trace as on a GPU, the neuron in a form: as it is, ``"XLA"``, or in a loop over single time steps."""
    loop = {"gpu": time_loop.Form(4, 1)} if form == "a step a pass" else time_loop.UNROLLED
    with traced_for("gpu"), mock.patch.object(time_loop, "UNROLLED", loop):
        yield


def neuron(T: int, dtype: Any = jnp.float32, learned: bool = False) -> dict[str, dict[str, float]]:
    """``{forward, backward}`` of a million neurons; bytes per neuron and time step."""
    x = jax.ShapeDtypeStruct((SHAPE[0], T, SHAPE[1]), dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    operands = (x, number, number) if learned else (x,)

    def run(x, *constants):
        cell = neurons.LIF()
        return (dataclasses.replace(cell, decay=constants[0], threshold=constants[1]) if constants else cell)(x)

    def forward(*operands):
        return jax.vjp(run, *operands)

    outputs, pull = jax.eval_shape(forward, *operands)
    programs = {
        "forward": compiled(forward, *operands),
        "backward": compiled(lambda pull, bars: pull(bars), pull, outputs),
    }
    return {name: _summary(*program, x.size) for name, program in programs.items()}


def _summary(program: Any, seconds: float, elements: int) -> dict[str, float]:
    memory, work = program.memory_analysis(), hlo.work(program.as_text())
    return {
        "kernels": work.kernels,
        "loops": work.loops,
        "bytes": work.bytes / elements,
        "least_bytes": (memory.argument_size_in_bytes + memory.output_size_in_bytes) / elements,
        "temporary_bytes": memory.temp_size_in_bytes / elements,
        "compile_seconds": round(seconds, 1),
    }


def step(config: Config) -> dict[str, Any]:
    """A training step with its metrics, its state donated."""
    program, seconds = compiled_step(config)
    memory, work = program.memory_analysis(), hlo.work(program.as_text())
    return {
        "kernels": work.kernels,
        "loops": work.loops,
        "GB": work.bytes / 1e9,
        "parts": hlo.bytes_by_part(program.as_text()),
        "temporary_GB": memory.temp_size_in_bytes / 1e9,
        "compile_seconds": round(seconds, 1),
    }


def compiled_step(config: Config, deterministic: bool = False) -> tuple[Any, float]:
    """The program of a training step, and the seconds of its compilation."""
    train_step, state, batch = _traced_step(config)
    return compiled(train_step, state, batch, donated=0, deterministic=deterministic)


def members_step(config: Config, each_alone: bool) -> dict[str, Any]:
    """A training step of ``MEMBERS`` members of a sweep, with batches of their own; GB are a member's."""
    train_step, *shapes = _traced_step(config)
    stacked = jax.tree.map(lambda a: jax.ShapeDtypeStruct((MEMBERS, *a.shape), a.dtype), shapes)
    with gpu_convolution.each_member_alone(each_alone):
        program, seconds = compiled(jax.vmap(train_step), *stacked, donated=0)
    memory, work = program.memory_analysis(), hlo.work(program.as_text())
    return {
        "kernels": work.kernels,
        "GB": work.bytes / 1e9 / MEMBERS,
        "temporary_GB": memory.temp_size_in_bytes / 1e9 / MEMBERS,
        "compile_seconds": round(seconds, 1),
    }


def preset(config: Config, records: int) -> dict[str, Any]:
    """The memory and bytes of a preset's training step and evaluation, and how many of each a run needs."""
    train_step, state, batch = _traced_step(config)
    _, _, eval_step = _learner(config)
    tests = {name: jax.ShapeDtypeStruct((config.eval_batch_size, *a.shape[1:]), a.dtype) for name, a in batch.items()}
    tests |= {"mask": jax.ShapeDtypeStruct((config.eval_batch_size,), np.bool_)}
    training, _ = compiled(train_step, state, batch, donated=0)
    evaluation, _ = compiled(eval_step, state, tests)
    return {
        "steps": config.epochs * (records // config.batch_size),
        "GB": hlo.work(training.as_text()).bytes / 1e9,
        "training_GB": _held(training) / 1e9,
        "evaluation_GB": _held(evaluation) / 1e9,
    }


def _held(program: Any) -> int:
    """Bytes of a device's memory that a program takes: arguments, outputs and temporaries."""
    memory = program.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(memory.argument_size_in_bytes + outputs + memory.temp_size_in_bytes)


def _traced_step(config: Config) -> tuple[Callable[..., Any], Any, dict[str, jax.ShapeDtypeStruct]]:
    """A training step, and the shapes of its state and batch."""
    init, train_step, _ = _learner(config)
    state = jax.eval_shape(init, jax.random.key(0))
    frames = config.model.time_steps if config.model.input_shape[-1] == 2 else 1  # an image is static
    x = jax.ShapeDtypeStruct((config.batch_size, frames, *config.model.input_shape), np.float32)
    return train_step, state, {"x": x, "y": jax.ShapeDtypeStruct((config.batch_size,), np.int32)}


def _learner(config: Config) -> Any:
    tx = optimizer.build(config.optimizer, config.epochs, 10_000)
    return learner.make(models.build(config.model), tx, losses.build(config.loss), config, 10_000)


def pooled(x: jax.ShapeDtypeStruct, window: tuple[int, int, int], deterministic: bool) -> Any:
    """The program of max pooling and its gradient, between which a network does something else."""

    def both(x, bar):
        y, pull = jax.vjp(lambda x: layers.max_pool(x, *window), x)
        y, bar = jax.lax.optimization_barrier((y, bar))
        return y, pull(bar)

    bar = jax.eval_shape(lambda x: layers.max_pool(x, *window), x)
    return compiled(both, x, bar, deterministic=deterministic)[0]


def all_neurons(report: Report) -> dict[str, Any]:
    """``{kind: {T: {form: {forward, backward}}}}``."""
    rows: dict[str, Any] = {}
    for kind, options in KINDS.items():
        rows[kind] = {}
        for T in STEPS:
            report(f"neuron, {kind}, T={T}")
            rows[kind][f"T={T}"] = _in_forms(FORMS, neuron, T, **options)
    return rows


def all_steps(report: Report) -> dict[str, Any]:
    """``{net and precision: {form: ...}}``."""
    rows = {}
    for name, config in (STEP_NETS | AS_IT_IS).items():
        report(name)
        rows[name] = _in_forms(("XLA",) if name in AS_IT_IS else FORMS, step, config)
    return rows


def all_pooling(report: Report) -> dict[str, Any]:
    """``{program: {form: {"default", "deterministic"}}}``, with XLA's own gradient of max pooling and with ours."""

    def plain(x, size, stride, pad):
        return nn.max_pool(x, (1, size, size), (1, stride, stride), ((0, 0), (pad, pad), (pad, pad)))

    def counts(program):
        text = program.as_text()
        work = hlo.work(text)
        return {
            "kernels": work.kernels,
            "scatters": hlo.count(text, "scatter"),
            "sorts": hlo.count(text, "sort"),
            "GB": work.bytes / 1e9,
        }

    sew = "SEW-ResNet-34, bfloat16"
    programs: dict[str, Callable[..., Any]] = {
        name: functools.partial(pooled, x, window) for name, (x, window) in POOLED.items()
    }
    programs[sew] = lambda deterministic: compiled_step(STEP_NETS[sew], deterministic)[0]
    rows: dict[str, Any] = {}
    for name, program in programs.items():
        report(f"pooling, {name}")
        for form, function in {"XLA's": plain, "ours": pooling.max_pool}.items():
            for option in ("default", "deterministic"):
                with traced_for_gpu("XLA"), mock.patch.object(pooling, "max_pool", function):
                    row = counts(program(deterministic=option == "deterministic"))
                rows.setdefault(name, {}).setdefault(form, {})[option] = row
    return rows


def all_members(report: Report) -> dict[str, Any]:
    """``{preset: {a run alone, or a form of the convolutions of members: ...}}``."""
    rows: dict[str, Any] = {}
    for name in ("cifar10_quick", "digits"):
        config = configs.load(name)
        report(f"{name}, a run and {MEMBERS} members")
        with traced_for("gpu"):
            alone = step(config)
            rows[name] = {"alone": {key: value for key, value in alone.items() if key not in ("loops", "parts")}}
            rows[name] |= {form: members_step(config, form == "each") for form in ("grouped", "each")}
    return rows


def all_presets(report: Report) -> dict[str, Any]:
    """``{preset: {precision: ...}}``."""
    rows: dict[str, Any] = {}
    for name, records in PRESETS.items():
        for precision in ("float32", "bfloat16"):
            report(f"{name}, {precision}")
            config = configs.load(name)
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, precision=precision))
            with traced_for_gpu("XLA"):
                rows.setdefault(name, {})[precision] = preset(config, records)
    return rows


PARTS = {
    "neuron": all_neurons,
    "steps": all_steps,
    "pooling": all_pooling,
    "members": all_members,
    "presets": all_presets,
}


def _in_forms(forms: Sequence[str], function: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
    rows = {}
    for form in forms:
        with traced_for_gpu(form):
            rows[form] = function(*arguments, **options)
    return rows


def main() -> None:
    name, *parts = sys.argv[1:]
    file = pathlib.Path(name)
    content = json.loads(file.read_text()) if file.exists() else {}
    for key, part in (word.split("=") for word in parts):
        content[key] = PARTS[part](lambda message: print(f"{time.strftime('%H:%M:%S')} {message}", flush=True))
    content["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "jax-cuda12-plugin")}
    write_json(file, content)


if __name__ == "__main__":
    main()
