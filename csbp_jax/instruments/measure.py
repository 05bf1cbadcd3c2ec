"""All instruments on one start of a training map."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import dynamics, learner
from csbp_jax.config import ConfigError
from csbp_jax.instruments import classify
from csbp_jax.instruments.training_map import TrainingMap, repeated
from csbp_jax.learner import Batch, State
from csbp_jax.runtime import hardware
from csbp_jax.training import flip_meter


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how finely to measure.

    Attributes:
      steps: of each run.
      warmup: first steps, which the exponents do not count.
      exponents: how many tangent exponents.
      deltas: distances of the finite-size exponents.
    """

    steps: int = 300
    warmup: int = 100
    exponents: int = 3
    deltas: tuple[float, ...] = tuple(float(f"1e{power}") for power in range(-12, 0))


_GROWING = ("parameters", "logits")
"""Read-outs whose growth is reported."""

_PAIRS = (1e-8, 1e-2)
"""Initial distances of the pairs of runs."""


def measure(run: TrainingMap, batches: Sequence[Batch], plan: Plan = Plan(), seed: int = 0) -> dict[str, Any]:
    """Measure one start of a map with all instruments, in float64; plain numbers.

    Args:
      run: of ``training_map.make``; compiled once over calls.
      batches: repeated in their order (``training_map.batches``).
      plan: lengths and distances.
      seed: of the start.

    Returns:
      At fixed z and the peak learning rate: ``tangent`` exponents with standard errors, how many are ``neutral``,
      ``finite_size`` exponents of the state, of its parameters alone and of the logits of the probe batch, with how
      many of its ``spikes`` differ per step, ``counted`` steps of all these, ``flip_ratio`` at the start and after the
      warm-up, and ``size``, the norm of the parameters after all steps over that at the start, NaN where the last step
      was not finite. Of the annealed run: ``cumulated`` local exponents, and ``apart``, the distances of a pair that
      starts 1e-8 apart and of one 1e-2 apart, in parameters, logits and spikes (the square root of how many differ).
      An integer of an I-LIF neuron counts as its spikes. The exponent of logits that are equal in both runs at any
      counted step, as votes of spikes often are, is NaN.

    Raises:
      ConfigError: the network rounds to bfloat16, by which small differences jump; or JAX computes on a TPU, which has
        no float64.
    """
    if (precision := run.recipe.config.model.precision) != "float32":
        raise ConfigError(
            f"model.precision: {precision} is not possible where small differences are measured, which it rounds; "
            "set it to float32"
        )
    with hardware.float64():
        fixed = _of_fixed(run, run.start(seed, True), batches, plan)
        annealed = _of_annealed(run, run.start(seed, False), batches, plan.steps)
        return jax.tree.map(lambda array: np.asarray(array).tolist(), fixed | annealed)


def _of_fixed(run: TrainingMap, start: State, batches: Sequence[Batch], plan: Plan) -> dict[str, Any]:
    """Measure a start at fixed z and the peak learning rate."""
    steps, warmup = plan.steps, plan.warmup
    exponents, errors, _ = dynamics.lyapunov(
        run.step,
        start,
        repeated(batches, steps),
        plan.exponents,
        warmup=warmup,
        dynamical_leaves=learner.dynamical_leaves(start),
    )
    of_state, of_readouts = dynamics.finite_size_readouts(
        run.step,
        start,
        repeated(batches, steps),
        jnp.asarray(plan.deltas),
        run.readouts,
        warmup=warmup,
        dynamical_leaves=learner.without_second_moments(start),
    )
    grown = {name: of_readouts[name] for name in _GROWING}
    step, warm, last = jax.jit(run.step), start, start
    for done, batch in enumerate(repeated(batches, steps), start=1):
        last = step(last, batch)
        warm = last if done == warmup else warm
    first_batch = next(iter(repeated(batches, 1)))
    return {
        "tangent": {"exponents": exponents, "stderr": errors},
        "neutral": jnp.sum(jnp.abs(exponents) < jnp.maximum(2 * errors, classify.NEUTRAL)),
        "finite_size": {"deltas": np.asarray(plan.deltas), "exponents": of_state[0], "stderr": of_state[1]}
        | {name: {"exponents": of.exponents, "stderr": of.stderr} for name, of in grown.items()}
        | {"spikes": jnp.mean(of_readouts["spikes"].distances ** 2, axis=0)},
        "counted": steps - warmup,
        "flip_ratio": {
            name: {part: run.flip_ratio(part, state, first_batch) for part in flip_meter.PARTS}
            for name, state in (("start", start), ("warm", warm))
        },
        "size": jnp.where(last.bad_steps > 0, jnp.nan, _parameter_norm(last) / _parameter_norm(start)),
    }


def _of_annealed(run: TrainingMap, start: State, batches: Sequence[Batch], steps: int) -> dict[str, Any]:
    """Measure a start of the annealed run."""
    leaves = learner.dynamical_leaves(start), learner.without_second_moments(start)
    local = dynamics.lyapunov(run.step, start, repeated(batches, steps), 1, dynamical_leaves=leaves[0])[2]
    pairs = jnp.asarray(_PAIRS)
    distances = dynamics.separation(
        run.step, start, repeated(batches, steps), pairs, run.readouts, dynamical_leaves=leaves[1]
    )
    return {"cumulated": jnp.cumsum(local[:, 0]), "apart": {"deltas": pairs} | distances}


def _parameter_norm(state: State) -> jax.Array:
    return jnp.linalg.norm(ravel_pytree(state.params)[0])
