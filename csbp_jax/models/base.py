"""What all networks share: the call, and what it hands out. A family only says how its layers follow each other."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from flax.typing import Dtype

from csbp_jax import chaos, neurons
from csbp_jax.models import norms
from csbp_jax.models.taps import Aux, Neuron, Probe, Tap, merge_aux

RunLayer = Callable[[nn.Module, jax.Array], jax.Array]


class Network(nn.Module):
    """Spiking layers of a family (``body``), then a read-out at every time step.

    A static input (one time step) goes through its first synapse once and is shown for ``time_steps``.

    norm: a name in the table of norms.py; norm_groups: how many groups of the batch have statistics of their own.
    remat: keep only what goes from layer to layer for the reverse pass.
    dtype: see precision.py. A read-out is given none, and flax promotes it to the dtype of its parameters.
    """

    classes: int = 10
    time_steps: int = 4
    neuron: Neuron = neurons.LIF(decay=0.25)
    norm: str = "batch"
    norm_groups: int = 1
    remat: bool = False
    dtype: Dtype | None = None

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        """``[B, T or 1, ...]`` to logits ``[B, T, classes]``; ``run(layer, x)`` calls a layer and keeps its Aux."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        *,
        neuron: Neuron | None = None,
        tap: Tap = chaos.term,
        taps: tuple[str, ...] = (),
        inspect: tuple[str, ...] = (),
    ) -> tuple[jax.Array, Aux]:
        """``x [B, T or 1, ...]`` to ``(logits [B, T, classes], Aux)``.

        Args:
          train: normalise by the batch, update the running statistics, and drop out.
          neuron: stands in for the model's own (a sweep's traced one).
          tap: maps each tensor of ``taps`` to a scalar of ``Aux.terms``.
          inspect: layers whose spikes and membranes are handed out.

        Raises:
          ConfigError: a name in ``taps`` or ``inspect`` does not exist.
        """
        neuron = self.neuron if neuron is None else neuron
        probe, parts = Probe(tap, taps, inspect), []

        def call(layer, x):
            return layer(x, train, neuron, probe)

        def run(layer, x):
            x, part = (nn.remat(call) if self.remat else call)(layer, x)
            parts.append(part)
            return x

        return self.body(x, train, run), merge_aux(parts, probe)

    def make_norm(self, alpha: float = 1.0) -> norms.Norm:
        """This network's norm; ``alpha`` is tdBN's. Its threshold is that of the network's own neuron."""
        threshold = getattr(self.neuron, "threshold", 1.0)
        return norms.make(self.norm, self.time_steps, threshold, alpha, self.norm_groups)

    def spiking(self, layer: type[nn.Module], **options) -> Callable[..., nn.Module]:
        """A layer with this network's norm, time steps and dtype, yet to be given its size and name."""
        return functools.partial(layer, norm=self.make_norm(), time_steps=self.time_steps, dtype=self.dtype, **options)


class PublishedNetwork(Network):
    """A network of the literature; ``width`` multiplies its numbers of channels and units (1 is the original)."""

    width: float = 1.0

    def wide(self, features: int) -> int:
        """So many channels, at this width."""
        return max(1, round(self.width * features))
