"""The loss of a network with its chaos terms, and its gradient.

L = L_task(logits, y) + firing R(rates) + sum over taps of  z_tap term(h_tap)

R is :func:`csbp_jax.losses.rates_outside`. Without the last sum, L is the plain loss.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from csbp_jax import chaos, controls, losses
from csbp_jax.config import Config, ConfigError
from csbp_jax.learner import measures
from csbp_jax.learner.network import Auxiliary
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import Batch, State, lengths_of


class Outcome(NamedTuple):
    """The auxiliary output of the objective.

    plain_loss, chaos_loss: the two parts of the loss. metrics: of ``metrics.jsonl``. batch_stats: the running
    statistics after the forward pass.
    """

    plain_loss: jax.Array
    chaos_loss: jax.Array
    metrics: dict[str, Any]
    batch_stats: Any


LossAndGradient = tuple[tuple[jax.Array, Outcome], optax.Params]
"""``((loss, outcome), gradient)``, as ``jax.value_and_grad(..., has_aux=True)`` returns it."""


def objective(recipe: Recipe, params: optax.Params, state: State, batch: Batch) -> tuple[jax.Array, Outcome]:
    """Compute L of a batch at ``params``, with z of the state's step.

    Raises:
      ConfigError: the network returned terms of other taps than the state has strengths for, or no rates although
        ``loss.firing`` is on.
    """
    config, hparams, lengths = recipe.config, state.hparams, lengths_of(batch)
    term = controls.TERMS[config.chaos.term] if recipe.term is None else recipe.term

    def tap(tensor: jax.Array, **where: jax.Array) -> jax.Array:
        """Return the chaos term of a tensor; with ``where``, as of ``jnp.mean``, if it has padding."""
        return term(
            tensor, hparams["target"], hparams["scale"], cut=config.chaos.cut, reduce=config.chaos.reduce, **where
        )

    (logits, aux), mutated = recipe.model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        batch["x"],
        True,  # train
        tap=tap,
        taps=config.chaos.taps,
        rngs={"dropout": jax.random.fold_in(state.key, state.step)},
        mutable=["batch_stats"],
        **neuron_override(state),
        **lengths,
    )
    _check_outputs(aux, config, hparams["z0"])
    labels = losses.smoothed(batch["y"], logits.shape[-1], hparams.get("smoothing", config.loss.smoothing))
    plain = {"task_loss": recipe.loss(logits, labels, **lengths)}
    if config.loss.firing:
        plain["firing_loss"] = config.loss.firing * losses.rates_outside(
            aux.rates, config.loss.firing_low, config.loss.firing_high
        )
    z = {name: chaos.strength(state.step, z0, hparams["beta"], hparams["every"]) for name, z0 in hparams["z0"].items()}
    plain_loss = functools.reduce(jnp.add, plain.values())
    chaos_loss = sum((z[name] * term for name, term in aux.terms.items()), jnp.zeros_like(plain["task_loss"]))
    metrics = {
        **plain,
        "chaos_loss": chaos_loss,
        "z": z,
        **measures.of_batch(config, logits, batch["y"], **lengths),
        "rates": aux.rates,
    }
    return plain_loss + chaos_loss, Outcome(plain_loss, chaos_loss, metrics, mutated.get("batch_stats", {}))


def _check_outputs(aux: Auxiliary, config: Config, taps: Iterable[str]) -> None:
    if set(aux.terms) != set(taps):
        raise ConfigError(f"chaos.taps: {', '.join(taps)}, but the network gave terms of: {', '.join(aux.terms)}")
    if config.loss.firing and not aux.rates:
        raise ConfigError(f"loss.firing: {config.loss.firing}, but the network gave no rates; set it to 0")


def value_and_grad(recipe: Recipe, state: State, batch: Batch) -> LossAndGradient:
    """Compute the loss and its gradient, in one pass over the batch."""
    return jax.value_and_grad(lambda p: objective(recipe, p, state, batch), has_aux=True)(state.params)


def separate_gradients(recipe: Recipe, state: State, batch: Batch) -> dict[str, optax.Params]:
    """Compute the gradients of the plain loss and of z times the chaos term: ``{"task": tree, "chaos": tree}``."""

    def both_losses(params: optax.Params) -> tuple[jax.Array, jax.Array]:
        _, outcome = objective(recipe, params, state, batch)
        return outcome.plain_loss, outcome.chaos_loss

    (plain_loss, chaos_loss), pull_back = jax.vjp(both_losses, state.params)
    (task_gradient,) = pull_back((jnp.ones_like(plain_loss), jnp.zeros_like(chaos_loss)))
    if not state.hparams["z0"]:
        # Without a term its gradient would be another reverse pass, over zeros.
        return {"task": task_gradient, "chaos": jax.tree.map(jnp.zeros_like, state.params)}
    (chaos_gradient,) = pull_back((jnp.zeros_like(plain_loss), jnp.ones_like(chaos_loss)))
    return {"task": task_gradient, "chaos": chaos_gradient}


def neuron_override(state: State) -> dict[str, Any]:
    """Return a neuron among the hyperparameters, which stands in for the model's own."""
    return {"neuron": state.hparams["neuron"]} if "neuron" in state.hparams else {}
