"""The config's optimiser as an optax transformation for a learning rate of 1."""

import re
from collections.abc import Callable, Sequence
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

    ``layers`` are the network's, in the order of its forward pass, for ``layer_decay``.
    """
    stages = []
    if config.clip is not None:
        stages.append(optax.clip_by_global_norm(config.clip))
    if config.weight_decay and config.name != "adamw":
        stages.append(_add_decayed_weights(config.weight_decay))
    if config.name == "sgd":
        stages.append(optax.trace(config.momentum))
    else:
        stages.append(optax.scale_by_adam(_B1, _B2, _EPS, eps_root=config.eps_root))
    if config.weight_decay and config.name == "adamw":
        stages.append(_add_decayed_weights(config.weight_decay))
    if config.layer_decay != 1:
        stages.append(scale_by_layer(config.layer_decay, layers))
    stages.append(optax.scale_by_learning_rate(schedule(config, epochs, steps_per_epoch)))
    return optax.chain(*stages)


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
        def group_of(path: tuple[Any, ...], _: Any) -> str:
            return _group(jax.tree_util.keystr(path[:1], simple=True))

        of_leaves = jax.tree_util.tree_map_with_path(group_of, params)
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
    with ``sam_radius``, whose step is no descent.
    """
    if config.layer_decay != 1 or config.sam_radius:
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


_READOUT = "readout"
# optax's defaults for Adam.
_B1, _B2, _EPS = 0.9, 0.999, 1e-8
