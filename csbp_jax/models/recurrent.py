"""A recurrent spiking network for sequences: [dense, norm, LIF fed back to itself] * n, dense read-out."""

import flax.linen as nn

from csbp_jax import layers
from csbp_jax.models.network import Network


class Recurrent(Network):
    """Sequences ``[B, T, ...]``, each step flattened; layers ``rec1``, ``rec2``, ..."""

    features: tuple[int, ...] = (128,)

    def body(self, x, train, run):
        x = layers.flat(x)
        recurrent = self.spiking(layers.Recurrent)
        for i, features in enumerate(self.features, start=1):
            x = run(recurrent(features, name=f"rec{i}"), x)
        return nn.Dense(self.classes, name="readout")(x)
