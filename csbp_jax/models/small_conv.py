"""A small convolutional spiking network for 8x8 to 32x32 pictures: [conv, norm, LIF, pool] * n, dense read-out."""

import flax.linen as nn

from csbp_jax import layers
from csbp_jax.models.network import Network


class SmallConv(Network):
    """Pictures ``[B, T or 1, H, W, C]``; layers ``conv1``, ``conv2``, ...

    2x2 average pooling follows every layer but the last, while the picture is even-sized.
    """

    features: tuple[int, ...] = (32, 64, 64)

    def body(self, x, train, run):
        conv = self.spiking(layers.Conv)
        for i, features in enumerate(self.features, start=1):
            x = run(conv(features, name=f"conv{i}"), x)
            if i < len(self.features) and x.shape[2] % 2 == 0 == x.shape[3] % 2:
                x = layers.pool(x)
        return nn.Dense(self.classes, name="readout")(layers.flat(x))
