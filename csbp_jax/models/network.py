"""What all networks share: the call, and what it hands out. A family only says how its layers follow each other."""

from collections.abc import Callable

import flax.linen as nn
import jax

from csbp_jax import chaos, layers, neurons


class Network(nn.Module):
    """Spiking layers of a family (``body``), then a dense read-out at every time step.

    A static input (one time step) goes through its first synapse once and is shown for ``time_steps``.
    """

    features: tuple[int, ...]
    classes: int = 10
    time_steps: int = 4
    neuron: layers.Neuron = neurons.LIF(decay=0.25)

    def body(self, x: jax.Array, run: Callable[[nn.Module, jax.Array], jax.Array]) -> jax.Array:
        """``[B, T or 1, ...]`` to features ``[B, T, F]``; ``run(layer, x)`` calls a layer and keeps its Aux."""
        raise NotImplementedError

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
        """``x [B, T or 1, ...]`` to ``(logits [B, T, classes], Aux)``.

        Args:
          train: normalise by the batch, and update the running statistics.
          neuron: stands in for the model's own (a sweep's traced one).
          tap: maps each tensor of ``taps`` to a scalar of ``Aux.terms``.
          inspect: layers whose spikes and membranes are handed out.

        Raises:
          ConfigError: a name in ``taps`` or ``inspect`` does not exist.
        """
        neuron = self.neuron if neuron is None else neuron
        probe, parts = layers.Probe(tap, taps, inspect), []

        def run(layer, x):
            x, part = layer(x, train, neuron, probe)
            parts.append(part)
            return x

        return nn.Dense(self.classes, name="readout")(self.body(x, run)), layers.collect(parts, probe)
