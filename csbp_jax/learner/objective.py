"""L of a model, and its gradient: at once, with the term in sub-steps, or over parts of the batch.

L = L_task(logits, y) + sum over taps of  z_tap term(h_tap)

CBP's rule is no loss (cbp.py): its kicks are handed out among the metrics, for the learner to add.
"""

import dataclasses

import jax
import jax.numpy as jnp

from csbp_jax import chaos, controls, losses
from csbp_jax.config import ConfigError
from csbp_jax.learner import optimizer


def make(model, loss, config, term):
    """``objective(params, state, batch) -> (L, (metrics, batch_stats))``, of a learner's state."""
    term = controls.TERMS[config.chaos.term] if term is None else term

    def objective(params, state, batch):
        h = state.hparams
        logits_aux, mutated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch["x"],
            True,
            tap=lambda tensor: term(tensor, h["target"], h["scale"], cut=config.chaos.cut, reduce=config.chaos.reduce),
            taps=config.chaos.taps,
            rngs={"dropout": jax.random.fold_in(state.key, state.step)},
            mutable=["batch_stats"],
            **neuron_override(state),
        )
        logits, aux = logits_aux
        if set(aux.terms) != set(h["z0"]):
            raise ConfigError(
                f"chaos.taps: {', '.join(h['z0'])}, but the network gave terms of: {', '.join(aux.terms)}"
            )
        z = {tap: chaos.strength(state.step, z0, h["beta"], h["every"]) for tap, z0 in h["z0"].items()}
        task_loss = loss(logits, losses.smoothed(batch["y"], logits.shape[-1], config.loss.smoothing))
        weighed = {tap: z[tap] * term for tap, term in aux.terms.items()}
        pulls, kicks = ({}, weighed) if config.chaos.term == "cbp" else (weighed, {})
        chaos_loss = sum(pulls.values(), jnp.zeros_like(task_loss))
        metrics = {
            "task_loss": task_loss,
            "chaos_loss": chaos_loss,
            "z": z,
            "kicks": kicks,
            "accuracy": correct(logits, batch["y"]).mean(),
            "rates": aux.rates,
        }
        return task_loss + chaos_loss, (metrics, mutated.get("batch_stats", {}))

    return objective


def value_and_gradient(objective, config, steps_per_epoch):
    """``(state, batch) -> ((L, (metrics, batch_stats)), gradient)``."""
    parts, share = config.chaos.substeps, optimizer.schedule(config.optimizer, config.epochs, steps_per_epoch)

    def whole(state, batch):
        return jax.value_and_grad(lambda p: objective(p, state, batch), has_aux=True)(state.params)

    def in_parts(state, batch):
        def task(params):
            total, (metrics, batch_stats) = objective(params, state, batch)
            return metrics["task_loss"], (total, (metrics, batch_stats))

        def push(carry, _):
            params, pushed = carry
            gradient = jax.grad(lambda p: objective(p, state, batch)[1][0]["chaos_loss"])(params)
            rate = state.hparams["lr"] * share(state.step) / parts
            params = jax.tree.map(lambda p, g: p - rate.astype(p.dtype) * g, params, gradient)
            return (params, jax.tree.map(lambda a, g: a + g / parts, pushed, gradient)), None

        (_, aux), gradient = jax.value_and_grad(task, has_aux=True)(state.params)
        still = jax.tree.map(jnp.zeros_like, state.params)
        (_, pushed), _ = jax.lax.scan(push, (state.params, still), length=parts)
        return aux, jax.tree.map(jnp.add, gradient, pushed)

    def accumulated(state, batch):
        def one(state, batch):
            (total, (metrics, batch_stats)), gradient = whole(state, batch)
            return (total, metrics, gradient), batch_stats

        (total, metrics, gradient), batch_stats = accumulate_gradients(one, state, batch, config.optimizer.accumulate)
        return (total, (metrics, batch_stats)), gradient

    if config.optimizer.accumulate > 1:
        return accumulated
    return whole if parts == 1 else in_parts


def accumulate_gradients(function, state, batch, parts):
    """Means over parts of the batch of what ``function(state, batch) -> (values, batch_stats)`` gives, one after the
    other; the statistics go from part to part. Each part has a key of its own.
    """

    def split(rows):
        # Part a is rows a, a + parts, ...: a batch that is split over devices needs not to be sent around.
        return jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1)

    def given(batch_stats, number, rows):
        key = jax.random.fold_in(state.key, number)
        return function(dataclasses.replace(state, batch_stats=batch_stats, key=key), rows)

    def one(carry, part):
        sums, batch_stats = carry
        values, batch_stats = given(batch_stats, *part)
        return (jax.tree.map(jnp.add, sums, values), batch_stats), None

    rows = jax.tree.map(split, batch)
    shapes, _ = jax.eval_shape(given, state.batch_stats, jnp.int32(0), jax.tree.map(lambda r: r[0], rows))
    none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (sums, batch_stats), _ = jax.lax.scan(one, (none, state.batch_stats), (jnp.arange(parts), rows))
    return jax.tree.map(lambda s: s / parts, sums), batch_stats


def neuron_override(state):
    """A neuron in the hparams stands in for the model's own."""
    return {"neuron": state.hparams["neuron"]} if "neuron" in state.hparams else {}


def correct(logits, labels):
    """``[B]`` bool: the class with the largest time-averaged logit is the label's (most probable) class."""
    if labels.ndim == 2:
        labels = labels.argmax(axis=-1)
    return logits.mean(axis=1).argmax(axis=-1) == labels
