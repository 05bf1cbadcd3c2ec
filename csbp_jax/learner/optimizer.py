"""The config's optimiser as an optax transformation for a learning rate of 1."""

import functools
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from csbp_jax.config import ConfigError, Optimizer


def build(
    config: Optimizer, epochs: int, steps_per_epoch: int, layers: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Return the transformation from gradient to update, for a peak learning rate of 1.

    The learner multiplies the update by its traced ``lr``, so that one compilation serves every learning rate. The
    rate is the last factor of the update, so this equals ``optax.sgd(lr * schedule)`` and the like.

    ``layers`` are the network's, in the order of its forward pass, for ``layer_decay`` and muon.
    """
    rate = schedule(config, epochs, steps_per_epoch)
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    decay = [_add_decayed_weights(config.weight_decay)] if config.weight_decay else []
    in_gradient = config.name in ("sgd", "adam")
    layerwise = [] if config.layer_decay == 1 else [scale_by_layer(config.layer_decay, layers)]
    return optax.chain(
        *clip,
        *(decay if in_gradient else []),
        _direction(config, layers),
        *([] if in_gradient else decay),
        *layerwise,
        optax.scale_by_learning_rate(rate),
    )


def _direction(config: Optimizer, layers: Sequence[str]) -> optax.GradientTransformation:
    """Return the stage that turns a gradient into the direction in which the weights fall."""
    match config.name:
        case "sgd":
            return optax.trace(config.momentum)
        case "lion":
            return optax.scale_by_lion()
        case "muon":
            return optax.contrib.muon(
                -1.0,  # the last stage has the sign
                adam_eps_root=config.eps_root,
                muon_weight_dimension_numbers=functools.partial(_matrices, {*layers[:1], _READOUT}),
                # Updates as large as AdamW's (arXiv:2502.16982), so that one rate serves Muon's and Adam's parameters.
                consistent_rms=0.2,
            )
    return optax.scale_by_adam(_B1, _B2, _EPS, eps_root=config.eps_root)


def _matrices(outer: Collection[str], params: optax.Params) -> Any:
    """Return which axes of a parameter are the rows and columns of the matrix that Muon orthogonalises; None: none.

    These are the kernels of hidden layers: of a convolution, one matrix from all inputs of its window to its outputs.
    The ``outer`` layers, the first and the read-out, and biases, norms and neurons are Adam's, as Muon's author has it
    (github.com/KellerJordan/Muon).
    """

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        layer, name = (jax.tree_util.keystr((key,), simple=True) for key in (path[0], path[-1]))
        hidden = name == "kernel" and leaf.ndim >= 2 and layer not in outer
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if hidden else None

    return jax.tree_util.tree_map_with_path(axes, params)


def _add_decayed_weights(decay: float) -> optax.GradientTransformationExtraArgs:
    """Add the weights times their decay to the update; ``weight_decay`` among the call's arguments is a traced one."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        share = extra.get("weight_decay", decay)
        return jax.tree.map(lambda u, p: u + jnp.asarray(share, u.dtype) * p, updates, params), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def scale_by_layer(decay: float, layers: Sequence[str]) -> optax.GradientTransformation:
    """Scale the update of group i of n by ``decay**(n - i)`` (layer-wise decay, as in BEiT: arXiv:2106.08254).

    The groups are the layers with parameters in their order, of which those of one residual block are one group, and
    last the read-out, with the parameters that are in no layer.

    Raises:
      ConfigError: the network has no layers whose order is known.
    """
    groups = list(dict.fromkeys(map(_group, layers)))
    if not groups:
        raise ConfigError(
            f"optimizer.layer_decay: {decay} is not possible, because this network names no tensors in its Aux, from "
            "which the order of its layers is known; set it to 1"
        )

    def distances(params: optax.Params) -> Any:
        of_leaves = jax.tree_util.tree_map_with_path(
            lambda path, _: _group(jax.tree_util.keystr(path[:1], simple=True)), params
        )
        present = [group for group in groups if group in jax.tree.leaves(of_leaves) and group != _READOUT]
        distance = {group: len(present) - depth for depth, group in enumerate(present)}
        return jax.tree.map(lambda group: distance.get(group, 0), of_leaves)

    scales = {distance: optax.scale(decay**distance) for distance in range(len(groups) + 1)}
    return optax.partition(scales, distances)


def _group(layer: str) -> str:
    """Return the residual block of a layer, or the layer itself, whose neuron may have a name of its own."""
    block = re.match(r"(stage\d+_)?block\d+", layer)
    return block[0] if block else layer.removesuffix("_spike")


def with_gathered_gradients(
    tx: optax.GradientTransformation, gather: Callable[[optax.Updates], optax.Updates]
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation, applied to gradients that ``gather`` has laid out."""
    tx = optax.with_extra_args_support(tx)

    def update(
        gradient: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = tx.update(gather(gradient), state, params, **extra)
        return updates, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def schedule(config: Optimizer, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Return the share of the peak learning rate at step n: linear warm-up, then constant, cosine to 0, or steps.

        n < W     (n + 1) / W
        n >= W    1   or   (1 + cos(pi (n - W) / (N - W))) / 2   or   step_factor ** floor((n - W) / K)

    N, W and K are the numbers of steps in ``epochs``, ``warmup_epochs`` and ``step_epochs``.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    after = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, epochs * steps_per_epoch - warmup),
        "step": lambda: optax.exponential_decay(
            1.0, config.step_epochs * steps_per_epoch, config.step_factor, staircase=True
        ),
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(1 / warmup, 1.0, warmup - 1), after], [warmup])


def steps_taken(opt_state: optax.OptState, otherwise: jax.Array) -> jax.Array:
    """Return the optimiser's own count of its steps, by which it schedules; ``otherwise`` if it has none.

    It is less than the state's ``step`` by the steps that were refused because they were not finite. Of several
    schedules, which count the same steps, it is the first one's.
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_schedule)
    return next((node.count for node in nodes if _is_schedule(node)), otherwise)


def with_steps_taken(opt_state: optax.OptState, count: int | jax.Array) -> optax.OptState:
    """Return the state with ``count`` as the steps by which it schedules."""
    return jax.tree.map(
        lambda node: node._replace(count=jnp.full_like(node.count, count)) if _is_schedule(node) else node,
        opt_state,
        is_leaf=_is_schedule,
    )


def _is_schedule(node: Any) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def heavy_ball(config: Optimizer, opt_state: optax.OptState) -> dict[str, Any] | None:
    """Return the optimiser as heavy-ball descent, for ``dynamics.flip_ratio``: ``{rate, momentum, scale}``.

    rate: multiplies the learning rate of the step. scale: the diagonal of the preconditioner, None for sgd. Adam's
    first moment is a running mean, ``m <- b1 m + (1 - b1) g``, which its t-th step divides by ``1 - b1**t``, hence the
    rate ``(1 - b1) / (1 - b1**t)``; its second moments are taken as constant. None for Adam before its first step, or
    in another optimiser's state, where it has no scale; with ``layer_decay``, whose factors are not known here; and
    with ``sam_radius``, whose step is no descent; and for lion and muon, which are no heavy balls.
    """
    if config.layer_decay != 1 or config.sam_radius or config.name not in ("sgd", "adam", "adamw"):
        return None
    if config.name == "sgd":
        return {"rate": 1.0, "momentum": config.momentum, "scale": None}
    adam = optax.tree.get(opt_state, "ScaleByAdamState")
    # Adam's own count, as a training map may hold the schedule's.
    if adam is None or not (count := int(adam.count)):
        return None
    correction = 1 - _B2**count
    scale = jax.tree.map(lambda v: 1 / (jnp.sqrt(v / correction + config.eps_root) + _EPS), adam.nu)
    return {"rate": (1 - _B1) / (1 - _B1 ** (count + 1)), "momentum": _B1, "scale": scale}


def without_second_moments(mask: optax.OptState) -> optax.OptState:
    """Return a mask of an optimiser's state without Adam's second moments, which must not turn negative."""
    if optax.tree.get(mask, "nu") is None:
        return mask
    return optax.tree.set(mask, nu=jax.tree.map(lambda _: False, optax.tree.get(mask, "nu")))


CONSTANTS = {"ns_coeffs"}
"""Fields of optax's states that are no moments: the coefficients of Muon's polynomial."""
_READOUT = "readout"
# optax's defaults for Adam.
_B1, _B2, _EPS = 0.9, 0.999, 1e-8
