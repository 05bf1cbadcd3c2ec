"""The chaos meter: how near a training step is to overshooting, and chaos strength in that unit.

    ratio = lr max Re eig(P J) / (2 (1 + m))       (dynamics.flip_ratio)

with J the Jacobian of the gradient of the task loss, of z times the chaos term, or of both. Weight decay, which adds
itself to all eigenvalues of J, is left out. A term in sub-steps is taken whole. Adam's second moments give its
preconditioner P, and it has none before its first step.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from csbp_jax import chaos, dynamics, learner
from csbp_jax.config import Config, ConfigError
from csbp_jax.learner import optimizer

PARTS = ("task", "chaos", "both")
Ratio = Callable[[str, learner.State, Any], float]


def make(gradients: Callable, config: Config, steps_per_epoch: int) -> Ratio:
    """``ratio(part, state, batch)`` of a run, for a part of PARTS; NaN where it cannot be told.

    Args:
      gradients: ``gradients(state, batch) -> {"task": tree, "chaos": tree}`` (program.functions).
      config: gives the optimiser.
      steps_per_epoch: for its schedule.
    """
    share = optimizer.schedule(config.optimizer, config.epochs, steps_per_epoch)
    # Made once: the same function objects are compiled once.
    of = {part: functools.partial(_gradient, gradients, part) for part in PARTS}

    def ratio(part, state, batch):
        ball = optimizer.heavy_ball(config.optimizer, state.opt_state, int(state.step))
        if ball is None:
            return math.nan
        lr = float(state.hparams["lr"] * share(state.step)) * ball["rate"]
        return dynamics.flip_ratio(of[part], state.params, lr, ball["momentum"], ball["scale"], args=(state, batch))

    return ratio


def z0_in_flips(ratio: Ratio, config: Config, state: learner.State, batch: Any) -> learner.State | None:
    """The state with ``z0`` such that the chaos term's own ratio is now ``config.chaos.z0 beta**n``.

    The ratio of the term is linear in z, so one measurement is enough. None where there is no such z0: the term curves
    nowhere upwards here, or z is 0 by now.
    """
    h = state.hparams
    wanted = float(chaos.strength(state.step, config.chaos.z0[0], h["beta"], h["every"]))
    found = ratio("chaos", state, batch)
    if not (found > 0 and wanted > 0):
        return None
    z0 = jax.tree.map(lambda z: (z * (wanted / found)).astype(z.dtype), h["z0"])
    return dataclasses.replace(state, hparams=h | {"z0": z0})


def begin(ratio: Ratio, config: Config, state: learner.State, batch: Any) -> learner.State:
    """The first state of a run, its z0 in plain units where the config has it in flips.

    Raises:
      ConfigError: there is no such z0.
    """
    if config.chaos.unit == "plain":
        return state
    found = z0_in_flips(ratio, config, state, batch)
    if found is None:
        raise ConfigError(
            "chaos.unit: flip is not possible here: at the first step the term curves nowhere upwards; "
            "give chaos.z0 in the plain unit"
        )
    return found


def _gradient(gradients, part, params, state, batch):
    found = gradients(dataclasses.replace(state, params=params), batch)
    return jax.tree.map(lambda a, b: a + b, found["task"], found["chaos"]) if part == "both" else found[part]
