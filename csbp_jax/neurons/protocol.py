"""Call signatures of spiking neurons, for type checkers; any function or object with such a signature is a neuron."""

from typing import Protocol

import jax


class Neuron(Protocol):
    """Spiking neuron through time: ``neuron(x, membrane=None) -> (spikes, membrane)``."""

    def __call__(self, x: jax.Array, /, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Run the neuron over a sequence.

        Args:
          x: input current, ``[B, T, ...]``.
          membrane: membrane before the first time step, ``[B, ...]``; None for a neuron at rest.

        Returns:
          ``(spikes, membrane)``: ``[B, T, ...]``, and the membrane after the last reset, ``[B, ...]``.
        """
        ...


class TracingNeuron(Neuron, Protocol):
    """Neuron that can also return its membrane at every time step, which taps and inspection of a layer may need."""

    @property
    def trace(self) -> "Trace":
        """As the call itself, with the membrane before reset at every time step as third result."""
        ...


class Trace(Protocol):
    """Method ``trace`` of a :class:`TracingNeuron`: ``(spikes, membrane, u)``, ``u [B, T, ...]`` before reset."""

    def __call__(self, x: jax.Array, /, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Run the neuron over a sequence; see :class:`Neuron`."""
        ...
