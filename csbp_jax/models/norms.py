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

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.models import tpu_ops

_Variable = nn.Variable[jax.Array]

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
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if train and self.groups == 1 and tpu_ops.on_tpu():
            return self.in_one_pass(x)
        centred, deviation = _centre(self, x, train, axes=tuple(range(x.ndim - 1)))
        scale, shift = self.affine(centred)
        # The small factors are combined first: fewer passes over the whole array, and a gradient three times as fast
        # on CPU.
        return (centred * (scale / deviation) + shift).astype(x.dtype)

    def in_one_pass(self, x: jax.Array) -> jax.Array:
        """Normalise in training with sums of ``x - c`` and its square, where c is the running mean.

            E[x] = c + E[x - c]        var = E[(x - c)^2] - E[x - c]^2

        Any c gives the same numbers and derivatives of any order, and one near the mean loses no digits. The sums do
        not depend on each other, so a convolution computes them as it writes x, and their gradients are one pass too.
        """
        wide = jnp.promote_types(x.dtype, jnp.float32)
        running_mean, running_var = _running(self, x.shape[-1:], wide)
        axes = tuple(range(x.ndim - 1))
        reference = jnp.expand_dims(jax.lax.stop_gradient(running_mean.value), axes)
        offset = x.astype(wide) - reference
        mean, square = (tpu_ops.save(h.mean(axes, keepdims=True)) for h in (offset, jnp.square(offset)))
        var = jnp.maximum(square - jnp.square(mean), 0)  # the rounding of a difference may be below 0
        new = ((reference + mean).reshape(-1), var.reshape(-1))
        _update_running(self, math.prod(x.shape[:-1]), (running_mean, new[0]), (running_var, new[1]))
        scale, shift = self.affine(offset)
        factor = scale / jnp.sqrt(var + self.epsilon)
        return (offset * factor + (shift - mean * factor)).astype(x.dtype)

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
        centred, deviation = _centre(self, x, train, axes=(0, *range(2, x.ndim - 1)))
        gamma = self.param("scale", nn.initializers.constant(self.scale), (self.time_steps, x.shape[-1]))
        return (centred * (_broadcastable(gamma, centred) / deviation)).astype(x.dtype)


class NoNorm(nn.Module):
    """The input itself, in place of a norm."""

    groups: int = 1
    scale: float = 1.0

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        return x


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


def _centre(module: BatchNorm | BNTT, x: jax.Array, train: bool, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Compute ``x - mean`` and ``sqrt(var + eps)`` in float32 or wider; in training, update the running statistics."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    shape = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    running_mean, running_var = _running(module, shape, wide)
    x = x.astype(wide)
    if not train:
        mean, var = (jnp.expand_dims(running.value, axes) for running in (running_mean, running_var))
        return x - mean, jnp.sqrt(var + module.epsilon)
    if module.groups > 1:
        return _centre_groups(module, x, axes, (running_mean, running_var))
    mean = tpu_ops.save(x.mean(axes, keepdims=True))
    centred = x - mean
    var = tpu_ops.save(jnp.square(centred).mean(axes, keepdims=True))
    n = math.prod(x.shape[axis] for axis in axes)
    _update_running(module, n, (running_mean, mean.reshape(shape)), (running_var, var.reshape(shape)))
    return centred, jnp.sqrt(var + module.epsilon)


def _running(module: BatchNorm | BNTT, shape: tuple[int, ...], dtype: jnp.dtype) -> tuple[_Variable, _Variable]:
    """Return the running mean and variance, initially 0 and 1."""
    return (
        module.variable("batch_stats", "mean", jnp.zeros, shape, dtype),
        module.variable("batch_stats", "var", jnp.ones, shape, dtype),
    )


def _centre_groups(
    module: BatchNorm | BNTT, x: jax.Array, axes: tuple[int, ...], running: tuple[_Variable, _Variable]
) -> tuple[jax.Array, jax.Array]:
    """Do the same with the statistics of each group; the deviation is that of each example's group, ``[B, ...]``."""
    batch, groups = x.shape[0], module.groups
    if batch % groups:
        raise ConfigError(f"model.norm_groups: a batch of {batch} cannot be split into {groups} equal groups")
    x, shape = x.reshape(groups, batch // groups, *x.shape[1:]), running[0].value.shape
    axes = tuple(axis + 1 for axis in axes)
    mean = tpu_ops.save(x.mean(axes, keepdims=True))
    centred = x - mean
    var = tpu_ops.save(jnp.square(centred).mean(axes, keepdims=True))
    n = math.prod(x.shape[axis] for axis in axes)
    _update_running(module, n, (running[0], mean.mean(0).reshape(shape)), (running[1], var.mean(0).reshape(shape)))
    deviation = jnp.repeat(jnp.sqrt(var + module.epsilon), batch // groups, axis=1)
    return centred.reshape(batch, *x.shape[2:]), deviation.reshape(batch, *deviation.shape[2:])


def _update_running(
    module: BatchNorm | BNTT, n: int, mean: tuple[_Variable, jax.Array], var: tuple[_Variable, jax.Array]
) -> None:
    """Move the running statistics towards this step's mean and biased variance of n numbers."""
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
