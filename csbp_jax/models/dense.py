"""A fully connected spiking network: [dense, norm, LIF] * n, dense read-out."""

import flax.linen as nn
import jax

from csbp_jax import chaos, layers, neurons


class Dense(nn.Module):
    """``[B, T or 1, ...]`` (flattened) to logits ``[B, T, classes]``; layers ``fc1``, ``fc2``, ..."""

    features: tuple[int, ...] = (128, 128)
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
        x, parts = layers.flat(x), []
        for i, features in enumerate(self.features, start=1):
            x, part = layers.Dense(features, self.time_steps, name=f"fc{i}")(x, train, neuron, probe)
            parts.append(part)
        return nn.Dense(self.classes, name="readout")(x), layers.collect(parts, probe)
