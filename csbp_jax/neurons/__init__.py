"""Spiking neurons as pure functions of a whole sequence ``[B, T, ...]``.

``csbp_jax.neurons.plif`` and ``csbp_jax.neurons.recurrent`` hold neurons built around another neuron.
"""

from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.neurons.lif import LIF, Reset, Residual, lif, lif_trace

__all__ = ["LIF", "Reset", "Residual", "in_chunks", "lif", "lif_trace"]
