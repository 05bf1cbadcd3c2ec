"""Gradients accumulated over microbatches, so that a batch needs the memory of one of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from csbp_jax.learner.objective import LossAndGradient, value_and_grad
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import Batch, State

Tree = TypeVar("Tree")


def accumulated_value_and_grad(recipe: Recipe, state: State, batch: Batch) -> LossAndGradient:
    """Average the loss, its metrics and its gradient over ``optimizer.accumulate`` microbatches."""

    def microbatch_gradient(state: State, batch: Batch) -> tuple[Any, Any]:
        (loss, outcome), gradient = value_and_grad(recipe, state, batch)
        return (loss, outcome._replace(batch_stats=()), gradient), outcome.batch_stats

    (loss, outcome, gradient), batch_stats = accumulate_gradients(
        microbatch_gradient, state, batch, recipe.config.optimizer.accumulate
    )
    return (loss, outcome._replace(batch_stats=batch_stats)), gradient


def accumulate_gradients(
    function: Callable[[State, Batch], tuple[Tree, Any]], state: State, batch: Batch, count: int
) -> tuple[Tree, Any]:
    """Average the values of ``function(state, batch) -> (values, batch_stats)`` over ``count`` microbatches.

    They run one after the other; the statistics pass from one to the next, and each has a key of its own. Microbatches
    count equally: where a mean is over the time steps that are there, as that of the chaos term, a sequence of unequal
    length counts by its share of its microbatch.
    """

    def split(rows: jax.Array) -> jax.Array:
        # Microbatch a is rows a, a + count, ...: a batch that is split over devices stays where it is.
        return jnp.swapaxes(rows.reshape(-1, count, *rows.shape[1:]), 0, 1)

    def run(batch_stats: Any, number: jax.Array, rows: Batch) -> tuple[Tree, Any]:
        key = jax.random.fold_in(state.key, number)
        return function(dataclasses.replace(state, batch_stats=batch_stats, key=key), rows)

    def add(carry: tuple[Tree, Any], microbatch: tuple[jax.Array, Batch]) -> tuple[tuple[Tree, Any], None]:
        sums, batch_stats = carry
        values, batch_stats = run(batch_stats, *microbatch)
        return (jax.tree.map(jnp.add, sums, values), batch_stats), None

    rows = jax.tree.map(split, batch)
    shapes, _ = jax.eval_shape(run, state.batch_stats, jnp.int32(0), jax.tree.map(lambda r: r[0], rows))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (sums, batch_stats), _ = jax.lax.scan(add, (zeros, state.batch_stats), (jnp.arange(count), rows))
    return jax.tree.map(lambda s: s / count, sums), batch_stats
