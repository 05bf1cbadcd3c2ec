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

from csbp_jax import controls
from csbp_jax.config import Config, ConfigError
from csbp_jax.learner import kicks, objective

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
    value_and_gradient = objective.value_and_gradient(
        objective.make(model, loss, config, term), config, steps_per_epoch
    )

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
        params = kicks.kicked(optax.apply_updates(state.params, updates), metrics.pop("kicks"))
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
        logits, _ = model.apply(variables, batch["x"], False, **objective.neuron_override(state))
        mask, count = batch["mask"], batch["mask"].sum()
        return {
            "count": count,
            "correct": (objective.correct(logits, batch["y"]) & mask).sum(),
            "loss": loss(logits, batch["y"], where=mask) * count,
        }

    return init, train_step, eval_step


def with_ema_weights(state: State) -> State:
    """The state with the averages in place of the weights, to be evaluated; not to go on with."""
    return dataclasses.replace(state, **state.ema)


def _averaged(ema, params, batch_stats, decay):
    """``ema <- decay ema + (1 - decay) now``, from the first weights on; nothing where nothing is averaged."""
    return optax.incremental_update({"params": params, "batch_stats": batch_stats}, ema, 1 - decay) if ema else ema


def make_gradients(model: nn.Module, loss: Loss, config: Config, term: Term | None = None):
    """``gradients(state, batch) -> {"task": tree, "chaos": tree}``, of the two losses (z included) just now."""
    whole = objective.make(model, loss, config, term)

    def gradients(state: State, batch: Batch) -> dict[str, Any]:
        def parts(params):
            metrics = whole(params, state, batch)[1][0]
            return {"task": metrics["task_loss"], "chaos": metrics["chaos_loss"]}

        values, pull = jax.vjp(parts, state.params)
        basis = {name: {k: jnp.full_like(v, k == name) for k, v in values.items()} for name in values}
        return {name: pull(one)[0] for name, one in basis.items()}

    def accumulated(state: State, batch: Batch) -> dict[str, Any]:
        return objective.accumulate_gradients(
            lambda s, b: (gradients(s, b), s.batch_stats), state, batch, config.optimizer.accumulate
        )[0]

    return gradients if config.optimizer.accumulate == 1 else accumulated


def gradient_norms(gradients: dict[str, Any]) -> dict[str, jax.Array]:
    """``{"task": norm, "chaos": norm}``: how much the chaos term weighs."""
    return {name: optax.tree.norm(gradient) for name, gradient in gradients.items()}


def dynamical_leaves(state: State) -> State:
    """True for the leaves that make training a dynamical system: parameters and moments.

    Not batch norm's running statistics, which training never reads, nor counters, keys and hyperparameters, nor what a
    force carries (AR(1) noise), which comes from outside. For ``dynamics.lyapunov``.
    """

    def inexact(tree):
        return jax.tree.map(_inexact, tree, is_leaf=lambda node: isinstance(node, controls.Forced))

    none = jax.tree.map(lambda _: False, state)
    return dataclasses.replace(none, params=inexact(state.params), opt_state=inexact(state.opt_state))


def _inexact(node):
    if isinstance(node, controls.Forced):
        return jax.tree.map(lambda _: False, node)
    return jnp.issubdtype(node.dtype, jnp.inexact)


def _told(state):
    """What an optax transformation may want to know besides the gradient."""
    # Apart from dropout's (key, step) and the augmentation's, which folds in 1.
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
    forcing = {"forcing": state.hparams["forcing"]} if "forcing" in state.hparams else {}
    return {"step": state.step, "key": key, **forcing}


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
