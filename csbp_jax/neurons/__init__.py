"""Spiking neurons as pure functions of a whole sequence ``[B, T, ...]``.

``csbp_jax.neurons.plif`` and ``csbp_jax.neurons.recurrent`` hold neurons built around another neuron.
"""

from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.neurons.lif import LIF, Reset, Residual, lif, lif_trace
from csbp_jax.neurons.protocol import Neuron, TracingNeuron

__all__ = ["LIF", "Neuron", "Reset", "Residual", "TracingNeuron", "in_chunks", "lif", "lif_trace"]
