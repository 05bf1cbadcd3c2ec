"""The neuron and training steps, compiled for an H100 that is not there: run by h100.py, with JAX's CUDA plugin."""

import contextlib
import dataclasses
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from benchmarks import hlo
from benchmarks.steps import NETS
from csbp_jax import kernel, learner, losses, models, neurons, optimizer, recurrence

# What the compiler has to know of an H100 SXM, in its own words: NVIDIA's published figures.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  device_memory_size: 84942979072
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  driver_version: "12.8.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# No device to try kernels on.
OPTIONS = {"xla_gpu_autotune_level": 0}
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
    loop = {"gpu": (4, 1)} if name == "a step a pass" else recurrence._UNROLLED
    with (
        mock.patch.object(jax, "default_backend", return_value="gpu"),
        mock.patch.object(recurrence, "_UNROLLED", loop),
        mock.patch.object(kernel, "ON", name == "kernel"),
    ):
        yield


def compiled(function, *arguments, donated=()):
    """The program, and the seconds of its compilation."""
    device = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices[0]
    there = jax.sharding.SingleDeviceSharding(device)
    arguments = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), arguments)
    began = time.perf_counter()
    found = jax.jit(function, donate_argnums=donated).lower(*arguments).compile(OPTIONS)
    return found, time.perf_counter() - began


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


def everything(tell):
    """``{neuron: {kind: {T: {form: ...}}}, steps: {net: {form: ...}}}``."""
    found = {"neuron": {}, "steps": {}}
    for kind, options in KINDS.items():
        rows = found["neuron"][kind] = {}
        for T in STEPS:
            tell(f"neuron, {kind}, T={T}")
            rows[f"T={T}"] = _in_forms(neuron, T, **options)
    for name, config in STEP_NETS.items():
        for precision in ("float32", "bfloat16"):
            tell(f"{name}, {precision}")
            model = dataclasses.replace(config.model, precision=precision)
            found["steps"][f"{name}, {precision}"] = _in_forms(step, dataclasses.replace(config, model=model))
    return found


def _in_forms(function, *arguments, **options):
    rows = {}
    for name in FORMS:
        with form(name):
            rows[name] = function(*arguments, **options)
    return rows
