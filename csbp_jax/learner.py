"""Training as pure functions: ``init``, ``train_step`` and ``eval_step`` of any Linen model, ready for jit and vmap.

    L = L_task(logits, y) + sum over taps of  z_tap term(h_tap)

Everything that a sweep may vary (learning rate, strength, beta, I0, k, the neuron's constants) is a traced leaf of
``state.hparams``, so that K runs with different values share one compilation, and z anneals without another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from csbp_jax import chaos, controls, losses, optimizer
from csbp_jax.config import Config, ConfigError

Batch = dict[str, jax.Array]
Loss = Callable[..., jax.Array]
Term = Callable[..., jax.Array]


@struct.dataclass
class State:
    """All that a run carries from step to step.

    bad_steps counts the non-finite steps in a row; each of them left params, batch_stats and opt_state as they were.
    ema: ``{"params", "batch_stats"}``, moving averages of them, if ``optimizer.ema`` is above 0; else empty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    key: jax.Array
    hparams: dict[str, Any]
    bad_steps: jax.Array
    ema: Any = struct.field(default_factory=dict)


def hyperparameters(config: Config, steps_per_epoch: int = 1) -> dict[str, Any]:
    """The config's traced values: ``{lr, z0: {tap: z0}, beta, every, target, scale}``.

    ``init`` also takes ``neuron``, a pytree such as :class:`csbp_jax.neurons.LIF`, in place of the model's own, and
    ``forcing``, for an optimiser with a force in it (controls.py).
    """
    taps, z0 = config.chaos.taps, config.chaos.z0
    return {
        "lr": config.optimizer.lr,
        "z0": dict(zip(taps, z0 * len(taps) if len(z0) == 1 else z0, strict=True)) if taps else {},
        "beta": config.chaos.beta,
        "every": steps_per_epoch if config.chaos.anneal == "epoch" else 1,
        "target": config.chaos.target,
        "scale": config.chaos.scale,
    }


def make(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: Loss,
    config: Config,
    steps_per_epoch: int = 1,
    term: Term | None = None,
):
    """The three functions of a run.

    Args:
      model: ``apply(variables, x, train, *, tap, taps[, neuron])`` to ``(logits [B, T, C], Aux)``.
      tx: gradient to update for a learning rate of 1 (``optimizer.build``); the update is multiplied by ``lr``. Its
        ``update`` is told ``step``, ``key`` and, if the hparams have it, ``forcing`` (controls.py).
      loss: ``loss(logits, labels, where=None)`` to a scalar mean, e.g. ``losses.rate_cross_entropy``.
      config: gives the taps, kind, cut and reduction of the chaos term, and the input's shape for ``init``.
      steps_per_epoch: for a config that anneals by the epoch; left at 1, its z is multiplied by beta each step.
      term: in place of the config's, called as ``chaos.term``.

    Returns:
      ``init(key, hparams=None) -> State``; what ``hparams`` lacks comes from the config. ``z0`` is one number for all
      taps, or ``{tap: number}``.
      ``train_step(state, batch) -> (State, metrics)``; batch is ``{"x": [B, T or 1, ...], "y": [B] or [B, C]}``.
      ``eval_step(state, batch) -> sums`` over the examples with ``batch["mask"]``: count, correct, loss.
    """
    tx = optax.with_extra_args_support(tx)
    value_and_gradient = _value_and_gradient(_objective(model, loss, config, term), config, steps_per_epoch)

    def init(key: jax.Array, hparams: dict[str, Any] | None = None) -> State:
        hparams = _complete(hparams or {}, config, steps_per_epoch)
        example = jnp.zeros((1, 1, *config.model.input_shape), jnp.result_type(float))
        weights_key, key = jax.random.split(key)
        variables = model.init(weights_key, example, False)
        weights = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        return State(
            step=jnp.int32(0),
            **weights,
            opt_state=tx.init(variables["params"]),
            key=key,
            hparams=hparams,
            bad_steps=jnp.int32(0),
            # Copies: a step donates the state, and a buffer can be given away only once.
            ema=jax.tree.map(jnp.copy, weights) if config.optimizer.ema else {},
        )

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
        (total, (metrics, batch_stats)), gradient = value_and_gradient(state, batch)
        norm = optax.tree.norm(gradient)
        direction, opt_state = tx.update(gradient, state.opt_state, state.params, **_told(state))
        updates = jax.tree.map(lambda u: state.hparams["lr"].astype(u.dtype) * u, direction)
        # A spike is a comparison, and comparisons swallow NaN: the loss of a broken net can be finite. So both.
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        params = optax.apply_updates(state.params, updates)
        new = (params, batch_stats, opt_state, _averaged(state.ema, params, batch_stats, config.optimizer.ema))
        old = (state.params, state.batch_stats, state.opt_state, state.ema)
        params, batch_stats, opt_state, ema = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        metrics |= {"loss": total, "grad_norm": norm, "bad_steps": jnp.where(finite, 0, state.bad_steps + 1)}
        if config.optimizer.clip is not None:
            metrics["clipped"] = (norm > config.optimizer.clip).astype(jnp.float32)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            bad_steps=metrics["bad_steps"],
            ema=ema,
        )
        return state, metrics

    def eval_step(state: State, batch: Batch) -> dict[str, jax.Array]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits, _ = model.apply(variables, batch["x"], False, **_neuron(state))
        mask, count = batch["mask"], batch["mask"].sum()
        return {
            "count": count,
            "correct": (_correct(logits, batch["y"]) & mask).sum(),
            "loss": loss(logits, batch["y"], where=mask) * count,
        }

    return init, train_step, eval_step


