"""Whole runs of this package, for benchmarks.worker: members of a sweep, and a run that reads its data."""

import itertools
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Program
from csbp_jax import data
from csbp_jax.config import from_json
from csbp_jax.data.events import frame_cache
from csbp_jax.data.images import augment, sources
from csbp_jax.sweep import vectorised
from csbp_jax.training import compiled


def members(config, number, how):
    """A step of each of ``number`` members: of one ``alone``, in a ``loop`` over one compiled step, or by ``vmap``.

    The last two are what a sweep does with chunks of one member and of all. A chunk is trained to its end before the
    next: in the loop one member makes all the steps, so that its state stays in the cache as it does there.
    """
    parts = data.load(from_json(config))
    config = compiled.resolve(from_json(config), parts)
    batch = next(data.train_batches(parts["train"], config.batch_size, 0))
    if how == "alone":
        alone = compiled.compile_run(config, parts["train"], 100)
        states, batch = [alone.init(jax.random.key(0))], alone.shard_batch(batch)
        step = alone.train_step
    else:
        run = vectorised.VectorisedRuns([config], parts, vectorised.member_mesh())
        size = number if how == "vmap" else 1
        hparams, which = run.hparams([config] * size), jnp.zeros(size, int)
        states = [run.init(jnp.stack([jax.random.key(seed) for seed in range(size)]), hparams)]
        batch = run.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)

        def step(state, batch):
            return run.step(state, which, batch)

    def once():
        for _ in range(number if how == "loop" else 1):
            states[0], metrics = step(states[0], batch)
        jax.block_until_ready(metrics)

    return Program([once])


def reading(config, examples, steps):
    """Steps of a run over examples of random numbers, in memory or in a file of frames; waiting is the first stage.

    The device computes while the host prepares the next batch, as in the training loop.
    """
    config = from_json(config)
    source = _pictures(examples) if config.data.name == "cifar10" else _frames(config, examples)
    run = compiled.compile_run(config, source, len(source) // config.batch_size)
    options = {"workers": config.data.workers, "threads": config.data.threads}
    stream = data.train_batches(source, config.batch_size, 0, **options)
    box = [run.init(jax.random.key(0))]
    waited = []

    def once():
        waited.append(0.0)
        for batch in _timed(itertools.islice(stream, steps), waited):
            box[0], metrics = run.train_step(box[0], run.shard_batch(batch))
        jax.block_until_ready(metrics)

    return Program([once], lambda: {"waited": np.array(waited)})


def _timed(batches, waited):
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waited[-1] += time.perf_counter() - began
        if batch is None:
            return
        yield batch


def _pictures(examples):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 256, (examples, 32, 32, 3), np.uint8), draw.integers(0, 10, examples).astype(np.int32)
    return sources.ImageArraySource(x, y, 10, [(2, augment.crop), (1, augment.flip)])


def _frames(config, examples):
    shape, draw = config.model.input_shape, np.random.default_rng(0)
    counts = draw.poisson(0.3, (examples, config.model.time_steps, *shape)).astype(np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, counts)
        source = frame_cache.CachedFrames(
            pathlib.Path(file.name), np.arange(examples), draw.integers(0, 10, examples), 10
        )
        len(source[0]["x"])  # maps the file, so that its name may go
        return source


PROGRAMS = {"members": members, "reading": reading}
