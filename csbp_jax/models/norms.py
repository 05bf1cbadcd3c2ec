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

Of sequences of unequal length, statistics are those of the time steps that are there. Norms with parameters or
statistics per time step then take sequences that end before the last of them, which stay as they are.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.xla import batch_norm
from csbp_jax.xla.lengths import valid
from csbp_jax.xla.static import repeat_over_time

Norm = Callable[..., nn.Module]
"""Constructor of a norm, ``norm(name=...)``, whose result is called as ``(h, train)``, and with ``lengths`` if any."""


class BatchNorm(nn.Module):
    """Batch norm over batch, time and space: ``gamma (gain xhat) + beta``; gamma is initially ``scale``."""

    epsilon: float = 1e-5
    momentum: float = 0.9
    gain: float = 1.0
    groups: int = 1
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, repeats: int = 1, lengths: jax.Array | None = None) -> jax.Array:
        """Normalise x, and repeat it if it is static."""
        return _normalise(self, x, train, tuple(range(x.ndim - 1)), *self.affine(x), repeats, lengths)

    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return factor and summand of xhat, shaped to broadcast against ``x``."""
        gamma = self.param("scale", nn.initializers.constant(self.scale), x.shape[-1:])
        beta = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        scale, shift = (jnp.asarray(a, x.dtype).reshape(*(1,) * (x.ndim - 1), -1) for a in (self.gain * gamma, beta))
        return scale, shift


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
    def __call__(self, x: jax.Array, train: bool, lengths: jax.Array | None = None) -> jax.Array:
        _check_steps("bntt", self.time_steps, x)
        gamma = self.param("scale", nn.initializers.constant(self.scale), (self.time_steps, x.shape[-1]))
        scale = jnp.asarray(gamma, x.dtype).reshape(1, self.time_steps, *(1,) * (x.ndim - 3), -1)
        return _normalise(self, x, train, (0, *range(2, x.ndim - 1)), scale, jnp.zeros_like(scale), lengths=lengths)


class NoNorm(nn.Module):
    """The input itself, in place of a norm."""

    groups: int = 1
    scale: float = 1.0

    def __call__(self, x: jax.Array, train: bool, lengths: jax.Array | None = None) -> jax.Array:
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


def over_time(
    norm: nn.Module, h: jax.Array, train: bool, time_steps: int, lengths: jax.Array | None = None
) -> jax.Array:
    """Apply a norm to ``h [B, T, ...]``; a static h (T = 1) is normalised as if repeated over ``time_steps``.

    lengths: of sequences of unequal length, ``[B]``; a norm with parameters per time step then sees them padded to all,
    as it sees any that are shorter in evaluation.
    """
    T = h.shape[1]
    more = max(getattr(norm, "time_steps", T) - T, 0)
    if lengths is not None or (more and T > 1 and not train):
        padded: jax.Array = norm(jnp.pad(h, ((0, 0), (0, more), *((0, 0),) * (h.ndim - 2))), train, lengths=lengths)
        return padded[:, :T]
    same_at_all = h.shape[1] == 1 and type(norm) is BatchNorm
    return norm(h, train, time_steps) if same_at_all else norm(repeat_over_time(h, time_steps), train)


def _normalise(
    module: BatchNorm | BNTT,
    x: jax.Array,
    train: bool,
    axes: tuple[int, ...],
    scale: jax.Array,
    shift: jax.Array,
    repeats: int = 1,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Compute ``scale xhat + shift`` in float32 or wider; in training, update the running statistics.

    axes: those over which the statistics are taken.
    repeats: how often a static x is repeated over time.
    lengths: of sequences of unequal length.
    """
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    shape = tuple(n for axis, n in enumerate(x.shape) if axis not in axes)
    running_mean = module.variable("batch_stats", "mean", jnp.zeros, shape, wide)
    running_var = module.variable("batch_stats", "var", jnp.ones, shape, wide)
    x, scale, shift = (jnp.asarray(a, wide) for a in (x, scale, shift))
    if train:
        where, seen = valid(lengths, x), None
        if where is None:
            y, mean, var = batch_norm.normalise(
                x, scale, shift, running_mean.value, axes, module.epsilon, module.groups, repeats
            )
            n = repeats * math.prod(x.shape[axis] for axis in axes) // module.groups
            var = var * (n / max(n - 1, 1))
        else:
            y, mean, var, seen = batch_norm.normalise_where(x, scale, shift, where, axes, module.epsilon, module.groups)
        if not module.is_initializing():
            for running, new in ((running_mean, mean), (running_var, var)):
                updated = module.momentum * running.value + (1 - module.momentum) * new
                running.value = updated if seen is None else jnp.where(seen, updated, running.value)
    else:
        mean, var = (jnp.expand_dims(running.value, axes) for running in (running_mean, running_var))
        y = batch_norm.over_time(lambda x: (x - mean) * (scale / jnp.sqrt(var + module.epsilon)) + shift, x, repeats)
    return y.astype(dtype)


def _check_steps(name: str, time_steps: int, x: jax.Array) -> None:
    if x.shape[1] != time_steps:
        raise ConfigError(
            f"model.norm: {name} has parameters of {time_steps} time steps (model.time_steps), but the input has "
            f"{x.shape[1]}"
        )
