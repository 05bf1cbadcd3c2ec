"""Batch norm by the statistics of the batch, in the form of the device for which a program is lowered.

On GPUs and TPUs, mean and variance are sums of one pass over x: on a TPU a convolution computes them as it writes x,
and on a GPU fewer kernels move fewer bytes (counted in docs/checks/bench/h100.md). On CPUs the variance is a second
pass, and the reverse pass is written out. The numbers are the same but for rounding.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from csbp_jax.config import ConfigError
from csbp_jax.xla.memory import mesh_of_slices, save
from csbp_jax.xla.platform import by_platform
from csbp_jax.xla.static import repeat_over_time

ONE_PASS = ("gpu", "tpu")
"""Platforms whose programs take the statistics in one pass."""
_Normalised = tuple[jax.Array, jax.Array, jax.Array]


def normalise(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    reference: jax.Array,
    axes: tuple[int, ...],
    epsilon: float,
    groups: int,
    time_steps: int,
) -> _Normalised:
    """Compute ``(scale xhat + shift, mean, biased variance)`` of ``x [B, T, ..., C]``.

    Args:
      x: in float32 or wider; a static one (T = 1) is normalised as if it were repeated over ``time_steps``.
      scale: it and ``shift`` have the rank of x, against which they broadcast.
      shift: added to all.
      reference: a number near the mean for each channel, ``[C]``.
      axes: those over which the statistics are taken.
      epsilon: added to the variance.
      groups: number of groups of neighbours in the batch, each with statistics of its own, whose mean is returned.
      time_steps: T of the result.
    """
    options: dict[str, Any] = {"epsilon": epsilon, "groups": groups, "time_steps": time_steps}
    two_passes = functools.partial(_in_two_passes, axes=axes, **options)
    forms = {}
    if 1 in axes:  # one pass takes the statistics of all time steps together
        for platform in ONE_PASS:
            # On TPU, XLA fuses the repetition of a static x; on a GPU it would write, and read, T times the bytes.
            forms[platform] = functools.partial(_in_one_pass, **options, repeats_first=platform == "tpu")
    return by_platform(x, scale, shift, reference, default=two_passes, **forms)


def normalise_where(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    where: jax.Array,
    axes: tuple[int, ...],
    epsilon: float,
    groups: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Compute ``(scale xhat + shift, mean, unbiased variance, seen)`` by statistics of the elements ``where`` true.

    Arguments as in :func:`normalise`; in the same form on every platform.

    Args:
      where: bool that broadcasts to x.

    Returns:
      ``seen`` is whether there is an element of a statistic; without one, mean and variance are 0. With groups, these
      are means over the groups that have one.
    """
    x_grouped, where = _grouped(x, groups), _grouped(where, groups)
    over = tuple(axis + 1 for axis in axes)
    n = jnp.broadcast_to(where, x_grouped.shape).sum(over, keepdims=True).astype(x.dtype)

    def mean_of(values: jax.Array) -> jax.Array:
        return save(values.sum(over, keepdims=True, where=where) / jnp.maximum(n, 1))

    def over_groups(statistic: jax.Array) -> jax.Array:
        return (statistic.sum(0) / jnp.maximum((n > 0).sum(0), 1)).squeeze(axes)

    mean = mean_of(x_grouped)
    centred = x_grouped - mean
    var = mean_of(jnp.square(centred))
    y = (centred * (scale[None] / jnp.sqrt(var + epsilon)) + shift[None]).reshape(x.shape)
    return y, over_groups(mean), over_groups(var * n / jnp.maximum(n - 1, 1)), (n > 0).any(0).squeeze(axes)


def over_time(norm: Callable[[jax.Array], jax.Array], x: jax.Array, time_steps: int) -> jax.Array:
    """Apply an elementwise norm to x, and repeat a static one over ``time_steps``: on TPU before, as XLA fuses both."""
    repeat = functools.partial(repeat_over_time, time_steps=time_steps)
    if x.shape[1] > 1:
        return norm(x)
    return by_platform(x, tpu=lambda x: norm(repeat(x)), default=lambda x: repeat(norm(x)))


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """Split the batch into groups of neighbours: ``[B, ...]`` to ``[groups, B / groups, ...]``."""
    if x.shape[0] % groups:
        raise ConfigError(f"model.norm_groups: a batch of {x.shape[0]} cannot be split into {groups} equal groups")
    return x.reshape(groups, -1, *x.shape[1:])


# --- one pass -----------------------------------------------------------------------------------------------------


