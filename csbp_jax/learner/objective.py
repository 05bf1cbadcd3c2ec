"""The loss of a network with its chaos terms, and its gradient.

L = L_task(logits, y) + firing R(rates) + membrane E(membranes) + sum over taps of  z_tap term(h_tap)
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from csbp_jax import chaos, losses
from csbp_jax.config import ConfigError
from csbp_jax.learner import measures
from csbp_jax.learner.network import Auxiliary
from csbp_jax.learner.recipe import LossAndGradient, Outcome, Recipe
from csbp_jax.learner.state import Batch, State, lengths_of


def objective(recipe: Recipe, params: optax.Params, state: State, batch: Batch) -> tuple[jax.Array, Outcome]:
    """Compute the loss of a batch at ``params``, with z of the state's step.

    Raises:
      ConfigError: the network returned terms of other taps than the state has strengths for, or no membrane terms
        although ``loss.membrane`` is on, or no rates although ``loss.firing`` is.
    """
    config, hparams, lengths = recipe.config, state.hparams, lengths_of(batch)
    aux: Auxiliary
    (logits, aux), mutated = recipe.model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch["x"],
        True,
        tap=lambda tensor, **where: recipe.term(
            tensor, hparams["target"], hparams["scale"], cut=config.chaos.cut, reduce=config.chaos.reduce, **where
        ),
        taps=config.chaos.taps,
        rngs={"dropout": jax.random.fold_in(state.key, state.step)},
        mutable=["batch_stats"],
        **neuron_override(state),
        **({"membrane_term": losses.membrane_error} if config.loss.membrane else {}),
        **lengths,
    )
    if set(aux.terms) != set(hparams["z0"]):
        raise ConfigError(
            f"chaos.taps: {', '.join(hparams['z0'])}, but the network gave terms of: {', '.join(aux.terms)}"
        )
    labels = losses.smoothed(batch["y"], logits.shape[-1], hparams.get("smoothing", config.loss.smoothing))
    task_loss = recipe.loss(logits, labels, **lengths)
    z = {tap: chaos.strength(state.step, z0, hparams["beta"], hparams["every"]) for tap, z0 in hparams["z0"].items()}
    terms = {tap: z[tap] * term for tap, term in aux.terms.items()}
    chaos_loss = sum(terms.values(), jnp.zeros_like(task_loss))
    metrics = {
        "task_loss": task_loss,
        "chaos_loss": chaos_loss,
        "z": z,
        **measures.of_batch(config, logits, batch["y"], **lengths),
        "rates": aux.rates,
    }
    if config.loss.firing:
        if not aux.rates:
            raise ConfigError(f"loss.firing: {config.loss.firing}, but the network gave no rates; set it to 0")
        metrics["firing_loss"] = config.loss.firing * losses.rates_outside(
            aux.rates, config.loss.firing_low, config.loss.firing_high
        )
    if config.loss.membrane:
        if not aux.membrane_terms:
            raise ConfigError(
                f"loss.membrane: {config.loss.membrane}, but the network gave no membrane terms; set it to 0"
            )
        metrics["membrane_loss"] = config.loss.membrane * jnp.mean(jnp.stack(list(aux.membrane_terms.values())))
    return plain_loss(metrics) + chaos_loss, Outcome(metrics, mutated.get("batch_stats", {}), terms)


def plain_loss(metrics: dict[str, Any]) -> jax.Array:
    """Return the loss without the chaos term: that of the task, and those of firing rates and membranes, if on."""
    loss: jax.Array = metrics["task_loss"]
    for regulariser in ("firing_loss", "membrane_loss"):
        loss = loss + metrics[regulariser] if regulariser in metrics else loss
    return loss


def value_and_grad(recipe: Recipe, state: State, batch: Batch) -> LossAndGradient:
    """Compute the loss and its gradient, in one pass over the batch."""
    return jax.value_and_grad(lambda p: objective(recipe, p, state, batch), has_aux=True)(state.params)


def separate_gradients(recipe: Recipe, state: State, batch: Batch) -> dict[str, optax.Params]:
    """Compute the gradients of the plain loss and of z times the chaos term: ``{"task": tree, "chaos": tree}``."""

    def task_and_chaos(params: optax.Params) -> dict[str, jax.Array]:
        _, outcome = objective(recipe, params, state, batch)
        return {"task": plain_loss(outcome.metrics), "chaos": outcome.metrics["chaos_loss"]}

    values, pull_back = jax.vjp(task_and_chaos, state.params)
    cotangents = {name: {k: jnp.full_like(v, k == name) for k, v in values.items()} for name in values}
    if not state.hparams["z0"]:
        # Without a term its gradient would be another reverse pass, over zeros.
        return {"task": pull_back(cotangents["task"])[0], "chaos": jax.tree.map(jnp.zeros_like, state.params)}
    return {name: pull_back(cotangent)[0] for name, cotangent in cotangents.items()}


def neuron_override(state: State) -> dict[str, Any]:
    """Return a neuron among the hyperparameters, which stands in for the model's own."""
    return {"neuron": state.hparams["neuron"]} if "neuron" in state.hparams else {}
