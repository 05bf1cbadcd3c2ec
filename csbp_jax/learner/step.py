"""Training step as pure functions of a recipe and a state, ready for jit, vmap and jvp.

Everything that a sweep may vary (learning rate, strength, beta, I0, k, the neuron's constants) is a traced leaf of
``state.hparams``, so that K runs with different values share one compilation, and annealing z never recompiles.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from csbp_jax.chaos import ChaosTerm
from csbp_jax.config import Config, ConfigError
from csbp_jax.learner import accumulation, measures, objective, sharpness, substeps
from csbp_jax.learner.network import SpikingNetwork
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import (
    OF_UPDATE,
    Batch,
    State,
    complete_hyperparameters,
    hyperparameters,
    lengths_of,
    weights_of,
)
from csbp_jax.losses import Loss


def init(recipe: Recipe, key: jax.Array, hparams: dict[str, Any] | None = None) -> State:
    """Return the initial state, whose hyperparameters are those of ``hparams`` or else of the config.

    ``z0`` is one number for all taps, or ``{tap: number}``.

    Raises:
      ConfigError: a hyperparameter or a tap is unknown, the forcing is a function, or the task has no classes whose
        labels could be smoothed.
    """
    config = recipe.config
    weights_key, key = jax.random.split(key)
    example = jnp.zeros((1, 1, *config.model.input_shape), jnp.result_type(float))
    hparams = complete_hyperparameters(hparams or {}, hyperparameters(config, recipe.steps_per_epoch))
    if "smoothing" in hparams and config.loss.task != "class":
        raise ConfigError(
            f"hparams: smoothing is not possible with loss.task {config.loss.task}, which has no classes; leave it out"
        )
    variables = recipe.model.init(weights_key, example, False)
    weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return State(
        step=jnp.int32(0),
        **weights,
        opt_state=recipe.tx.init(variables["params"]),
        key=key,
        hparams=hparams,
        bad_steps=jnp.int32(0),
        # Copies: a step donates the state, and a buffer can be donated only once.
        ema=jax.tree.map(jnp.copy, weights) if config.optimizer.ema else {},
    )


def train_step(recipe: Recipe, state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
    """Take one training step and return ``(new state, metrics)``.

    A step whose loss or gradient is not finite leaves weights, statistics and moments unchanged; ``bad_steps`` counts
    such steps in a row.
    """
    (loss, outcome), gradient = loss_and_gradient(recipe, state, batch)

    # What a transformation may use beside the gradient (controls.py), with a key of a step in ARCHITECTURE.md.
    arguments = {name: state.hparams[name] for name in OF_UPDATE if name in state.hparams}
    arguments["key"] = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
    direction, opt_state = optax.with_extra_args_support(recipe.tx).update(
        gradient, state.opt_state, state.params, value=loss, step=state.step, **arguments
    )
    # The minus sign of descent is in the direction already, as in every optax transformation.
    updates = jax.tree.map(lambda u: state.hparams["lr"].astype(u.dtype) * u, direction)
    params = optax.apply_updates(state.params, updates)
    weights = {"params": params, "batch_stats": outcome.batch_stats}
    averages = state.ema
    if recipe.config.optimizer.ema:
        averages = optax.incremental_update(weights, averages, 1 - recipe.config.optimizer.ema)

    # A spike is a comparison, which is false for NaN: a broken network can have a finite loss. So check both.
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new = {**weights, "opt_state": opt_state, "ema": averages}
    accepted = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, {name: getattr(state, name) for name in new})
    bad_steps = jnp.where(finite, 0, state.bad_steps + 1)

    metrics = outcome.metrics | {"loss": loss, "grad_norm": norm, "bad_steps": bad_steps}
    if recipe.config.optimizer.clip is not None:
        metrics["clipped"] = (norm > recipe.config.optimizer.clip).astype(jnp.float32)
    # A refused batch counts: z, the keys and the order of the data go on with the step, as the same batch with the same
    # keys would be refused again. The schedule's count waits, as it is in opt_state with the moments.
    return dataclasses.replace(state, step=state.step + 1, bad_steps=bad_steps, **accepted), metrics


def loss_and_gradient(recipe: Recipe, state: State, batch: Batch) -> objective.LossAndGradient:
    """Compute the loss and its gradient: in one pass, in microbatches or with the term in sub-steps; with SAM twice."""
    value_and_grad: sharpness.ValueAndGrad = objective.value_and_grad
    if recipe.config.chaos.substeps > 1:
        value_and_grad = substeps.substep_value_and_grad
    elif recipe.config.optimizer.accumulate > 1:
        value_and_grad = accumulation.accumulated_value_and_grad
    if recipe.config.optimizer.sam_radius:
        return sharpness.sharpness_aware(value_and_grad, recipe, state, batch)
    return value_and_grad(recipe, state, batch)


def eval_step(recipe: Recipe, state: State, batch: Batch) -> dict[str, jax.Array]:
    """Sum ``{count, loss}`` and :func:`measures.sums` where ``batch["mask"]`` is true."""
    override, lengths = objective.neuron_override(state), lengths_of(batch)
    logits, _ = recipe.model.apply(weights_of(state), batch["x"], False, **override, **lengths)
    mask, count = batch["mask"], batch["mask"].sum()
    return {
        "count": count,
        **measures.sums(recipe.config, logits, batch["y"], **lengths, where=mask),
        # The mean over no example is NaN.
        "loss": jnp.where(count > 0, recipe.loss(logits, batch["y"], where=mask, **lengths), 0) * count,
    }


def gradients(recipe: Recipe, state: State, batch: Batch) -> dict[str, optax.Params]:
    """Return the gradients of the plain loss (objective.py) and of z times the chaos term, ``{"task", "chaos"}``.

    The term is differentiated as a whole, even if a training step splits it into sub-steps.
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
    steps_per_epoch: int | None = None,
    term: ChaosTerm | None = None,
) -> tuple[Callable[..., State], Callable[..., tuple[State, dict[str, Any]]], Callable[..., dict[str, jax.Array]]]:
    """Return ``(init, train_step, eval_step)``, bound to one recipe.

    The arguments are those of :class:`Recipe`: ``tx`` is an optimiser for a learning rate of 1, such as
    ``optax.adam(1.0)``, because a step multiplies its update by ``config.optimizer.lr``. Without ``steps_per_epoch`` a
    config may not anneal by the epoch, nor have sub-steps, whose rate is that of its schedule, unless that is constant.
    The functions are ``init(key, hparams=None) -> State``, ``train_step(state, batch) -> (State, metrics)`` and
    ``eval_step(state, batch) -> sums``. ``init`` draws the weights; it does not read the config's ``weights``.

    Raises:
      ConfigError: as :class:`Recipe`; the config anneals, or has sub-steps with a schedule, by epochs of unknown
        length; or ``model.init_rate`` is set, for which there are no examples here.
    """
    if config.model.init_rate is not None:
        raise ConfigError(
            "model.init_rate: learner.make has no examples to measure rates on; take Recipe, init and calibrate"
        )
    if steps_per_epoch is None and config.chaos.taps and config.chaos.anneal == "epoch" and config.chaos.beta < 1:
        raise ConfigError(
            "chaos.anneal: epoch is not possible without steps_per_epoch; give it, or set chaos.anneal to step"
        )
    falls = config.optimizer.schedule != "constant" or config.optimizer.warmup_epochs
    if steps_per_epoch is None and config.chaos.substeps > 1 and falls:
        raise ConfigError(
            f"chaos.substeps: {config.chaos.substeps} is not possible without steps_per_epoch, as their rate is that "
            "of optimizer.schedule; give it, or set optimizer.schedule to constant and optimizer.warmup_epochs to 0"
        )
    recipe = Recipe(model, tx, loss, config, steps_per_epoch or 1, term)
    return (
        lambda key, hparams=None: init(recipe, key, hparams),
        lambda state, batch: train_step(recipe, state, batch),
        lambda state, batch: eval_step(recipe, state, batch),
    )
