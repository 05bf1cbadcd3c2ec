"""Neurons built around a neuron: an input gain, spikes fed back, a learned decay.

All are called as ``neuron(x, membrane=None) -> (spikes, membrane)``, and have ``trace`` where the one inside has it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons import LIF, Reset
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


@dataclasses.dataclass(frozen=True)
class Feedback:
    """A neuron whose spikes come back one step later, from rest: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0``.

    neuron: called one time step at a time.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second; the product is in x's dtype.
    """

    neuron: Any
    weights: jax.Array

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        spikes, membrane = self._over_time(self.neuron, x)
        return spikes, membrane

    @property
    def trace(self) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
        return functools.partial(self._over_time, self.neuron.trace)

    def _over_time(self, neuron, x):
        def step(carry, x_t):
            membrane, spikes = carry
            # Cast here, not before the loop: over the steps, the gradient adds up in the weights' own dtype.
            fed_back = spikes @ self.weights.astype(x.dtype)
            spikes, membrane, *others = neuron((x_t + fed_back)[:, None], membrane)
            return (membrane, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        none = jnp.zeros_like(x[:, 0])
        rest = (none.astype(jnp.promote_types(x.dtype, jnp.float32)), none)
        (membrane, _), sequences = lax.scan(step, rest, jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, membrane, *others


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
