"""The chaos term's pushes, recorded step by step, and forced on the same run without the term.

    csbp = replay.make(config, splits["train"])
    state, pushes = replay.record(csbp, seed)

    forced = Own(control=lambda config, tx: optax.chain(controls.replay(), tx))
    control_run = replay.make(replaced(config, "chaos.z0", (0.0,)), splits["train"], forced)
    state = replay.train(control_run, seed, pushes)                 the same weights again, to rounding

A push is the gradient of z times the term, at the state and the batch of its step, a pytree like the parameters. It is
part of the gradient that the optimiser is given, whatever optimiser that is, so a force made of it stands before it.
Batches, augmentation and dropout of a seed are those of training it.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, controls, data, learner
from csbp_jax.config import Config, ConfigError, Diverged
from csbp_jax.data import DataSource
from csbp_jax.instruments.training_map import push_obstacle, to_default_precision
from csbp_jax.learner import Batch, State
from csbp_jax.runtime import sharding
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.training.compiled import CompiledRun, compile_run
from csbp_jax.training.plugins import Own

Pushes = Any
"""A pytree like the parameters with leaves ``[N, ...]``, or ``[N]`` for sizes alone."""

MAX_BYTES = 4 * 2**30
"""The largest whole record; shuffling and replaying it take as much again, each."""


def make(config: Config, source: DataSource, own: Own = Own()) -> CompiledRun:
    """Compile a (resolved) config's training on one device, in float64 where ``jax.enable_x64`` is on.

    It is compiled once for all seeds and forcings.

    Raises:
      ConfigError: the config asks for what is not part of a step: weights of a file, an early stop.
    """
    if field := (config.weights and "weights") or (config.patience and "patience"):
        raise ConfigError(f"{field}: not possible in a run that is recorded or forced; leave it out")
    steps = data.steps_per_epoch(source, config.batch_size, config.data.buckets)
    return compile_run(config, source, steps, own, sharding.data_parallel(1))


def train(run: CompiledRun, seed: int, forcing: Pushes = None) -> State:
    """Train a seed to the last step, and return its state.

    Args:
      run: of :func:`make`.
      seed: of the weights and of the order of the data.
      forcing: for a force that was given none of its own (controls.py).

    Raises:
      ConfigError: ``forcing`` is a function, which belongs to the force.
    """
    state = _first_state(run, seed, forcing)
    for batch in _batches(run, seed):
        state, _ = run.train_step(state, batch)
    return state


def record(run: CompiledRun, seed: int, most: int = MAX_BYTES) -> tuple[State, Pushes]:
    """Train a seed, and return its last state and every push, a pytree like the parameters of ``[N, ...]``.

    Raises:
      ConfigError: the run has no term, its pushes are not gradients at the weights of the record
        (``training_map.push_obstacle``), or the record would take more than ``most`` bytes.
      Diverged: a push is not finite.
    """
    shapes = jax.eval_shape(lambda: to_default_precision(run.pure_init(jax.random.key(seed))))
    leaves = jax.tree.leaves(shapes.params)
    count, needed = sum(p.size for p in leaves), run.total_steps * sum(p.size * p.dtype.itemsize for p in leaves)
    if needed > most:
        raise ConfigError(
            f"record: {run.total_steps} steps of {count} parameters take {needed / 2**30:.3g} GiB, more than "
            f"{most / 2**30:.3g}; take fewer epochs or a smaller net, or record sizes alone"
        )
    return _record(run, seed, lambda state, batch: run.pure_gradients(state, batch)["chaos"])


def record_sizes(run: CompiledRun, seed: int) -> tuple[State, Pushes]:
    """As :func:`record`, but of each push the root mean square of each tensor, ``[N]``: ``controls.rms`` of the record.

    Raises:
      ConfigError, Diverged: as :func:`record`, but for the size.
    """
    return _record(run, seed, lambda state, batch: controls.tensor_rms(run.pure_gradients(state, batch)["chaos"]))


def annealing(run: CompiledRun) -> jax.Array:
    """Return ``z / z0`` of each step, ``[N]``, for ``controls.annealed``."""
    hparams = learner.hyperparameters(run.config, run.steps_per_epoch)
    return chaos.strength(jnp.arange(run.total_steps), 1.0, hparams["beta"], hparams["every"])


def _record(run: CompiledRun, seed: int, observe: Callable[[State, Batch], Any]) -> tuple[State, Pushes]:
    if not any(run.config.chaos.z0):
        raise ConfigError(f"chaos.z0: {run.config.chaos.z0}, so the run has no term to record; give a z0 above 0")
    if reason := push_obstacle(run.config):
        raise ConfigError(reason)
    observe = jax.jit(observe, compiler_options=compiler_options())
    state, steps = _first_state(run, seed), []
    for batch in _batches(run, seed):
        steps.append(jax.device_get(observe(state, batch)))
        state, _ = run.train_step(state, batch)
    record = jax.tree.map(lambda *pushes: np.stack(pushes), *steps)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(record)):
        raise Diverged(f"seed {seed}: a push is not finite; try a smaller optimizer.lr or chaos.z0")
    return state, record


def _first_state(run: CompiledRun, seed: int, forcing: Pushes = None) -> State:
    if callable(forcing):
        raise ConfigError("forcing: a function is not possible; give it to the force: controls.gaussian(function)")
    # A record in the state passes from step to step without a copy, since the step donates the state.
    return to_default_precision(run.init(jax.random.key(seed), {} if forcing is None else {"forcing": forcing}))


def _batches(run: CompiledRun, seed: int) -> Iterator[Batch]:
    return map(run.shard_batch, itertools.islice(run.batches(seed), run.total_steps))
