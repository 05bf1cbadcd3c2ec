"""Small networks that are not from the literature: fully connected, convolutional, recurrent."""

from typing import Literal

import flax.linen as nn
import jax

from csbp_jax.models import delays, layers
from csbp_jax.models.base import Network, RunLayer
from csbp_jax.xla.dense import product


class Dense(Network):
    """Fully connected network on flattened inputs ``[B, T or 1, ...]``; layers ``fc1``, ``fc2``, ...

    max_delay: largest delay of a connection between layers, in time steps, which is then learned; None: no delays.
    """

    features: tuple[int, ...] = (128, 128)
    max_delay: int | None = None

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        x = layers.flat(x)
        delayed = self.max_delay is not None
        dense = self.spiking(delays.DelayedDense, max_delay=self.max_delay) if delayed else self.spiking(layers.Dense)
        for i, features in enumerate(self.features, start=1):
            x = run(dense(features, name=f"fc{i}"), x)
        return nn.Dense(self.classes, dot_general=product, name="readout")(x)


class SmallConv(Network):
    """Convolutional network on images ``[B, T or 1, H, W, C]``; layers ``conv1``, ``conv2``, ...

    2x2 pooling, by the average or the maximum, follows every layer but the last, as long as height and width are even.

    dropout: rate before the read-out, drawn per example and unit, and the same at all time steps.
    """

    features: tuple[int, ...] = (32, 64, 64)
    pool: Literal["average", "max"] = "average"
    dropout: float = 0.0

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        conv, halved = self.spiking(layers.ConvNormLIF), {"average": layers.pool, "max": layers.max_pool}[self.pool]
        for i, features in enumerate(self.features, start=1):
            x = run(conv(features, name=f"conv{i}"), x)
            if i < len(self.features) and x.shape[2] % 2 == 0 == x.shape[3] % 2:
                x = halved(x)
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)
        return nn.Dense(self.classes, dot_general=product, name="readout")(drop(layers.flat(x)))


class Recurrent(Network):
    """Recurrent network on sequences ``[B, T, ...]``, flattened at each time step; layers ``rec1``, ``rec2``, ..."""

    features: tuple[int, ...] = (128,)

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        x = layers.flat(x)
        recurrent = self.spiking(layers.Recurrent)
        for i, features in enumerate(self.features, start=1):
            x = run(recurrent(features, name=f"rec{i}"), x)
        return nn.Dense(self.classes, dot_general=product, name="readout")(x)