def averaged(state: State) -> State:
    """The state with the averages in place of the weights, to be evaluated; not to go on with."""
    return dataclasses.replace(state, **state.ema)


def _averaged(ema, params, batch_stats, decay):
    """``ema <- decay ema + (1 - decay) now``, from the first weights on; nothing where nothing is averaged."""
    return optax.incremental_update({"params": params, "batch_stats": batch_stats}, ema, 1 - decay) if ema else ema


def make_gradients(model: nn.Module, loss: Loss, config: Config, term: Term | None = None):
    """``gradients(state, batch) -> {"task": tree, "chaos": tree}``, of the two losses (z included) just now."""
    objective = _objective(model, loss, config, term)

    def gradients(state: State, batch: Batch) -> dict[str, Any]:
        def parts(params):
            metrics = objective(params, state, batch)[1][0]
            return {"task": metrics["task_loss"], "chaos": metrics["chaos_loss"]}

        values, pull = jax.vjp(parts, state.params)
        basis = {name: {k: jnp.full_like(v, k == name) for k, v in values.items()} for name in values}
        return {name: pull(one)[0] for name, one in basis.items()}

    def accumulated(state: State, batch: Batch) -> dict[str, Any]:
        return _over_parts(lambda s, b: (gradients(s, b), s.batch_stats), state, batch, config.optimizer.accumulate)[0]

    return gradients if config.optimizer.accumulate == 1 else accumulated


def norms(gradients: dict[str, Any]) -> dict[str, jax.Array]:
    """``{"task": norm, "chaos": norm}``: how much the chaos term weighs."""
    return {name: optax.tree.norm(gradient) for name, gradient in gradients.items()}


def fed_back(state: State) -> State:
    """True for the leaves that make training a dynamical system: parameters and moments.

    Not batch norm's running statistics, which training never reads, nor counters, keys and hyperparameters. For
    ``dynamics.lyapunov``.
    """

    def inexact(tree):
        return jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact), tree)

    none = jax.tree.map(lambda _: False, state)
    return dataclasses.replace(none, params=inexact(state.params), opt_state=inexact(state.opt_state))


def _objective(model, loss, config, term):
    """``objective(params, state, batch) -> (L, (metrics, batch_stats))``."""
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
            **_neuron(state),
        )
        logits, aux = logits_aux
        if set(aux.terms) != set(h["z0"]):
            raise ConfigError(
                f"chaos.taps: {', '.join(h['z0'])}, but the network gave terms of: {', '.join(aux.terms)}"
            )
        z = {tap: chaos.strength(state.step, z0, h["beta"], h["every"]) for tap, z0 in h["z0"].items()}
        task_loss = loss(logits, losses.smoothed(batch["y"], logits.shape[-1], config.loss.smoothing))
        chaos_loss = sum((z[tap] * term for tap, term in aux.terms.items()), jnp.zeros_like(task_loss))
        metrics = {
            "task_loss": task_loss,
            "chaos_loss": chaos_loss,
            "z": z,
            "accuracy": _correct(logits, batch["y"]).mean(),
            "rates": aux.rates,
        }
        return task_loss + chaos_loss, (metrics, mutated.get("batch_stats", {}))

    return objective


def _value_and_gradient(objective, config, steps_per_epoch):
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

        (total, metrics, gradient), batch_stats = _over_parts(one, state, batch, config.optimizer.accumulate)
        return (total, (metrics, batch_stats)), gradient

    if config.optimizer.accumulate > 1:
        return accumulated
    return whole if parts == 1 else in_parts


def _over_parts(function, state, batch, parts):
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


def _told(state):
    """What an optax transformation may want to know besides the gradient."""
    # Apart from dropout's (key, step) and the augmentation's, which folds in 1.
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
    forcing = {"forcing": state.hparams["forcing"]} if "forcing" in state.hparams else {}
    return {"step": state.step, "key": key, **forcing}


def _neuron(state):
    """A neuron in the hparams stands in for the model's own."""
    return {"neuron": state.hparams["neuron"]} if "neuron" in state.hparams else {}


def _correct(logits, labels):
    """``[B]`` bool: the class with the largest time-averaged logit is the label's (most probable) class."""
    if labels.ndim == 2:
        labels = labels.argmax(axis=-1)
    return logits.mean(axis=1).argmax(axis=-1) == labels


def _complete(hparams, config, steps_per_epoch):
    known = hyperparameters(config, steps_per_epoch)
    unknown = set(hparams) - {*known, "neuron", "forcing"}
    if unknown:
        raise ConfigError(
            f"hparams: unknown {', '.join(sorted(unknown))}; known are {', '.join(known)}, neuron, forcing"
        )
    hparams = {**known, **hparams}
    if not isinstance(hparams["z0"], dict):
        if not config.chaos.taps:
            raise ConfigError("hparams: z0 is given, but chaos.taps of the config is empty")
        hparams["z0"] = dict.fromkeys(config.chaos.taps, hparams["z0"])
    if set(hparams["z0"]) != set(config.chaos.taps):
        raise ConfigError(
            f"hparams: z0 names {', '.join(hparams['z0'])}, but the taps are {', '.join(config.chaos.taps)}"
        )
    return jax.tree.map(_strong, hparams)


# A Python number is weakly typed and would cost a second compilation after the first step.
def _strong(value):
    value = jnp.asarray(value)
    dtype = jnp.result_type(float) if jnp.issubdtype(value.dtype, jnp.floating) else value.dtype
    return jnp.asarray(value, dtype)
