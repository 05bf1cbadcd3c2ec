"""Training as pure functions of a state: ``init``, ``train_step``, ``eval_step``, ``gradients``."""

from csbp_jax.learner.step import (
    Batch,
    Loss,
    State,
    Term,
    dynamical_leaves,
    gradient_norms,
    hyperparameters,
    make,
    make_gradients,
    with_ema_weights,
)

__all__ = [
    "Batch",
    "Loss",
    "State",
    "Term",
    "dynamical_leaves",
    "gradient_norms",
    "hyperparameters",
    "make",
    "make_gradients",
    "with_ema_weights",
]
