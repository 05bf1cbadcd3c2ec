"""Training steps of this package for benchmarks.worker: of networks, of a tiny net, and over long sequences."""

import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from benchmarks.worker import Program
from csbp_jax import learner, losses, models, neurons
from csbp_jax.config import Config, from_json
from csbp_jax.data.source import ArraySource
from csbp_jax.learner import optimizer
from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.runtime import sharding
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.training import build, compiled


def step(config: dict[str, Any], batch_file: str | None = None, precision: str | None = None) -> Program:
    """A training step: loss, gradient, update, metrics, the check for non-finite values; its state is donated.

    config: as ``csbp_jax.config.to_json`` returns it.
    batch_file: file that batch and weights are written to, for the same step in another library.
    precision: JAX's default precision of products; "highest" has plain sums of products in convolutions on CPU.
    """
    settings = from_json(config)
    program, state, batch, seconds = compiled_step(settings, precision or "default")
    if batch_file:
        _write(batch_file, batch, state.params)
    info = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "compile_seconds": seconds,
        "temporary_MB": _temporary(program),
        "peak_MB": program.memory_analysis().peak_memory_in_bytes / 1e6,
    }
    box, values = [state], list[float]()

    def run():
        box[0], metrics = program(box[0], batch)
        values.append(float(metrics["loss"]))

    return Program([run], lambda: {"losses": np.array(values)}, info)


def compiled_step(settings: Config, precision: str = "default") -> tuple[Any, Any, dict[str, np.ndarray], float]:
    """The program of a step, which donates its state, the first state, a batch, and the seconds of compilation."""
    init, train_step, batch = _made(settings)
    state = jax.jit(init)(jax.random.key(0))
    began = time.perf_counter()
    jitted = jax.jit(train_step, donate_argnums=0, compiler_options=compiler_options())
    with jax.default_matmul_precision(precision):
        program = jitted.lower(state, batch).compile()
    return program, state, batch, time.perf_counter() - began


def train_program(config: Config, devices: int | None = None) -> tuple[Any, Any, Any, float]:
    """Compile the step that training runs, ``compile_run(...).train_step``, over the mesh of some devices or of all.

    Returns:
      the program, which donates its state, the first state, a batch split over the mesh, and the seconds of its
      compilation.
    """
    batch = batch_of(config)
    source = ArraySource(batch["x"], batch["y"], config.model.classes or 10)
    settings = build.resolve(config, dict.fromkeys(("train", "validation", "test"), source), devices)
    run = compiled.compile_run(settings, source, 10_000, mesh=sharding.data_parallel(devices))
    state, placed = run.init(jax.random.key(0)), run.shard_batch(batch)
    began = time.perf_counter()
    program = run.train_step.lower(state, placed).compile()
    return program, state, placed, time.perf_counter() - began


def dispatch(config: dict[str, Any], steps: int) -> Program:
    """Steps of a tiny net, whose time is that of starting a step; only the last is waited for."""
    _, train_step, _ = made = _made(from_json(config))
    return _started(made, train_step, steps)


def counting(config: dict[str, Any], steps: int) -> Program:
    """As many steps of the same state that only count: the time in which JAX passes the state's leaves."""
    made = _made(from_json(config))
    return _started(made, lambda state, batch: (state.replace(step=state.step + 1), state.step), steps)


def _made(config: Config) -> tuple[Any, Any, Any]:
    tx = optimizer.build(config.optimizer, config.epochs, 10_000)
    init, train_step, _ = learner.make(models.build(config.model), tx, losses.build(config.loss), config, 10_000)
    return init, train_step, batch_of(config)


def _started(made: tuple[Any, Any, Any], step: Any, steps: int) -> Program:
    init, _, batch = made
    batch, program = jax.device_put(batch), jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
    box = [jax.jit(init)(jax.random.key(0))]

    def run():
        for _ in range(steps):
            box[0], metrics = program(box[0], batch)
        jax.block_until_ready(metrics)

    return Program([run], info={"leaves": len(jax.tree.leaves(box[0]))})


def long(T: int, length: int | None, batch: int = 16) -> Program:
    """Gradient of a dense net of SHD's size (700 inputs, two layers of 256, 20 classes), in chunks or at once."""
    sizes = (700, 256, 256, 20)
    keys = jax.random.split(jax.random.key(0), 3)
    weights = [
        jax.random.normal(k, s) * (3 / s[0]) ** 0.5 for k, s in zip(keys, itertools.pairwise(sizes), strict=True)
    ]

    def loss(weights, x):
        def step(membranes, x):
            after = []
            for w, membrane in zip(weights[:2], membranes, strict=True):
                x, membrane = neurons.lif(x @ w, 0.9, membrane=membrane)
                after.append(membrane)
            return after, x @ weights[2]

        start = [jnp.zeros((batch, size)) for size in sizes[1:3]]
        logits = (in_chunks(step, start, x, length) if length else step(start, x))[1]
        return jax.nn.logsumexp(logits.mean(1), axis=-1).mean()

    x = jnp.asarray(np.random.default_rng(0).random((batch, T, sizes[0])) < 0.02, jnp.float32)
    program = jax.jit(jax.grad(loss)).lower(weights, x).compile()
    return Program([lambda: jax.block_until_ready(program(weights, x))], info={"temporary_MB": _temporary(program)})


def batch_of(config: Config) -> dict[str, np.ndarray]:
    """Frames of small counts for two polarities and for units in a row, else a normal static image; random labels."""
    draw, shape = np.random.default_rng(0), config.model.input_shape
    if shape[-1] == 2 or len(shape) == 1:
        x = draw.poisson(0.5, (config.batch_size, config.model.time_steps, *shape)).astype(np.float32)
    else:
        x = draw.standard_normal((config.batch_size, 1, *shape), np.float32)
    return {"x": x, "y": draw.integers(0, config.model.classes, config.batch_size).astype(np.int32)}


def _write(file: str, batch: dict[str, Any], params: Any) -> None:
    arrays: dict[str, Any] = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(params).items()}
    np.savez(file, **batch, **arrays)


def _temporary(program: Any) -> float:
    """Megabytes of temporaries."""
    return program.memory_analysis().temp_size_in_bytes / 1e6


PROGRAMS = {"step": step, "dispatch": dispatch, "counting": counting, "long": long}
