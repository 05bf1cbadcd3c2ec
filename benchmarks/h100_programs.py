"""The neuron and training steps, compiled for an H100 that is not there.

    python -m benchmarks.h100_programs FILE PART ...        run by h100.py, with JAX's CUDA plugin on Python's path

Parts of FILE that are not compiled now stay as they were.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hlo
from benchmarks.h100_device import compiled
from benchmarks.steps import NETS
from csbp_jax import learner, losses, models, neurons
from csbp_jax.learner import optimizer
from csbp_jax.neurons import lif_scan
from csbp_jax.training.run_dir import write_json
from experiments.gpu_kernel import kernel

STEPS = (4, 16, 32, 100)
SHAPE = (16, 62500)  # a million neurons
KINDS = {
    "float32": {},
    "bfloat16": {"dtype": jnp.bfloat16},
    "float32, half-size residual": {"residual": "half"},
    "float32, learned decay and threshold": {"learned": True},
}
FORMS = ("a step a pass", "XLA", "kernel")
STEP_NETS = {
    name: dataclasses.replace(NETS[name], batch_size=32, model=dataclasses.replace(NETS[name].model, time_steps=10))
    for name in ("CNN7", "VGGSNN")
}


@contextlib.contextmanager
def form(name):
    """Programs are traced as on a GPU: of XLA alone, of a loop over single time steps, or with kernel.py."""
    jax.clear_caches()
    loop = {"gpu": (4, 1)} if name == "a step a pass" else lif_scan._UNROLLED
    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(lif_scan, "_UNROLLED", loop),
        mock.patch.object(kernel, "ON", name == "kernel"),
    ):
        yield


def neuron(T, dtype=jnp.float32, residual="full", learned=False):
    """``{forward, backward}`` of a million neurons; bytes are for each of them and time step."""
    x = jax.ShapeDtypeStruct((SHAPE[0], T, SHAPE[1]), dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    operands = (x, number, number) if learned else (x,)

    def forward(*operands):
        return jax.vjp(lambda *operands: neurons.lif(*operands, residual=residual), *operands)

    outputs, pull = jax.eval_shape(forward, *operands)
    programs = {
        "forward": compiled(forward, *operands),
        "backward": compiled(lambda pull, bars: pull(bars), pull, outputs),
    }
    return {name: _about(*program, x.size) for name, program in programs.items()}


def _about(program, seconds, elements):
    memory, work = program.memory_analysis(), hlo.work(program.as_text())
    return {
        "kernels": work.kernels,
        "loops": work.loops,
        "bytes": work.bytes / elements,
        "least_bytes": (memory.argument_size_in_bytes + memory.output_size_in_bytes) / elements,
        "temporary_bytes": memory.temp_size_in_bytes / elements,
        "compile_seconds": round(seconds, 1),
    }


def step(config):
    """A training step with its metrics, its state donated."""
    tx = optimizer.build(config.optimizer, config.epochs, 10_000)
    init, train_step, _ = learner.make(models.build(config.model), tx, losses.build(config.loss), config, 10_000)
    state = jax.eval_shape(init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((config.batch_size, config.model.time_steps, *config.model.input_shape), np.float32)
    batch = {"x": x, "y": jax.ShapeDtypeStruct((config.batch_size,), np.int32)}
    program, seconds = compiled(train_step, state, batch, donated=0)
    memory, work = program.memory_analysis(), hlo.work(program.as_text())
    return {
        "kernels": work.kernels,
        "loops": work.loops,
        "GB": work.bytes / 1e9,
        "temporary_GB": memory.temp_size_in_bytes / 1e9,
        "compile_seconds": round(seconds, 1),
    }


def transforms():
    """``{transform: how many of our kernels are in the program}``; two where forward and backward are, none in the
    derivative of a gradient and without a gradient."""
    x, number = jax.ShapeDtypeStruct((4, 10, 1024), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)

    def loss(x, decay):
        spikes, membrane = neurons.lif(x, decay)
        return spikes.sum() + (membrane**2).sum()

    def along(x, decays):
        return jax.lax.scan(lambda sums, decay: (sums + gradient(x, decay), None), 0.0, decays)[0]

    gradient = jax.grad(loss, argnums=1)
    many = jax.ShapeDtypeStruct((3,), jnp.float32)
    programs = {
        "gradient": (gradient, number),
        "of jax.checkpoint": (jax.grad(jax.checkpoint(loss), argnums=1), number),
        "under vmap": (jax.vmap(gradient, (None, 0)), many),
        "under scan": (along, many),
        "jvp of the gradient": (lambda x, d: jax.jvp(lambda d: gradient(x, d), (d,), (d,)), number),
        "no gradient": (loss, number),
    }
    found = {}
    for name, (function, decay) in programs.items():
        with form("kernel"):
            found[name] = compiled(function, x, decay)[0].as_text().count('custom_call_target="mosaic_gpu')
    return found


def all_neurons(tell):
    """``{kind: {T: {form: {forward, backward}}}}``."""
    found = {}
    for kind, options in KINDS.items():
        found[kind] = {}
        for T in STEPS:
            tell(f"neuron, {kind}, T={T}")
            found[kind][f"T={T}"] = _in_forms(neuron, T, **options)
    return found


def all_steps(tell):
    """``{net and precision: {form: ...}}``."""
    found = {}
    for name, config in STEP_NETS.items():
        for precision in ("float32", "bfloat16"):
            tell(f"{name}, {precision}")
            model = dataclasses.replace(config.model, precision=precision)
            found[f"{name}, {precision}"] = _in_forms(step, dataclasses.replace(config, model=model))
    return found


PARTS = {"neuron": all_neurons, "transforms": lambda tell: transforms(), "steps": all_steps}


def _in_forms(function, *arguments, **options):
    rows = {}
    for name in FORMS:
        with form(name):
            rows[name] = function(*arguments, **options)
    return rows


def main():
    file, *parts = sys.argv[1:]
    file = pathlib.Path(file)
    content = json.loads(file.read_text()) if file.exists() else {}
    for part in parts:
        content[part] = PARTS[part](lambda message: print(f"{time.strftime('%H:%M:%S')} {message}", flush=True))
    content["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "jax-cuda12-plugin")}
    write_json(file, content)


if __name__ == "__main__":
    main()
