"""Sharpness-aware minimisation (SAM; Foret et al., ICLR 2021, arXiv:2010.01412): the gradient at perturbed weights.

    e = rho g / |g|,   g = grad L(w)          the step of length rho that raises the loss most, to first order
    w <- w - lr optimiser(grad L(w + e))

L is the loss as a step sees it, with regularisers and the chaos term, so both gradients contain the term; the rule of
CBP, which is not a loss, moves the weights as without SAM. Both gradients are of the same batch, with the same dropout.
Metrics, the loss and batch statistics are those of the pass at ``w``; the norm of the gradient, and whether it was
clipped, are those at ``w + e``.

``optax.contrib.sam`` does not serve here. As alternating steps it would count each as a training step, with a batch of
its own; as one step it does not pass ``step``, ``key`` and ``forcing`` to the optimiser, which forces need.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from csbp_jax.learner.objective import LossAndGradient
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import Batch, State

ValueAndGrad = Callable[[Recipe, State, Batch], LossAndGradient]


def sharpness_aware(value_and_grad: ValueAndGrad, recipe: Recipe, state: State, batch: Batch) -> LossAndGradient:
    """Compute the loss, and its gradient at weights moved by ``optimizer.sam_radius`` along the gradient.

    The gradient of accumulated microbatches is averaged before the move, which is therefore that of the whole batch.
    """
    value, gradient = value_and_grad(recipe, state, batch)
    norm = optax.tree.norm(gradient)
    length = recipe.config.optimizer.sam_radius / jnp.where(norm > 0, norm, 1)
    params = jax.tree.map(lambda w, g: w + length.astype(w.dtype) * g, state.params, gradient)
    _, gradient = value_and_grad(recipe, dataclasses.replace(state, params=params), batch)
    # At weights that are NaN, the gradient may be finite, as at any weights without spikes.
    return value, jax.tree.map(lambda g: jnp.where(jnp.isfinite(norm), g, jnp.nan), gradient)
