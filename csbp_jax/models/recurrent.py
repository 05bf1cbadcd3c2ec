"""A recurrent spiking network for sequences: [dense, norm, LIF fed back to itself] * n, dense read-out."""

from csbp_jax import layers
from csbp_jax.models.network import Network


class Recurrent(Network):
    """Sequences ``[B, T, ...]``, each step flattened; layers ``rec1``, ``rec2``, ..."""

    features: tuple[int, ...] = (128,)

    def body(self, x, run):
        x = layers.flat(x)
        for i, features in enumerate(self.features, start=1):
            x = run(layers.Recurrent(features, self.time_steps, name=f"rec{i}"), x)
        return x
