"""LIF with a learned decay (PLIF), and a neuron behind an input gain."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons.lif import LIF, Reset
from csbp_jax.surrogate import Surrogate, arctan


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A neuron on ``gain x``, in x's dtype; the gain is a scalar or ``[C]``."""

    neuron: Any
    gain: jax.Array

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return self.neuron(self._scale(x), membrane)

    @property
    def trace(self) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
        trace = self.neuron.trace
        return lambda x, membrane=None: trace(self._scale(x), membrane)

    def _scale(self, x):
        # In bfloat16 a learned gain would stand still at small steps.
        gain = jnp.asarray(self.gain, jnp.promote_types(x.dtype, jnp.float32))
        return (x * lax.expand_dims(gain, range(x.ndim - gain.ndim))).astype(x.dtype)


class PLIF(nn.Module):
    """Parametric LIF (Fang et al., ICCV 2021): a layer learns its decay, and scales its input by the rest of it.

        u[t] = v[t-1] + k (x[t] - v[t-1]),    k = 1 - decay = sigmoid(w)

    w is one parameter of the layer, or one for each channel. Each layer calls a copy of this module of its own, which
    gives the neuron.

    decay: at the start, in (0, 1); ``1 - 1/tau`` of the paper, whose tau is 2.
    """

    decay: float = 0.5
    threshold: float = 1.0
    spike: Surrogate = arctan(2.0)
    reset: Reset = "hard"
    detach_reset: bool = True
    per_channel: bool = False

    @nn.compact
    def __call__(self, channels: int) -> Scaled:
        start = nn.initializers.constant(-math.log(self.decay / (1 - self.decay)))
        k = jax.nn.sigmoid(self.param("w", start, (channels,) if self.per_channel else ()))
        return Scaled(LIF(1 - k, self.threshold, self.spike, self.reset, self.detach_reset), k)
