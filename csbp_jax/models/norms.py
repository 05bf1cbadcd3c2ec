"""Batch norms of spiking networks: over all time steps together, or with parameters or statistics per time step.

All take ``[B, T, ..., C]`` and normalise each channel, ``xhat = (x - mean) / sqrt(var + eps)``:

    ============  ========================  ==============================  ==================================
    norm          statistics over           output                          source
    ============  ========================  ==============================  ==================================
    ``batch``     batch, time, space        ``gamma xhat + beta``           Ioffe & Szegedy 2015; TET, SEW
    ``tdbn``      batch, time, space        ``gamma (a Vth xhat) + beta``   Zheng et al., AAAI 2021
    ``tebn``      batch, time, space        ``p[t] (gamma xhat + beta)``    Duan et al., NeurIPS 2022
    ``bntt``      batch, space at each t    ``gamma[t] xhat``               Kim & Panda, Front. Neurosci. 2021
    ``none``                                ``x``
    ============  ========================  ==============================  ==================================

The conventions are PyTorch's. In training, xhat uses the batch's mean and biased variance (divided by n). In
evaluation it uses the running mean and the running *unbiased* variance (divided by n - 1), updated in every step by
``running = 0.9 running + 0.1 batch``, from 0 and 1. Flax's own batch norm averages the biased variance.

With ``groups`` G > 1 (ghost batch norm: Hoffer et al., NeurIPS 2017) the batch consists of G groups of B/G neighbours,
each normalised by its own statistics in training, as on G devices without communication. The running statistics are
updated by the mean over the groups, as where devices average theirs.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.models import tpu_ops
from csbp_jax.models.static import repeat_over_time

_Variable = nn.Variable[jax.Array]
_Normalised = tuple[jax.Array, jax.Array, jax.Array]

Norm = Callable[..., nn.Module]
"""Constructor of a norm, ``norm(name=...)``, whose result is called as ``(h, train)``."""


class BatchNorm(nn.Module):
    """Batch norm over batch, time and space: ``gamma (gain xhat) + beta``; gamma is initially ``scale``."""

    epsilon: float = 1e-5
    momentum: float = 0.9
    gain: float = 1.0
    groups: int = 1
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, repeats: int = 1) -> jax.Array:
        """Normalise x, each number of which counts ``repeats`` times for the unbiased variance."""
        if train and tpu_ops.on_tpu():
            return self.in_one_pass(x)
        return _normalise(self, x, train, tuple(range(x.ndim - 1)), *self.affine(x), repeats)

    def in_one_pass(self, x: jax.Array) -> jax.Array:
        """Normalise in training with sums of ``x - c`` and its square, where c is the running mean.

            E[x] = c + E[x - c]        var = E[(x - c)^2] - E[x - c]^2

        Any c gives the same numbers and derivatives of any order, and one near the mean loses no digits. The sums do
        not depend on each other, so a convolution computes them as it writes x, and their gradients are one pass too.
        With groups, E is over each group.
        """
        wide = jnp.promote_types(x.dtype, jnp.float32)
        running_mean, running_var = _running(self, x.shape[-1:], wide)
        reference = jax.lax.stop_gradient(running_mean.value)
        offset = x.astype(wide) - jnp.expand_dims(reference, tuple(range(x.ndim - 1)))
        scale, shift = self.affine(offset)
        if self.groups == 1:
            moments = tpu_ops.moments(offset)
        else:
            offset, scale, shift = _grouped(offset, self.groups), scale[None], shift[None]
            axes = tuple(range(1, offset.ndim - 1))
            moments = offset.mean(axes, keepdims=True), jnp.square(offset).mean(axes, keepdims=True)
        mean, square = map(tpu_ops.save, moments)
        var = jnp.maximum(square - jnp.square(mean), 0)  # the rounding of a difference may be below 0
        channels = x.shape[-1]
        new_mean, new_var = (statistic.reshape(-1, channels).mean(0) for statistic in (mean, var))
        n = x.size // (self.groups * channels)
        _update_running(self, n, (running_mean, reference + new_mean), (running_var, new_var))
        factor = scale / jnp.sqrt(var + self.epsilon)
        return (offset * factor + (shift - mean * factor)).reshape(x.shape).astype(x.dtype)

    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return factor and summand of xhat, shaped to broadcast against ``x``."""
        gamma = self.param("scale", nn.initializers.constant(self.scale), x.shape[-1:])
        beta = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return _broadcastable(self.gain * gamma, x), _broadcastable(beta, x)


class TEBN(BatchNorm):
    """Temporal effective batch norm: batch norm times a learned scale per time step, ``p[t]``, initially 1."""

    time_steps: int = 1

    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        _check_steps("tebn", self.time_steps, x)
        p = self.param("p", nn.initializers.ones, (self.time_steps,))
        p = jnp.asarray(p, x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2))
        scale, shift = super().affine(x)
        return p * scale, p * shift


class BNTT(nn.Module):
    """Batch norm through time: statistics and gamma per time step, without beta; ``epsilon`` is the authors'.

    gamma is initially ``scale``.
    """

    time_steps: int = 1
    epsilon: float = 1e-4
    momentum: float = 0.9
    groups: int = 1
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        _check_steps("bntt", self.time_steps, x)
        gamma = self.param("scale", nn.initializers.constant(self.scale), (self.time_steps, x.shape[-1]))
        scale = _broadcastable(gamma, x)
        return _normalise(self, x, train, (0, *range(2, x.ndim - 1)), scale, jnp.zeros_like(scale))


class NoNorm(nn.Module):
    """The input itself, in place of a norm."""

    groups: int = 1
    scale: float = 1.0

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        return x


