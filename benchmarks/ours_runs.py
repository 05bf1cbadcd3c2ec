"""Runs of this package for benchmarks.worker: members of a sweep, and a run that reads its data."""

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Program
from csbp_jax import data
from csbp_jax.config import Config, from_json
from csbp_jax.data.events import frame_cache
from csbp_jax.data.images import augment, sources
from csbp_jax.experiment import Training
from csbp_jax.experiment.fields import at
from csbp_jax.training import build, compiled
from csbp_jax.training.compiled_group import CompiledGroup, member_mesh


def members(config: dict[str, Any], number: int, how: str) -> Program:
    """A step of a run ``alone``, or of ``number`` members in a ``loop`` over a compiled step or by ``vmap``.

    A sweep does the last two with chunks of a single member and of all members. It trains a chunk to its end before the
    next: in the loop a single member makes all the steps, so that its state stays in the cache as in a sweep. The run
    alone makes as many steps, and all three wait for the last step only, as training does not wait for each step.
    """
    parts = data.load(from_json(config))
    settings = build.resolve(from_json(config), parts)
    batch: Any = next(data.train_batches(parts["train"], settings.batch_size, 0))
    step: Callable[..., Any]
    if how == "alone":
        alone = compiled.compile_run(settings, parts["train"], 100)
        states, batch = [alone.init(jax.random.key(0))], alone.shard_batch(batch)
        step = alone.train_step
    else:
        run = CompiledGroup(settings, parts, member_mesh())
        size = number if how == "vmap" else 1
        hparams, which = run.hparams([settings] * size), jnp.zeros(size, int)
        states = [run.init(jnp.stack([jax.random.key(seed) for seed in range(size)]), hparams)]
        batch = run.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)

        def step_members(state, batch):
            return run.step(state, which, batch)

        step = step_members

    def once():
        for _ in range(1 if how == "vmap" else number):
            states[0], metrics = step(states[0], batch)
        jax.block_until_ready(metrics)

    return Program([once])


def experiment(config: dict[str, Any], number: int, how: str) -> Program:
    """Runs of a dense network that differ in strength, rate and width, each on 200 digits that its seed draws.

    By an ``experiment``, or in a ``loop``: the same steps as one scan, without evaluation, curves and progress.
    """
    base = Training(from_json(config), draw=_few)
    draw = np.random.default_rng(0)
    seeds = [run % 3 for run in range(number)]
    traced = {"chaos.z0": (0.1, 20.0), "optimizer.lr": (0.01, 0.3), "model.neuron.surrogate_param": (0.3, 3.0)}
    fields = [{name: float(draw.uniform(*ends)) for name, ends in traced.items()} for _ in seeds]
    base.prepare(fields, 0)
    (group,) = {base.group(of_run) for of_run in fields}
    if how == "experiment":
        return Program([lambda: base.train(group, fields, seeds)])
    splits = data.load(base.config)
    records = {seed: data.Drawn(splits["train"], *_few(splits, seed)) for seed in set(seeds)}
    configs = [build.resolve(at(base.config, of_run), splits) for of_run in fields]
    run = CompiledGroup(
        configs[0], {**splits, "train": records[0]}, member_mesh(), varying=("model.neuron.surrogate_param",)
    )
    epochs, hparams = base.config.epochs, run.hparams(configs)
    assert run.resident
    x = run.resident.x
    shape = (epochs * run.steps_per_epoch, base.config.batch_size)
    of_seed = {seed: draw.integers(0, len(source), shape) for seed, source in records.items()}
    order = {
        "rows": np.stack([records[seed].rows[of_seed[seed]] for seed in seeds]).astype(np.int32),
        "y": np.stack([records[seed].y[of_seed[seed]] for seed in seeds]),
    }
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return Program([lambda: jax.block_until_ready(run.epoch(run.init(keys, hparams), order, x))])


def _few(splits: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    y, draw = splits["train"].y, np.random.default_rng(seed)
    rows = np.concatenate([draw.choice(np.flatnonzero(y == label), 20, replace=False) for label in range(10)])
    return rows, y[rows]


def reading(config: dict[str, Any], examples: int, steps: int) -> Program:
    """Steps of a run over random examples, in memory or in a file of frames; also measures the time spent waiting.

    The device computes while the host prepares the next batch, as in the training loop.
    """
    settings = from_json(config)
    source: Any = _images(examples) if settings.data.name == "cifar10" else _frames(settings, examples)
    run = compiled.compile_run(settings, source, len(source) // settings.batch_size)
    readers = data.configured_readers(settings)
    stream = data.train_batches(source, settings.batch_size, 0, readers=readers)
    box = [run.init(jax.random.key(0))]
    waited: list[float] = []

    def once():
        waited.append(0.0)
        for batch in _timed(itertools.islice(stream, steps), waited):
            box[0], metrics = run.train_step(box[0], run.shard_batch(batch))
        jax.block_until_ready(metrics)

    return Program([once], lambda: {"waited": np.array(waited)})


def _timed(batches: Iterator[Any], waited: list[float]) -> Iterator[Any]:
    """The batches, with the time until each added to the last entry of ``waited``."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waited[-1] += time.perf_counter() - began
        if batch is None:
            return
        yield batch


def _images(examples: int) -> sources.ImageArraySource:
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (examples, 32, 32, 3), np.uint8), draw.integers(0, 10, examples).astype(np.int32)
    return sources.ImageArraySource(x, y, 10, [(2, augment.crop), (1, augment.flip)])


def _frames(config: Config, examples: int) -> frame_cache.CachedFrames:
    shape, draw = config.model.input_shape, np.random.default_rng(0)
    counts = draw.poisson(0.3, (examples, config.model.time_steps, *shape)).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, counts)
        source = frame_cache.CachedFrames(
            pathlib.Path(file.name), np.arange(examples), draw.integers(0, 10, examples), 10
        )
        len(source[0]["x"])  # maps the file, so that its name may go
        return source


PROGRAMS = {"members": members, "experiment": experiment, "reading": reading}
