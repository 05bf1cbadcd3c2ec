"""Training as pure functions of a recipe and a state: ``init``, ``train_step``, ``eval_step``, ``gradients``."""

from csbp_jax.learner.calibration import calibrate
from csbp_jax.learner.network import SpikingNetwork
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import (
    Batch,
    State,
    complete_hyperparameters,
    dynamical_leaves,
    gradient_norms,
    hyperparameter_name,
    hyperparameters,
    lengths_of,
    weights_of,
    with_ema_weights,
    without_second_moments,
)
from csbp_jax.learner.step import eval_step, gradients, init, make, train_step

__all__ = [
    "Batch",
    "Recipe",
    "SpikingNetwork",
    "State",
    "calibrate",
    "complete_hyperparameters",
    "dynamical_leaves",
    "eval_step",
    "gradient_norms",
    "gradients",
    "hyperparameter_name",
    "hyperparameters",
    "init",
    "lengths_of",
    "make",
    "train_step",
    "weights_of",
    "with_ema_weights",
    "without_second_moments",
]
