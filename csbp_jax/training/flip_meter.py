"""The flip meter: how near a training step is to overshooting, and chaos strength in that unit.

    ratio = lr max Re eig(P J) / (2 (1 + m))       (dynamics.flip_ratio)

with J the Jacobian of the gradient of the task loss, of z times the chaos term, or of both. Weight decay, which adds
itself to all eigenvalues of J, is left out, and so is clipping. A term in sub-steps is taken whole. Adam's second
moments give its preconditioner P; before its first step it has none. With layer decay or SAM there is no ratio.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from csbp_jax import chaos, dynamics
from csbp_jax.config import Config, ConfigError
from csbp_jax.learner import Batch, State, optimizer

PARTS = ("task", "chaos", "both")
"""Gradients that a ratio is taken of: of the task loss, of the chaos term, of their sum."""

Ratio = Callable[[str, State, Batch], float]
Gradients = Callable[[State, Batch], dict[str, optax.Params]]


def make(gradients: Gradients, config: Config, steps_per_epoch: int) -> Ratio:
    """Return ``ratio(part, state, batch)`` of a run, for a part of PARTS; NaN where it is not defined.

    Args:
      gradients: ``gradients(state, batch) -> {"task": tree, "chaos": tree}``.
      config: gives the optimiser.
      steps_per_epoch: for its schedule.
    """
    share = optimizer.schedule(config.optimizer, config.epochs, steps_per_epoch)
    # Made once: dynamics.flip_ratio compiles once per function object.
    gradient_of = {part: functools.partial(_gradient, gradients, part) for part in PARTS}

    def ratio(part: str, state: State, batch: Batch) -> float:
        ball = optimizer.heavy_ball(config.optimizer, state.opt_state)
        if ball is None:
            return math.nan
        step = optimizer.steps_taken(state.opt_state, state.step)
        lr = float(state.hparams["lr"] * share(step)) * ball["rate"]
        return dynamics.flip_ratio(
            gradient_of[part], state.params, lr, ball["momentum"], ball["scale"], args=(state, batch)
        )

    return ratio


def z0_in_flips(ratio: Ratio, config: Config, state: State, batch: Batch) -> State | None:
    """Return the state with ``z0`` such that the chaos term's own ratio is now ``config.chaos.z0 beta**n``.

    The ratio of the term is linear in z, so one measurement is enough. None where no such z0 exists: the term has no
    positive curvature at this state, or z has been annealed to 0.
    """
    h = state.hparams
    target = float(chaos.strength(state.step, config.chaos.z0[0], h["beta"], h["every"]))
    measured = ratio("chaos", state, batch)
    if not (measured > 0 and target > 0):
        return None
    z0 = jax.tree.map(lambda z: (z * (target / measured)).astype(z.dtype), h["z0"])
    return dataclasses.replace(state, hparams=h | {"z0": z0})


def with_plain_z0(ratio: Ratio, config: Config, state: State, batch: Batch) -> State:
    """Return the first state of a run, with its z0 converted from units of the flip where the config has those.

    Raises:
      ConfigError: no such z0 exists.
    """
    if config.chaos.unit == "plain":
        return state
    converted = z0_in_flips(ratio, config, state, batch)
    if converted is None:
        raise ConfigError(
            "chaos.unit: flip is not possible for this run: at the first step the term has no positive curvature; "
            "give chaos.z0 in the plain unit"
        )
    return converted


def before_step(
    ratio: Ratio, config: Config, record: Callable[[int, dict[str, float | None]], None]
) -> Callable[[int, State, Batch], State]:
    """Return the hook that runs before each training step: ``hook(step, state, batch) -> state``, steps counted from 1.

    Before every ``flip_every``-th step it measures the ratios and records them; with ``chaos.unit = "flip"`` it also
    converts z0 again. Without ``flip_every`` it does nothing.
    """

    def hook(step: int, state: State, batch: Batch) -> State:
        if not config.flip_every or (step - 1) % config.flip_every:
            return state
        if config.chaos.unit == "flip":
            state = z0_in_flips(ratio, config, state, batch) or state
        ratios = {part: ratio(part, state, batch) for part in PARTS}
        record(step, {part: value if math.isfinite(value) else None for part, value in ratios.items()})
        return state

    return hook


def _gradient(gradients: Gradients, part: str, params: optax.Params, state: State, batch: Batch) -> Any:
    both = gradients(dataclasses.replace(state, params=params), batch)
    return jax.tree.map(lambda a, b: a + b, both["task"], both["chaos"]) if part == "both" else both[part]
