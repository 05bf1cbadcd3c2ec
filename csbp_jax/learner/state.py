"""The state of a training run, and its hyperparameters as traced leaves."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.tree_util import tree_map_with_path

from csbp_jax import controls
from csbp_jax.config import Config, ConfigError, Traced, marks_by_field
from csbp_jax.learner import optimizer

Batch = dict[str, jax.Array]
"""``{"x": [B, T or 1, ...], "y": [B, ...]}``; for evaluation also ``"mask": [B]``.

Of sequences of unequal length also ``"lengths": [B]`` integers, from 1 to T, of which T is at least 2. What stands
after them in x, and in y if it has targets of every time step, is padding, which changes nothing.
"""


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
    ema: Any = dataclasses.field(default_factory=dict)


OF_UPDATE = ("forcing", "weight_decay")  # arguments of an optimiser's update
_OPTIONAL = ("neuron", *OF_UPDATE, "smoothing")


def hyperparameter_name(field: str) -> str:
    """Return the name of a traced field of the config among the hyperparameters, of which a neuron is one."""
    return "neuron" if field.startswith("model.neuron.") else field.rpartition(".")[2]


# A config or a caller may have whole numbers for them.
_FLOATS = {
    hyperparameter_name(field)
    for field, traced in marks_by_field(Traced).items()
    if np.asarray(traced.stand_in).dtype.kind == "f" and not field.startswith("model.neuron.")
}


def lengths_of(batch: Batch) -> dict[str, jax.Array]:
    """Return the argument ``lengths`` of a network and a loss, or none if the batch has no lengths."""
    return {"lengths": batch["lengths"]} if "lengths" in batch else {}


def weights_of(state: State) -> dict[str, Any]:
    """Return the network's variables: ``{"params", "batch_stats"}``."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def with_ema_weights(state: State) -> State:
    """Return the state with the moving averages in place of the weights, for evaluation only.

    Raises:
      ConfigError: the state has none, as ``optimizer.ema`` is 0.
    """
    if not state.ema:
        raise ConfigError("optimizer.ema: 0, so that the state has no moving averages; set it above 0")
    return dataclasses.replace(state, **state.ema)


def hyperparameters(config: Config, steps_per_epoch: int = 1) -> dict[str, Any]:
    """Return the config's traced values: ``{lr, z0: {tap: z0}, beta, every, target, scale}``.

    ``init`` also takes ``neuron``, a pytree such as :class:`csbp_jax.neurons.LIF`, in place of the model's own;
    ``forcing``, for an optimiser with a force in it (controls.py); and ``weight_decay`` and ``smoothing`` in place of
    the config's, of which that of ``weight_decay`` must be above 0.
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


def complete_hyperparameters(hparams: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters, with a config's ``defaults`` for those that are missing, as new, strongly typed arrays.

    ``z0`` may be a number for all taps. Whole numbers become floats, except in ``every`` and in a neuron.

    Raises:
      ConfigError: a name is unknown, the names in ``z0`` are not the config's taps, or ``forcing`` is a function.
    """
    unknown = set(hparams) - {*defaults, *_OPTIONAL}
    if unknown:
        known = ", ".join((*defaults, *_OPTIONAL))
        raise ConfigError(f"hparams: unknown {', '.join(sorted(unknown))}; known are {known}")
    if callable(hparams.get("forcing")):
        raise ConfigError("hparams: forcing is a function; give it to the force: controls.gaussian(function)")
    hparams, taps = {**defaults, **hparams}, defaults["z0"]
    if not isinstance(hparams["z0"], dict):
        if not taps:
            raise ConfigError("hparams: z0 is given, but chaos.taps of the config is empty")
        hparams["z0"] = dict.fromkeys(taps, hparams["z0"])
    if set(hparams["z0"]) != set(taps):
        raise ConfigError(f"hparams: z0 names {', '.join(hparams['z0'])}, but the taps are {', '.join(taps)}")
    return {name: jax.tree.map(functools.partial(_owned, name in _FLOATS), value) for name, value in hparams.items()}


def _owned(is_float: bool, value: Any) -> jax.Array:
    # A Python number is weakly typed and would cost a second compilation after the first step. A copy: a step may
    # donate the state, and the caller's array, or one that serves all taps, may not be donated.
    value = jnp.asarray(value)
    is_float = is_float or jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.array(value, jnp.result_type(float) if is_float else value.dtype)


def dynamical_leaves(state: State) -> State:
    """Mark the leaves that make training a dynamical system with True: parameters and moments.

    Not batch norm's running statistics, which training never reads, nor counters, keys and hyperparameters, nor what a
    force carries (AR(1) noise), which comes from outside. For ``dynamics.lyapunov``.
    """

    def inexact(path: tuple[Any, ...], node: Any) -> Any:
        if isinstance(node, controls.Forced):
            return jax.tree.map(lambda _: False, node)
        constant = bool(path) and getattr(path[-1], "name", "") in optimizer.CONSTANTS
        return jnp.issubdtype(node.dtype, jnp.inexact) and not constant

    def mask(tree: Any) -> Any:
        return tree_map_with_path(inexact, tree, is_leaf=lambda node: isinstance(node, controls.Forced))

    nothing = jax.tree.map(lambda _: False, state)
    return dataclasses.replace(nothing, params=mask(state.params), opt_state=mask(state.opt_state))


def without_second_moments(state: State) -> State:
    """Return the dynamical leaves that may be perturbed in either direction: Adam's second moments may not."""
    mask = dynamical_leaves(state)
    return dataclasses.replace(mask, opt_state=optimizer.without_second_moments(mask.opt_state))


def gradient_norms(gradients: dict[str, optax.Params]) -> dict[str, jax.Array]:
    """Return norms of the gradients of the plain loss and of the chaos term: ``{"task": norm, "chaos": norm}``."""
    return {name: optax.tree.norm(gradient) for name, gradient in gradients.items()}
