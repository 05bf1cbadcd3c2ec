"""A fully connected spiking network: [dense, norm, LIF] * n, dense read-out."""

import flax.linen as nn

from csbp_jax import layers
from csbp_jax.models.network import Network


class Dense(Network):
    """Any input ``[B, T or 1, ...]``, flattened; layers ``fc1``, ``fc2``, ..."""

    features: tuple[int, ...] = (128, 128)

    def body(self, x, train, run):
        x = layers.flat(x)
        dense = self.spiking(layers.Dense)
        for i, features in enumerate(self.features, start=1):
            x = run(dense(features, name=f"fc{i}"), x)
        return nn.Dense(self.classes, name="readout")(x)
