"""The static part of a training step: network, optimiser, losses, and the hooks of the step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from csbp_jax.chaos import ChaosTerm
from csbp_jax.config import Config
from csbp_jax.learner.network import SpikingNetwork
from csbp_jax.learner.state import Batch, State
from csbp_jax.losses import Loss


class Outcome(NamedTuple):
    """The auxiliary output of the objective.

    plain_loss, chaos_loss: the two parts of the loss (objective.py). metrics: of ``metrics.jsonl``. batch_stats: the
    running statistics after the forward pass.
    """

    plain_loss: jax.Array
    chaos_loss: jax.Array
    metrics: dict[str, Any]
    batch_stats: Any


LossAndGradient = tuple[tuple[jax.Array, Outcome], optax.Params]
"""``((loss, outcome), gradient)``, as ``jax.value_and_grad(..., has_aux=True)`` returns it."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The static part of a training step; ``learner.make_recipe`` chooses the hooks by the config.

    Attributes:
      model: the network.
      tx: gradient to update for a learning rate of 1; the step multiplies the update by the traced rate.
      loss: ``loss(logits, targets, where=None[, lengths])``, a scalar mean.
      term: the chaos term of one tapped tensor.
      config: gives the taps, the cut and the reduction of the term, and the input's shape.
      steps_per_epoch: for a config that anneals by the epoch.
      value_and_grad: ``(recipe, state, batch) -> ((loss, outcome), gradient)``: in one pass, in microbatches
        (accumulation.py), or with the term in sub-steps (substeps.py); at perturbed weights (sharpness.py).
    """

    model: SpikingNetwork
    tx: optax.GradientTransformationExtraArgs
    loss: Loss
    term: ChaosTerm
    config: Config
    steps_per_epoch: int
    value_and_grad: Callable[["Recipe", State, Batch], LossAndGradient]
