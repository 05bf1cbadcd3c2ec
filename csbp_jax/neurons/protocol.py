"""Call signatures of spiking neurons, for type checkers; any function or object with such a signature is a neuron."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

State = Any
"""The variables that a neuron carries from one time step to the next, zeros at rest.

An array ``[B, ...]``, which is the membrane, or a pytree of arrays ``[B, ...]`` with the membrane as its field or key
``membrane``.
"""


class Neuron(Protocol):
    """Spiking neuron through time, ``neuron(x, state=None) -> (spikes, state)``; the state is passed by position."""

    def __call__(self, x: jax.Array, state: State | None = None, /) -> tuple[jax.Array, State]:
        """Run the neuron over a sequence.

        Args:
          x: input current, ``[B, T, ...]``.
          state: before the first time step; None for a neuron at rest.

        Returns:
          ``(spikes, state)``: ``[B, T, ...]``, and the state after the last reset.
        """
        ...


class TracingNeuron(Neuron, Protocol):
    """Neuron that can also return its membrane at every time step, for taps of it and for inspection of a layer."""

    @property
    def trace(self) -> "Trace":
        """As the call itself, with the membrane before reset at every time step as third result."""
        ...


class Trace(Protocol):
    """Method ``trace`` of a :class:`TracingNeuron`: ``(spikes, state, u)``, ``u [B, T, ...]`` before reset."""

    def __call__(self, x: jax.Array, state: State | None = None, /) -> tuple[jax.Array, State, jax.Array]:
        """Run the neuron over a sequence; see :class:`Neuron`."""
        ...


def membrane_of(state: State) -> jax.Array | None:
    """Return the membrane in a state: the state itself, its field or its key ``membrane``; None if it has none.

    >>> membrane_of({"membrane": 1.0, "current": 2.0})
    1.0
    """
    if hasattr(state, "shape"):
        return state
    fields: Any = state if isinstance(state, Mapping) else {"membrane": getattr(state, "membrane", None)}
    return fields.get("membrane")
