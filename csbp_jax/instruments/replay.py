"""What the chaos term did to a run, recorded step by step, and forced upon its twin: the same run without the term.

    csbp = twins.make(config, parts["train"])
    state, pushes = twins.record(csbp, seed)

    forced = Own(control=lambda config, tx: optax.chain(controls.replay(), tx))
    twin = twins.make(replaced(config, "chaos.z0", (0.0,)), parts["train"], forced)
    state = twins.train(twin, seed, pushes)                         the same weights again, to rounding

A push is the gradient of z times the term, at the state and the batch of its step, a pytree like the parameters. It is
part of the gradient that the optimiser is given, whatever optimiser that is, so a force made of it stands before it.
Batches, augmentation and dropout of a seed are those of training it.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, controls, data, learner
from csbp_jax.config import Config, ConfigError, Diverged
from csbp_jax.instruments import training_map
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.training import compiled
from csbp_jax.training.plugins import Own

Pushes = Any

MOST = 4 * 2**30
"""Bytes that a whole record may take; shuffling and replaying it take as much again, each."""


class RecordedTraining(NamedTuple):
    """A (resolved) config's training, compiled once for all seeds and forcings.

    ``begin(seed, forcing=None) -> state``, ``step(state, batch) -> state`` (which takes the state's memory),
    ``push(state, batch) -> tree``, ``size(state, batch) -> tree`` of the root mean square of each of its tensors,
    ``batches(seed)`` of all steps, ``evaluate(state, source) -> {accuracy, loss, count}``.
    """

    config: Config
    steps: int
    steps_per_epoch: int
    begin: Callable[..., learner.State]
    step: Callable[..., learner.State]
    push: Callable[..., Pushes]
    size: Callable[..., Pushes]
    batches: Callable[[int], Iterator[dict[str, Any]]]
    evaluate: Callable[..., dict[str, float]]


def make(config: Config, source: Any, own: Own = Own()) -> RecordedTraining:
    """The training of a (resolved) config on a source, in float64 where ``jax.enable_x64`` is on.

    Raises:
      ConfigError: the config asks for what is no part of a step: the flip's unit, weights of a file, an early stop.
    """
    for field, asked in (
        ("chaos.unit", config.chaos.unit == "flip"),
        ("weights", config.weights),
        ("patience", config.patience),
    ):
        if asked:
            raise ConfigError(f"{field}: not possible in a run that is recorded or forced; leave it out")
    per_epoch = len(source) // config.batch_size
    steps = config.epochs * per_epoch
    run = compiled.functions(config, source, per_epoch, own)
    init = jax.jit(run.init)
    readers = {"workers": config.data.workers, "threads": config.data.threads}

    def begin(seed, forcing=None):
        return training_map.to_default_precision(
            init(jax.random.key(seed), {} if forcing is None else {"forcing": forcing})
        )

    def push(state, batch):
        return run.gradients(state, batch)["chaos"]

    def size(state, batch):
        return jax.tree.map(lambda one: jnp.sqrt(jnp.mean(one**2)), push(state, batch))

    def batches(seed):
        return itertools.islice(data.train_batches(source, config.batch_size, seed, **readers), steps)

    return RecordedTraining(
        config,
        steps,
        per_epoch,
        begin,
        # A record in the state goes from step to step without a copy, since the state is donated.
        jax.jit(lambda *given: run.train_step(*given)[0], donate_argnums=0, compiler_options=compiler_options()),
        jax.jit(push, compiler_options=compiler_options()),
        jax.jit(size, compiler_options=compiler_options()),
        batches,
        compiled.compile(config, source, per_epoch, own).evaluate,
    )


def train(run: RecordedTraining, seed: int, forcing: controls.Forcing = None) -> learner.State:
    """The state after all steps.

    Args:
      forcing: for a force that was given none of its own (controls.py).
    """
    state = run.begin(seed, forcing)
    for batch in run.batches(seed):
        state = run.step(state, batch)
    return state


def record(run: RecordedTraining, seed: int, most: int = MOST) -> tuple[learner.State, Pushes]:
    """Trains, and returns the state after all steps and every push, a pytree like the parameters of ``[N, ...]``.

    Raises:
      ConfigError: there is no term, it is taken in sub-steps, or the record would take more than ``most`` bytes.
      Diverged: a push is not finite.
    """
    leaves = jax.tree.leaves(jax.eval_shape(run.begin, seed).params)
    count, needed = sum(p.size for p in leaves), run.steps * sum(p.size * p.dtype.itemsize for p in leaves)
    if needed > most:
        raise ConfigError(
            f"record: {run.steps} steps of {count} parameters take {needed / 2**30:.3g} GiB, more than "
            f"{most / 2**30:.3g}; take fewer epochs or a smaller net, or record sizes alone"
        )
    return _followed(run, seed, run.push)


def record_sizes(run: RecordedTraining, seed: int) -> tuple[learner.State, Pushes]:
    """As :func:`record`, but of each push the root mean square of each tensor, ``[N]``: ``controls.rms`` of the record.

    Raises:
      ConfigError, Diverged: as there.
    """
    return _followed(run, seed, run.size)


def annealing(run: RecordedTraining) -> jax.Array:
    """``z / z0`` of each step, ``[N]``, for ``controls.annealed``."""
    every = run.steps_per_epoch if run.config.chaos.anneal == "epoch" else 1
    return chaos.strength(jnp.arange(run.steps), 1.0, run.config.chaos.beta, every)


def _followed(run, seed, look):
    if not any(run.config.chaos.z0):
        raise ConfigError(f"chaos.z0: {run.config.chaos.z0}, so there is no term to record; give one above 0")
    if run.config.chaos.term == "cbp":
        raise ConfigError("chaos.term: cbp is no part of the gradient, of which a record is; take another")
    if run.config.chaos.substeps > 1:
        raise ConfigError(f"chaos.substeps: {run.config.chaos.substeps} is not possible in a record; set it to 1")
    state, seen = run.begin(seed), []
    for batch in run.batches(seed):
        seen.append(jax.device_get(look(state, batch)))
        state = run.step(state, batch)
    found = jax.tree.map(lambda *each: np.stack(each), *seen)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
        raise Diverged(f"seed {seed}: a push is not finite; try a smaller optimizer.lr or chaos.z0")
    return state, found
