"""What a run computes: its functions, jitted over all devices, and the rules that need both config and data."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csbp_jax import data, learner, weights
from csbp_jax.config import Config, ConfigError
from csbp_jax.data.device import transform
from csbp_jax.learner import optimizer
from csbp_jax.runtime import multihost, sharding
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.training import build, flip_meter
from csbp_jax.training.plugins import Own

Parts = dict[str, Any]


class Program(NamedTuple):
    """``init(key) -> state``, ``train_step(state, batch) -> (state, metrics)``, ``gradient_norms(state, batch)``,
    ``evaluate(state, source[, check]) -> metrics``, ``flip_ratio(part, state, batch)``; batches go through ``place``
    first. ``whole(array)`` is the array with a copy on each device, so that any process can read it."""

    init: Callable
    train_step: Callable
    evaluate: Callable
    gradient_norms: Callable
    flip_ratio: flip_meter.Ratio
    place: Callable
    whole: Callable


def resolve(config: Config, parts: Parts) -> Config:
    """The config with what its model leaves to the data (``input_shape``, ``classes``) filled in.

    Raises:
      ConfigError: the model wants another input, the data set is too small for a batch, or the devices cannot share it.
    """
    source = parts["train"]
    config = _with(config, classes=config.model.classes or source.classes)
    if config.model.classes != source.classes:
        raise ConfigError(f"model.classes: {config.model.classes}, but {config.data.name} has {source.classes}")
    shape = _frame(config, source)
    config = _with(config, input_shape=config.model.input_shape or shape)
    if config.model.input_shape != shape:
        raise ConfigError(
            f"model.input_shape: {config.model.input_shape}, but a frame of {config.data.name} is {shape}"
        )
    for part, records in parts.items():
        if len(records) == 0:
            raise ConfigError(f"{config.data.name}: its {part} part is empty; it needs more records of each class")
    if config.batch_size > len(source):
        raise ConfigError(
            f"batch_size: {config.batch_size} is not possible; {config.data.name} has {len(source)} to train on"
        )
    devices, parts_of_it = jax.device_count(), config.optimizer.accumulate
    if config.batch_size % (devices * parts_of_it):
        of = f" times optimizer.accumulate, {devices} x {parts_of_it}" if parts_of_it > 1 else ""
        raise ConfigError(
            f"batch_size: {config.batch_size} is not possible; allowed are multiples of {devices * parts_of_it}, "
            f"the number of devices{of}"
        )
    return config


def _with(config, **fields):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


def _frame(config, source):
    """``[H, W, C]`` as the network sees it."""
    record = data.example_batch(source)
    # What the transform changes is the height and width; it asks the config whether there are such.
    prepare, _ = transform.make(_with(config, input_shape=record["x"].shape[2:]), source.events)
    return tuple(jax.eval_shape(prepare, jax.random.key(0), record)["x"].shape[2:])


class Functions(NamedTuple):
    """What a run computes, pure, on batches as the source has them: ``init(key, hparams=None) -> state``,
    ``train_step(state, batch) -> (state, metrics)``, ``eval_step(state, key, batch) -> sums``,
    ``gradients(state, batch) -> {"task": tree, "chaos": tree}``."""

    init: Callable
    train_step: Callable
    eval_step: Callable
    gradients: Callable


def functions(
    config: Config,
    source: Any,
    steps_per_epoch: int,
    own: Own = Own(),
    gather: Callable[[Any], Any] | None = None,
) -> Functions:
    """The functions of a run of this (resolved) config, on data such as the source's; for jit, vmap and jvp.

    ``gather`` maps a gradient to the same one, as the optimiser is to be given it.
    """
    model, tx, loss, term = build.build(config, own, steps_per_epoch)
    tx = optimizer.with_gathered_gradients(tx, gather) if gather else tx
    init, train_step, eval_step = learner.make(model, tx, loss, config, steps_per_epoch, term)
    gradients = learner.make_gradients(model, loss, config, term)
    prepare, prepare_eval = transform.make(config, source.events)

    def seen(state, batch):
        # Apart from the network's own stream (dropout), which starts from (key, step) as well.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        return prepare(key, batch)

    return Functions(
        init=init,
        train_step=lambda state, batch: train_step(state, seen(state, batch)),
        eval_step=lambda state, key, batch: eval_step(state, prepare_eval(key, batch)),
        gradients=lambda state, batch: gradients(state, seen(state, batch)),
    )


def compile(
    config: Config,
    source: Any,
    steps_per_epoch: int,
    own: Own = Own(),
    over: jax.sharding.Mesh | None = None,
) -> Program:
    """The functions of a run of this (resolved) config, on data such as the source's, jitted.

    ``over`` is a mesh with one axis, ``data``; by default of all devices.
    """
    # One step for any number of devices: the batch is split over the mesh, and jit adds the all-reduces itself.
    devices = sharding.data_parallel() if over is None else over
    copies = sharding.replicated(devices)

    def gathered(tree):
        return jax.lax.with_sharding_constraint(tree, copies)

    # Weights are gathered whole, and so are gradients. Left to itself, the partitioner would split the products over
    # channels, and send activations around.
    run = functions(config, source, steps_per_epoch, own, gathered if config.layout != "data" else None)
    homes = sharding.shardings(config.layout, jax.eval_shape(run.init, jax.random.key(0)), devices)

    def at_hand(state):
        return dataclasses.replace(state, params=gathered(state.params)) if config.layout == "fsdp" else state

    place = functools.partial(sharding.shard_batch, mesh=devices)
    rounded = -(-config.eval_batch_size // devices.size) * devices.size
    train_step = jax.jit(
        lambda state, batch: run.train_step(at_hand(state), batch),
        donate_argnums=0,
        out_shardings=(homes, copies),
        compiler_options=compiler_options(),
    )
    eval_step = jax.jit(lambda state, *given: run.eval_step(at_hand(state), *given), out_shardings=copies)
    norms = jax.jit(
        lambda state, batch: learner.gradient_norms(run.gradients(at_hand(state), batch)), out_shardings=copies
    )
    return Program(
        init=jax.jit(run.init, out_shardings=homes),
        train_step=train_step,
        evaluate=functools.partial(_evaluate, eval_step, place, rounded, config.seed),
        gradient_norms=norms,
        flip_ratio=flip_meter.make(run.gradients, config, steps_per_epoch),
        place=place,
        whole=functools.partial(_whole, jax.jit(lambda array: array, out_shardings=copies)),
    )


def _whole(gather, array):
    return array if array.is_fully_replicated else gather(array)


def begin(config: Config, program: Program, show: Callable[[str], None]) -> learner.State:
    """The first state of a run: weights drawn by its seed, or those of ``config.weights``.

    Raises:
      ConfigError: that file cannot be read or does not fit the network.
    """
    variables = weights.load(config.weights, config.model, show=show) if config.weights else {}
    state = program.init(jax.random.key(config.seed))
    homes = {key: jax.tree.map(lambda leaf: leaf.sharding, getattr(state, key)) for key in variables}
    placed = jax.device_put(variables, homes)
    copies = {"ema": jax.tree.map(jnp.copy, placed)} if placed and state.ema else {}
    return dataclasses.replace(state, **placed, **copies)


def eval_keys(seed: int, source: Any, batch_size: int) -> jax.Array:
    """A key for each evaluation step over the source."""
    return jax.random.split(jax.random.key(seed), -(-len(source) // batch_size))


def _evaluate(
    eval_step, place, batch_size, seed, state: learner.State, source, check: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Accuracy and loss over a source, each example once; ``check`` is called before each batch, and may raise."""
    sums: list[dict[str, Any]] = []
    batches = data.eval_batches(source, batch_size, **multihost.host_slice())
    for key, batch in zip(eval_keys(seed, source, batch_size), batches, strict=True):
        check()
        sums.append(eval_step(state, key, place(batch)))
        jax.block_until_ready(sums[-2:-1])  # no more than two batches are under way
    total = {key: sum(float(part[key]) for part in sums) for key in sums[0]}
    count = total["count"]
    return {"count": int(count), "accuracy": total["correct"] / count, "loss": total["loss"] / count}
