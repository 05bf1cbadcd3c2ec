"""The static part of a training step: network, optimiser, losses and config."""

import dataclasses

import optax

from csbp_jax.chaos import ChaosTerm
from csbp_jax.config import Config, check
from csbp_jax.learner.network import SpikingNetwork
from csbp_jax.losses import Loss


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The static part of a training step.

    Attributes:
      model: network, called as a :class:`csbp_jax.learner.SpikingNetwork` is.
      tx: optimiser for a learning rate of 1 (``optimizer.build``); its result is multiplied by ``lr``. Its ``update``
        receives ``value`` (the loss), ``step``, ``key`` and, if the hparams have them, ``forcing`` (controls.py) and
        ``weight_decay``.
      loss: ``loss(logits, targets, where=None[, lengths])``, a scalar mean, e.g. ``losses.rate_cross_entropy``.
      config: determines the taps, kind, cut and reduction of the chaos term, how the gradient is computed, the rate of
        ``chaos.substeps`` by ``optimizer.schedule``, which is that of ``tx`` too, and the input's shape for ``init``.
      steps_per_epoch: for that schedule, and for a config that anneals z once per epoch.
      term: replaces the config's chaos term; called like ``chaos.term``.

    Raises:
      ConfigError: a value of the config is not allowed.
    """

    model: SpikingNetwork
    tx: optax.GradientTransformation
    loss: Loss
    config: Config
    steps_per_epoch: int
    term: ChaosTerm | None = None

    def __post_init__(self) -> None:
        check(self.config)
