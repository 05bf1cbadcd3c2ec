"""LIF with a learned decay (PLIF), and a neuron with an input gain."""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import functools
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax import ranges
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.neurons.lif import LIF, Reset
from csbp_jax.neurons.protocol import Neuron, State, Trace, TracingNeuron
from csbp_jax.surrogate import Surrogate, arctan


@functools.partial(jax.tree_util.register_dataclass, data_fields=["neuron", "gain"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Scaled:
    """Neuron with an input gain: its current is ``gain x``, in x's dtype; the gain is a scalar or ``[C]``."""

    neuron: Neuron
    gain: ArrayLike

    def __call__(self, x: jax.Array, membrane: State | None = None) -> tuple[jax.Array, State]:
        """Run the inner neuron on ``gain x``."""
        return self.neuron(self._scale(x), membrane)

    @property
    def threshold(self) -> ArrayLike:
        """Threshold of the inner neuron, 1 if it has none."""
        return getattr(self.neuron, "threshold", 1.0)

    @property
    def trace(self) -> Trace:
        """As the call, with the membrane before reset at every step; missing where the inner neuron has no trace."""
        # Read at once, not in the lambda: hasattr(self, "trace") must fail where the inner neuron has none.
        trace = cast(TracingNeuron, self.neuron).trace
        return lambda x, membrane=None: trace(self._scale(x), membrane)

    def _scale(self, x: jax.Array) -> jax.Array:
        # Not rounded to bfloat16, in which small updates of a learned gain would have no effect.
        gain = jnp.asarray(self.gain, jnp.promote_types(x.dtype, jnp.float32))
        return (x * lax.expand_dims(gain, range(x.ndim - gain.ndim))).astype(x.dtype)


class PLIF(nn.Module):
    """Parametric LIF (Fang et al., ICCV 2021): each layer learns its decay and scales its input by 1 - decay.

        u[t] = v[t-1] + k (x[t] - v[t-1]),    k = 1 - decay = sigmoid(w)

    w is one parameter per layer, or one per channel. Each layer calls its own copy of this module to get its neuron.

    decay: initial value, in (0, 1); ``1 - 1/tau`` of the paper, whose tau is 2.
    """

    decay: float = 0.5
    threshold: float = 1.0
    spike: Surrogate = arctan(2.0)
    reset: Reset = "hard"
    detach_reset: bool = True
    per_channel: bool = False
    at_threshold: AtThreshold = "silent"

    @nn.compact
    def __call__(self, channels: int) -> Scaled:
        """Return the neuron of a layer with ``channels`` channels."""
        ranges.require("PLIF", ranges.BETWEEN_0_AND_1, decay=self.decay)
        start = nn.initializers.constant(-math.log(self.decay / (1 - self.decay)))
        k = jax.nn.sigmoid(self.param("w", start, (channels,) if self.per_channel else ()))
        options = (self.threshold, self.spike, self.reset, self.detach_reset)
        return Scaled(LIF(1 - k, *options, at_threshold=self.at_threshold), k)
