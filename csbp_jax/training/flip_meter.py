"""The flip meter: how near a training step is to overshooting.

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

from csbp_jax import dynamics
from csbp_jax.config import Config
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


def _gradient(gradients: Gradients, part: str, params: optax.Params, state: State, batch: Batch) -> Any:
    both = gradients(dataclasses.replace(state, params=params), batch)
    return jax.tree.map(lambda a, b: a + b, both["task"], both["chaos"]) if part == "both" else both[part]