def _in_one_pass(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    reference: jax.Array,
    epsilon: float,
    groups: int,
    time_steps: int,
    repeats_first: bool,
) -> _Normalised:
    """Normalise with sums of ``x - c`` and its square, where c is the reference.

        E[x] = c + E[x - c]        var = E[(x - c)^2] - E[x - c]^2

    Any c gives the same numbers and derivatives of any order, and one near the mean loses no digits. The sums do not
    depend on each other, so a convolution computes them as it writes x, and their gradients are one pass too. With
    groups, E is over each group. A static x is repeated before it is normalised, or after.
    """
    if repeats_first:
        x = repeat_over_time(x, time_steps)
    offset = x - jnp.expand_dims(lax.stop_gradient(reference), tuple(range(x.ndim - 1)))
    if groups == 1:
        both = moments(offset)
    else:
        offset, scale, shift = _grouped(offset, groups), scale[None], shift[None]
        axes = tuple(range(1, offset.ndim - 1))
        both = offset.mean(axes, keepdims=True), jnp.square(offset).mean(axes, keepdims=True)
    mean, square = map(save, both)
    var = jnp.maximum(square - jnp.square(mean), 0)  # the rounding of a difference may be below 0
    factor = scale / jnp.sqrt(var + epsilon)
    y = (offset * factor + (shift - mean * factor)).reshape(x.shape)
    new_mean, new_var = (statistic.reshape(-1, x.shape[-1]).mean(0) for statistic in (mean, var))
    return repeat_over_time(y, time_steps), reference + new_mean, new_var


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the means of x ``[B, ..., C]`` and of its square over all axes but the last, which are kept with length 1.

    Over several slices the two pass between them together; left alone, XLA reads x twice and sends one after the other.
    """

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        return x.mean(axes, keepdims=True), jnp.square(x).mean(axes, keepdims=True)

    mesh = mesh_of_slices(x)
    if mesh is None:
        return both(x)

    return jax.shard_map(
        lambda x: tuple(lax.pmean(jnp.stack(both(x)), mesh.axis_names)),
        mesh=mesh,
        in_specs=PartitionSpec(mesh.axis_names),
        out_specs=(PartitionSpec(), PartitionSpec()),
    )(x)


# --- two passes ---------------------------------------------------------------------------------------------------


def _in_two_passes(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    _: jax.Array,
    axes: tuple[int, ...],
    epsilon: float,
    groups: int,
    time_steps: int,
) -> _Normalised:
    """Normalise, and then repeat what is static."""
    normalised = functools.partial(_normalise_batch, axes=axes, epsilon=epsilon)
    if groups == 1:
        y, mean, var = normalised(x, scale, shift)
    else:
        y, mean, var = jax.vmap(normalised, in_axes=(0, None, None))(_grouped(x, groups), scale, shift)
        y, mean, var = y.reshape(x.shape), mean.mean(0), var.mean(0)
    mean, var = (statistic.squeeze(axes) for statistic in (mean, var))
    return repeat_over_time(y, time_steps), mean, var


def _normalised_batch(
    x: jax.Array, scale: jax.Array, shift: jax.Array, axes: tuple[int, ...], epsilon: float
) -> _Normalised:
    """Compute ``(scale xhat + shift, mean, biased variance)``, the statistics with the rank of x."""
    mean = save(x.mean(axes, keepdims=True))
    centred = x - mean
    var = save(jnp.square(centred).mean(axes, keepdims=True))
    return centred * (scale / jnp.sqrt(var + epsilon)) + shift, mean, var


def _normalise_batch_forward(x: jax.Array, scale: jax.Array, *rest: Any) -> tuple[_Normalised, tuple[jax.Array, ...]]:
    y, mean, var = _normalised_batch(x, scale, *rest)
    return (y, mean, var), (x, scale, mean, var)


def _normalise_batch_backward(
    axes: tuple[int, ...], epsilon: float, residuals: tuple[jax.Array, ...], bars: _Normalised
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute the cotangents in two sums and one pass over the array; JAX's own take a sum and an array more.

    With ``a = scale / sqrt(var + eps)``, sums over ``axes``, and n numbers in each:

        x_bar = a y_bar - sum(a y_bar) / n - (x - mean) sum(a y_bar (x - mean)) / (n (var + eps))

    and what the cotangents of mean and variance add.
    """
    x, scale, mean, var = residuals
    y_bar, mean_bar, var_bar = bars
    n = math.prod(x.shape[axis] for axis in axes)
    factor, centred = scale / jnp.sqrt(var + epsilon), x - mean
    over = tuple(axis for axis, length in enumerate(scale.shape) if length == 1)
    first = y_bar.sum(over, keepdims=True)
    second = (y_bar * centred).sum(over, keepdims=True)
    constant = (mean_bar - (factor * first).sum(axes, keepdims=True)) / n
    slope = (2 * var_bar - (factor * second).sum(axes, keepdims=True) / (var + epsilon)) / n
    return factor * y_bar + constant + centred * slope, second / jnp.sqrt(var + epsilon), first


_normalise_batch = jax.custom_vjp(_normalised_batch, nondiff_argnums=(3, 4))
_normalise_batch.defvjp(_normalise_batch_forward, _normalise_batch_backward)
