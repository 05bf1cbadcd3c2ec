"""Spiking neurons as pure functions of a sequence ``[B, T, ...]``.

``csbp_jax.neurons.plif`` and ``csbp_jax.neurons.recurrent`` hold neurons built around another neuron, and
``csbp_jax.neurons.psn`` parallel ones with weights over time.
"""

from csbp_jax.neurons.adlif import AdLIF, EulerState
from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.neurons.integer import ILIF
from csbp_jax.neurons.lif import LIF, Reset, lif, lif_trace
from csbp_jax.neurons.protocol import Neuron, State, TracingNeuron, membrane_of
from csbp_jax.neurons.two_states import (
    ALIF,
    CLIF,
    AdaptiveState,
    ComplementaryState,
    CuBaLIF,
    CurrentState,
)

__all__ = [
    "ALIF",
    "CLIF",
    "ILIF",
    "LIF",
    "AdLIF",
    "AdaptiveState",
    "ComplementaryState",
    "CuBaLIF",
    "CurrentState",
    "EulerState",
    "Neuron",
    "Reset",
    "State",
    "TracingNeuron",
    "in_chunks",
    "lif",
    "lif_trace",
    "membrane_of",
]
