"""The chaos term in sub-steps too small to overshoot: its pull without its chaos."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from csbp_jax.learner import optimizer
from csbp_jax.learner.objective import LossAndGradient, Outcome, objective
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import Batch, State


def substep_value_and_grad(recipe: Recipe, state: State, batch: Batch) -> LossAndGradient:
    """Add to the gradient of L, the loss without the chaos term C, the mean of C's over N = ``chaos.substeps`` steps.

        g = grad L(p[0]) + 1/N sum_{i < N} grad C(p[i])
        p[i+1] = p[i] - r/N grad C(p[i]),       p[0] = p,       r the learning rate of this step

    The steps follow C alone; where its gradient is constant over them, g is the gradient of the whole loss, L + C.
    """
    count = recipe.config.chaos.substeps
    share = optimizer.schedule(recipe.config.optimizer, recipe.config.epochs, recipe.steps_per_epoch)
    rate = state.hparams["lr"] * share(optimizer.steps_taken(state.opt_state, state.step)) / count

    def task_loss(params: optax.Params) -> tuple[jax.Array, tuple[jax.Array, Outcome]]:
        loss, outcome = objective(recipe, params, state, batch)
        return outcome.plain_loss, (loss, outcome)

    def chaos_loss(params: optax.Params) -> jax.Array:
        return objective(recipe, params, state, batch)[1].chaos_loss

    def descend(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, mean = carry
        gradient = jax.grad(chaos_loss)(params)
        params = jax.tree.map(lambda p, g: p - rate.astype(p.dtype) * g, params, gradient)
        return (params, jax.tree.map(lambda m, g: m + g / count, mean, gradient)), None

    (_, loss_and_outcome), gradient = jax.value_and_grad(task_loss, has_aux=True)(state.params)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (_, mean), _ = jax.lax.scan(descend, (state.params, zeros), length=count)
    return loss_and_outcome, jax.tree.map(jnp.add, gradient, mean)