NORMS = {
    "batch": "batch norm, over batch, time and space",
    "tdbn": "threshold-dependent batch norm: scaled by the threshold",
    "tebn": "temporal effective batch norm: a learned scale per time step",
    "bntt": "batch norm through time: statistics and scale per time step",
    "none": "no norm",
}
"""What :func:`make` makes by name, in words."""


def make(name: str, time_steps: int, threshold: float = 1.0, alpha: float = 1.0, groups: int = 1) -> Norm:
    """Return the constructor of the norm with a name in the table above.

    Args:
      name: ``batch``, ``tdbn``, ``tebn``, ``bntt`` or ``none``.
      time_steps: T, for ``tebn`` and ``bntt``.
      threshold: Vth, for ``tdbn``.
      alpha: a, for ``tdbn``: 1, or ``1/sqrt(2)`` where two normalised currents are added.
      groups: G, the number of groups of the batch that are normalised separately.
    """
    table: dict[str, Norm] = {
        "batch": BatchNorm,
        "tdbn": functools.partial(BatchNorm, gain=alpha * threshold),
        "tebn": functools.partial(TEBN, time_steps=time_steps),
        "bntt": functools.partial(BNTT, time_steps=time_steps),
        "none": NoNorm,
    }
    return functools.partial(table[name], groups=groups)


def over_time(norm: nn.Module, h: jax.Array, train: bool, time_steps: int) -> jax.Array:
    """Apply a norm to ``h [B, T, ...]``; a static h (T = 1) is normalised as if it were repeated over ``time_steps``.

    A norm that is the same at all time steps is applied before the repetition, except on TPUs, where XLA fuses both.
    """
    if h.shape[1] == 1 and type(norm) is BatchNorm and not tpu_ops.on_tpu():
        return repeat_over_time(norm(h, train, time_steps), time_steps)
    normalised: jax.Array = norm(repeat_over_time(h, time_steps), train)
    return normalised


def _normalise(
    module: BatchNorm | BNTT,
    x: jax.Array,
    train: bool,
    axes: tuple[int, ...],
    scale: jax.Array,
    shift: jax.Array,
    repeats: int = 1,
) -> jax.Array:
    """Compute ``scale xhat + shift`` in float32 or wider; in training, update the running statistics.

    axes: those over which the statistics are taken.
    repeats: how often each number counts for the unbiased variance.
    """
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    shape = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    running = _running(module, shape, wide)
    x, scale, shift = (jnp.asarray(a, wide) for a in (x, scale, shift))
    if not train:
        mean, var = (jnp.expand_dims(statistic.value, axes) for statistic in running)
        return ((x - mean) * (scale / jnp.sqrt(var + module.epsilon)) + shift).astype(dtype)
    groups = module.groups
    normalise = functools.partial(_normalise_batch, axes=axes, epsilon=module.epsilon)
    if groups == 1:
        y, mean, var = normalise(x, scale, shift)
    else:
        y, mean, var = jax.vmap(normalise, in_axes=(0, None, None))(_grouped(x, groups), scale, shift)
        y, mean, var = y.reshape(x.shape), mean.mean(0), var.mean(0)
    n = repeats * math.prod(x.shape[axis] for axis in axes) // groups
    _update_running(module, n, (running[0], mean.reshape(shape)), (running[1], var.reshape(shape)))
    return y.astype(dtype)


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """Split the batch into groups of neighbours: ``[B, ...]`` to ``[groups, B / groups, ...]``."""
    if x.shape[0] % groups:
        raise ConfigError(f"model.norm_groups: a batch of {x.shape[0]} cannot be split into {groups} equal groups")
    return x.reshape(groups, -1, *x.shape[1:])


def _normalised_batch(
    x: jax.Array, scale: jax.Array, shift: jax.Array, axes: tuple[int, ...], epsilon: float
) -> _Normalised:
    """Compute ``(scale xhat + shift, mean, biased variance)``, the statistics with the rank of x."""
    mean = tpu_ops.save(x.mean(axes, keepdims=True))
    centred = x - mean
    var = tpu_ops.save(jnp.square(centred).mean(axes, keepdims=True))
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


def _running(module: BatchNorm | BNTT, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[_Variable, _Variable]:
    """Return the running mean and variance, initially 0 and 1."""
    return (
        module.variable("batch_stats", "mean", jnp.zeros, shape, dtype),
        module.variable("batch_stats", "var", jnp.ones, shape, dtype),
    )


def _update_running(
    module: BatchNorm | BNTT, n: int, mean: tuple[_Variable, jax.Array], var: tuple[_Variable, jax.Array]
) -> None:
    """Move the running statistics towards this step's mean and unbiased variance, from the biased one of n numbers."""
    if not module.is_initializing():
        for running, new in (mean, (var[0], var[1] * (n / max(n - 1, 1)))):
            running.value = module.momentum * running.value + (1 - module.momentum) * new


def _broadcastable(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape ``[C]`` or ``[T, C]`` to broadcast against ``x [B, T, ..., C]``."""
    if parameter.ndim == 1:
        return jnp.asarray(parameter, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    steps, channels = parameter.shape
    return jnp.asarray(parameter, x.dtype).reshape(1, steps, *(1,) * (x.ndim - 3), channels)


def _check_steps(name: str, time_steps: int, x: jax.Array) -> None:
    if x.shape[1] != time_steps:
        raise ConfigError(
            f"model.norm: {name} has parameters of {time_steps} time steps (model.time_steps), but the input has "
            f"{x.shape[1]}"
        )
