"""The laboratory: the instruments of dynamics on the training of a config, beside the same of its controls.

A training step is taken as a map of parameters and moments (``learner.dynamical_leaves``), on batches that are given
and, if there are fewer of them than steps, repeated in their order: one batch is the map of that batch, an epoch's
batches are the map of an epoch, as many as steps are a random system whose nearby runs share their batches. Nothing is
augmented.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import data, dynamics, learner, losses, models
from csbp_jax.config import Config, replaced
from csbp_jax.data.device import transform
from csbp_jax.instruments import classify
from csbp_jax.learner import optimizer
from csbp_jax.training import flip_meter

Batch = dict[str, jax.Array]
DELTAS = tuple(float(f"1e{power}") for power in range(-12, 0))


class TrainingMap(NamedTuple):
    """``start(seed, fixed) -> state``, with z held at its first value or annealed; ``step(state, batch) -> state``;
    ``flip_ratio(part, state, batch)``, NaN for a term in sub-steps, whose force is no gradient; ``push(state, batch)``,
    the gradient of z times the term; ``readouts(state) -> {parameters, logits, spikes}`` on the probe batch."""

    start: Callable[[int, bool], learner.State]
    step: Callable[[learner.State, Batch], learner.State]
    flip_ratio: flip_meter.Ratio
    push: Callable[[learner.State, Batch], Any]
    readouts: Callable[[learner.State], dict[str, jax.Array]]


def conditions(config: Config, substeps: int = 10) -> dict[str, Config]:
    """The config (in plain units of z), its like without a term, and with each pull that is no chaos in its place."""
    return {
        "as given": config,
        "z = 0": replaced(config, "chaos.z0", (0.0,)),
        "drift": replaced(config, "chaos.term", "drift"),
        "linear pull": replaced(config, "chaos.term", "linear"),
        f"{substeps} sub-steps": replaced(config, "chaos.substeps", substeps),
    }


def batches(config: Config, source: Any, count: int, seed: int = 0) -> list[Batch]:
    """The first batches of a run of this (resolved) config, as its network sees them, unaugmented."""
    plain = dataclasses.replace(config.data, augment=())
    prepare = transform.make(dataclasses.replace(config, data=plain), source.events)[1]
    stream = itertools.islice(data.train_batches(source, config.batch_size, seed), count)
    return [prepare(jax.random.key(seed), jax.tree.map(jnp.asarray, batch)) for batch in stream]


def in_plain_units(config: Config, probe: Batch, steps_per_epoch: int) -> Config:
    """A (resolved) config whose z0, if it is in units of the flip, is measured at its start, for its controls to share.

    Raises:
      ConfigError: the term has no flip there.
    """
    run = make(config, probe, steps_per_epoch)
    state = flip_meter.begin(run.flip_ratio, config, run.start(config.seed, False), probe)
    plain = replaced(config, "chaos.unit", "plain")
    return replaced(plain, "chaos.z0", tuple(float(z) for z in state.hparams["z0"].values()) or (0.0,))


def make(
    config: Config, probe: Batch, steps_per_epoch: int, control: Callable[[Any], Any] = lambda tx: tx
) -> TrainingMap:
    """The map of a (resolved) config, in float64 where ``jax.enable_x64`` is on, else in float32.

    Args:
      probe: the batch of the read-outs.
      steps_per_epoch: for its schedule and its annealing.
      control: from the optimiser to what stands in its place, such as a chain of a force of controls.py and it; a force
        without a forcing of its own is to be :func:`forced`.
    """
    model, loss = models.build(config.model), losses.build(config.loss)
    tx = control(optimizer.build(config.optimizer, config.epochs, steps_per_epoch))
    init, train_step, _ = learner.make(model, tx, loss, config, steps_per_epoch)
    gradients = learner.make_gradients(model, loss, config)
    ratio = flip_meter.make(gradients, config, steps_per_epoch)
    if config.chaos.substeps > 1:
        ratio = lambda part, state, batch: math.nan  # noqa: E731
    layers = tuple(jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), probe["x"], True))[0][1].rates)

    def start(seed, fixed):
        state = to_default_precision(jax.jit(init)(jax.random.key(seed)))
        held = {"beta": jnp.ones_like(state.hparams["beta"])} if fixed else {}
        return dataclasses.replace(state, hparams=state.hparams | held)

    def readouts(state):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        (logits, aux), _ = model.apply(
            variables,
            probe["x"],
            True,
            inspect=layers,
            rngs={"dropout": state.key},
            mutable=["batch_stats"],
        )
        spikes = [aux.spikes[layer].astype(logits.dtype).ravel() for layer in layers]
        return {
            "parameters": ravel_pytree(state.params)[0],
            "logits": logits.mean(axis=1),
            "spikes": jnp.concatenate(spikes),
        }

    def push(state, batch):
        return gradients(state, batch)["chaos"]

    return TrainingMap(start, lambda state, batch: train_step(state, batch)[0], ratio, push, readouts)


def forced(run: TrainingMap, twin: TrainingMap, given: Sequence[Batch], steps: int) -> TrainingMap:
    """A map with a force in it, which is as large as the term's pushes in its twin from the same start.

    The root mean square of each tensor's push, at each of so many steps on the given batches, z held or annealed alike.
    """

    def start(seed, fixed):
        state, step, sizes = twin.start(seed, fixed), jax.jit(twin.step), []
        for batch in itertools.islice(itertools.cycle(given), steps):
            batch = jax.tree.map(_widened, batch)
            sizes.append(_size(twin.push, state, batch))
            state = step(state, batch)
        forcing = jax.tree.map(lambda *each: jnp.stack(each), *sizes)
        begun = run.start(seed, fixed)
        return dataclasses.replace(begun, hparams=begun.hparams | {"forcing": forcing})

    return run._replace(start=start)


@functools.partial(jax.jit, static_argnames="push")
def _size(push, state, batch):
    return jax.tree.map(lambda one: jnp.sqrt(jnp.mean(one**2)), push(state, batch))


def strength(start: learner.State) -> Callable[[learner.State, jax.Array], learner.State]:
    """The knob of :func:`dynamics.steered` that turns z of all taps, from what it is in ``start``."""
    base = start.hparams["z0"]
    return lambda state, factor: dataclasses.replace(
        state, hparams=state.hparams | {"z0": {tap: (z * factor).astype(z.dtype) for tap, z in base.items()}}
    )


def measure(
    run: TrainingMap,
    given: Sequence[Batch],
    *,
    seed: int = 0,
    steps: int = 300,
    warmup: int = 100,
    n: int = 3,
    deltas: Sequence[float] = DELTAS,
) -> dict[str, Any]:
    """All instruments on one start of a map, in float64, as plain numbers.

    Args:
      run: of :func:`make`; compiled once over calls.
      given: batches, repeated in their order (:func:`batches`).
      seed: of the start.
      steps: of each run.
      warmup: first steps that exponents do not count.
      n: how many tangent exponents.
      deltas: of the finite-size exponents.

    Returns:
      At fixed z: ``tangent`` exponents with standard errors, how many are ``neutral``, ``finite_size`` exponents
      of the state, of its parameters alone and of the logits of the probe batch, with how many of its ``spikes`` differ
      a step, ``counted`` steps of all these, ``flip_ratio`` at the start and after the warm-up, and ``size``, the norm
      of the parameters after all steps over that at the start, NaN where the last step was not finite. Of the annealed
      run: ``cumulated`` local exponents, and ``apart``, the distances of a pair that starts 1e-8 apart and of one 1e-2
      apart, in parameters, logits and spikes (the square root of how many differ).
    """
    with jax.enable_x64(True):
        given = [jax.tree.map(_widened, batch) for batch in given]
        fixed, annealed = run.start(seed, True), run.start(seed, False)
        all_fed, either = learner.dynamical_leaves(fixed), without_second_moments(fixed)
        pairs = jnp.asarray(_PAIRS)

        def stream(count):
            return itertools.islice(itertools.cycle(given), count)

        exponents, errors, _ = dynamics.lyapunov(
            run.step, fixed, stream(steps), n, warmup=warmup, dynamical_leaves=all_fed
        )
        sizes, seen = dynamics.finite_size_readouts(
            run.step, fixed, stream(steps), jnp.asarray(deltas), run.readouts, warmup=warmup, dynamical_leaves=either
        )
        local = dynamics.lyapunov(run.step, annealed, stream(steps), 1, dynamical_leaves=all_fed)[2]
        apart = dynamics.separation(run.step, annealed, stream(steps), pairs, run.readouts, dynamical_leaves=either)
        warm, last = _later(run, fixed, stream(steps), warmup)
        plain = {
            "tangent": {"exponents": exponents, "stderr": errors},
            "neutral": jnp.sum(jnp.abs(exponents) < jnp.maximum(2 * errors, classify.NEUTRAL)),
            "finite_size": {"deltas": np.asarray(deltas), "exponents": sizes[0], "stderr": sizes[1]}
            | {name: {"exponents": seen[name].exponents, "stderr": seen[name].stderr} for name in _GROWING}
            | {"spikes": jnp.mean(seen["spikes"].distances ** 2, axis=0)},
            "counted": steps - warmup,
            "cumulated": jnp.cumsum(local[:, 0]),
            "apart": {"deltas": pairs} | apart,
            "flip_ratio": {
                name: {part: run.flip_ratio(part, state, given[0]) for part in flip_meter.PARTS}
                for name, state in (("start", fixed), ("warm", warm))
            },
            "size": jnp.where(last.bad_steps > 0, jnp.nan, _norm(last) / _norm(fixed)),
        }
        return jax.tree.map(lambda a: np.asarray(a).tolist(), plain)


def _later(run, state, stream, warmup):
    """The states after the warm-up and after all steps."""
    step, warm = jax.jit(run.step), state
    for done, batch in enumerate(stream, start=1):
        state = step(state, batch)
        warm = state if done == warmup else warm
    return warm, state


def _norm(state):
    return jnp.linalg.norm(ravel_pytree(state.params)[0])


# Read-outs whose growth is told; distances of the pairs.
_GROWING, _PAIRS = ("parameters", "logits"), (1e-8, 1e-2)


def to_default_precision(state: Any) -> Any:
    """A state with its numbers in the default precision; Flax makes its parameters in float32."""
    return jax.tree.map(_widened, state)


def _widened(leaf):
    return leaf.astype(jnp.result_type(float)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def without_second_moments(state):
    """What feeds back and may be moved either way: Adam's second moments may not."""
    mask = learner.dynamical_leaves(state)
    return dataclasses.replace(mask, opt_state=optimizer.without_second_moments(mask.opt_state))
