"""Training as pure functions of a recipe and a state, ready for jit, vmap and jvp.

Everything that a sweep may vary (learning rate, strength, beta, I0, k, the neuron's constants) is a traced leaf of
``state.hparams``, so that K runs with different values share one compilation, and z anneals without another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from csbp_jax import controls
from csbp_jax.chaos import ChaosTerm
from csbp_jax.config import Config
from csbp_jax.learner import accumulation, kicks, objective, substeps
from csbp_jax.learner.network import SpikingNetwork
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import Batch, State, complete_hyperparameters, weights_of
from csbp_jax.losses import Loss


def make_recipe(
    model: SpikingNetwork,
    tx: optax.GradientTransformation,
    loss: Loss,
    config: Config,
    steps_per_epoch: int = 1,
    term: ChaosTerm | None = None,
) -> Recipe:
    """Make the recipe of a config, with its way to the gradient and its hook after the update.

    Args:
      model: ``apply(variables, x, train, *, tap, taps[, neuron])`` to ``(logits [B, T, C], Aux)``.
      tx: gradient to update for a learning rate of 1 (``optimizer.build``); the update is multiplied by ``lr``. Its
        ``update`` is given ``step``, ``key`` and, if the hparams have it, ``forcing`` (controls.py).
      loss: ``loss(logits, labels, where=None)`` to a scalar mean, e.g. ``losses.rate_cross_entropy``.
      config: gives the taps, kind, cut and reduction of the chaos term, and the input's shape for ``init``.
      steps_per_epoch: for a config that anneals by the epoch; left at 1, its z is multiplied by beta each step.
      term: in place of the config's, called as ``chaos.term``.
    """
    value_and_grad = objective.value_and_grad
    if config.chaos.substeps > 1:
        value_and_grad = substeps.substep_value_and_grad
    if config.optimizer.accumulate > 1:
        value_and_grad = accumulation.accumulated_value_and_grad
    return Recipe(
        model=model,
        tx=optax.with_extra_args_support(tx),
        loss=loss,
        term=controls.TERMS[config.chaos.term] if term is None else term,
        config=config,
        steps_per_epoch=steps_per_epoch,
        value_and_grad=value_and_grad,
        after_update=kicks.kicked if config.chaos.term == "cbp" else None,
    )


def init(recipe: Recipe, key: jax.Array, hparams: dict[str, Any] | None = None) -> State:
    """Return the first state; hyperparameters that ``hparams`` lacks are the config's.

    ``z0`` is one number for all taps, or ``{tap: number}``.

    Raises:
      ConfigError: a hyperparameter or a tap is unknown.
    """
    config = recipe.config
    weights_key, key = jax.random.split(key)
    example = jnp.zeros((1, 1, *config.model.input_shape), jnp.result_type(float))
    hparams = complete_hyperparameters(hparams or {}, config, recipe.steps_per_epoch)
    variables = recipe.model.init(weights_key, example, False)
    weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return State(
        step=jnp.int32(0),
        **weights,
        opt_state=recipe.tx.init(variables["params"]),
        key=key,
        hparams=hparams,
        bad_steps=jnp.int32(0),
        # Copies: a step donates the state, and a buffer can be given away only once.
        ema=jax.tree.map(jnp.copy, weights) if config.optimizer.ema else {},
    )


def train_step(recipe: Recipe, state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
    """Take one step of training: ``(new state, metrics)``.

    A step whose loss or gradient is not finite leaves weights, statistics and moments as they were, and is counted.
    """
    (loss, outcome), gradient = recipe.value_and_grad(recipe, state, batch)

    direction, opt_state = recipe.tx.update(gradient, state.opt_state, state.params, **_update_arguments(state))
    updates = jax.tree.map(lambda u: state.hparams["lr"].astype(u.dtype) * u, direction)
    params = optax.apply_updates(state.params, updates)
    if recipe.after_update is not None:
        params = recipe.after_update(params, outcome.terms)
    weights = {"params": params, "batch_stats": outcome.batch_stats}
    ema = optax.incremental_update(weights, state.ema, 1 - recipe.config.optimizer.ema) if state.ema else state.ema

    # A spike is a comparison, and comparisons swallow NaN: the loss of a broken net can be finite. So both.
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = {**weights, "opt_state": opt_state, "ema": ema}
    accepted = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, {name: getattr(state, name) for name in new})
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)

    metrics = outcome.metrics | {"loss": loss, "grad_norm": norm, "bad_steps": bad_steps}
    if recipe.config.optimizer.clip is not None:
        metrics["clipped"] = (norm > recipe.config.optimizer.clip).astype(jnp.float32)
    return dataclasses.replace(state, step=state.step + 1, bad_steps=bad_steps, **accepted), metrics


def eval_step(recipe: Recipe, state: State, batch: Batch) -> dict[str, jax.Array]:
    """Sum ``{count, correct, loss}`` over the examples where ``batch["mask"]`` is true."""
    override = objective.neuron_override(state)
    logits, _ = recipe.model.apply(weights_of(state), batch["x"], False, **override)
    mask, count = batch["mask"], batch["mask"].sum()
    return {
        "count": count,
        "correct": (objective.correct(logits, batch["y"]) & mask).sum(),
        "loss": recipe.loss(logits, batch["y"], where=mask) * count,
    }


def gradients(recipe: Recipe, state: State, batch: Batch) -> dict[str, optax.Params]:
    """Return the gradients of the task loss and of z times the chaos term: ``{"task": tree, "chaos": tree}``.

    The term is taken whole, also where a training step takes it in sub-steps.
    """
    count = recipe.config.optimizer.accumulate
    if count == 1:
        return objective.separate_gradients(recipe, state, batch)

    def microbatch(state: State, batch: Batch) -> tuple[dict[str, optax.Params], Any]:
        return objective.separate_gradients(recipe, state, batch), state.batch_stats

    return accumulation.accumulate_gradients(microbatch, state, batch, count)[0]


def make(
    model: SpikingNetwork,
    tx: optax.GradientTransformation,
    loss: Loss,
    config: Config,
    steps_per_epoch: int = 1,
    term: ChaosTerm | None = None,
) -> tuple[Callable[..., State], Callable[..., tuple[State, dict[str, Any]]], Callable[..., dict[str, jax.Array]]]:
    """Return ``(init, train_step, eval_step)`` of one recipe; arguments as :func:`make_recipe`.

    ``init(key, hparams=None) -> State``, ``train_step(state, batch) -> (State, metrics)`` and
    ``eval_step(state, batch) -> sums``.
    """
    recipe = make_recipe(model, tx, loss, config, steps_per_epoch, term)
    return (
        lambda key, hparams=None: init(recipe, key, hparams),
        lambda state, batch: train_step(recipe, state, batch),
        lambda state, batch: eval_step(recipe, state, batch),
    )


def make_gradients(
    model: SpikingNetwork, loss: Loss, config: Config, term: ChaosTerm | None = None
) -> Callable[[State, Batch], dict[str, optax.Params]]:
    """Return ``gradients(state, batch)`` of one recipe; arguments as :func:`make_recipe`."""
    recipe = make_recipe(model, optax.identity(), loss, config, term=term)
    return lambda state, batch: gradients(recipe, state, batch)


def _update_arguments(state: State) -> dict[str, Any]:
    """Return the arguments that an optax transformation may use besides the gradient (controls.py)."""
    # Apart from dropout's (key, step) and the augmentation's, which folds in 1.
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
    forcing = {"forcing": state.hparams["forcing"]} if "forcing" in state.hparams else {}
    return {"step": state.step, "key": key, **forcing}
