"""A small convolutional spiking network for 8x8 to 32x32 pictures: [conv, norm, LIF, pool] * n, dense read-out."""

import flax.linen as nn
import jax

from csbp_jax import chaos, layers, neurons


class SmallConv(nn.Module):
    """``[B, T or 1, H, W, C]`` to logits ``[B, T, classes]``; layers ``conv1``, ``conv2``, ...

    2x2 average pooling follows every layer but the last, while the picture is even-sized. A static input (one time
    step) is convolved once and shown for ``time_steps``.
    """

    features: tuple[int, ...] = (32, 64, 64)
    classes: int = 10
    time_steps: int = 4
    neuron: layers.Neuron = neurons.LIF(decay=0.25)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        *,
        neuron: layers.Neuron | None = None,
        tap: layers.Tap = chaos.term,
        taps: tuple[str, ...] = (),
        inspect: tuple[str, ...] = (),
    ) -> tuple[jax.Array, layers.Aux]:
        """``neuron`` stands in for the model's own (a sweep's traced one); ``tap`` maps each of ``taps`` to a scalar.

        Raises:
          ConfigError: a name in ``taps`` or ``inspect`` does not exist.
        """
        neuron = self.neuron if neuron is None else neuron
        probe = layers.Probe(tap, taps, inspect)
        parts = []
        for i, features in enumerate(self.features, start=1):
            x, part = layers.Conv(features, self.time_steps, name=f"conv{i}")(x, train, neuron, probe)
            parts.append(part)
            if i < len(self.features) and x.shape[2] % 2 == 0 == x.shape[3] % 2:
                x = layers.pool(x)
        return nn.Dense(self.classes, name="readout")(layers.flat(x)), layers.collect(parts, probe)
