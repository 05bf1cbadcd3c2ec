"""Recurrent neuron: its spikes are fed back to it one time step later."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons.protocol import Neuron, State, TracingNeuron


@dataclasses.dataclass(frozen=True)
class Feedback:
    """Neuron with recurrent input, starting from rest: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0``.

    neuron: called one time step at a time, from a state of zeros.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second; the product is in x's dtype.
    """

    neuron: Neuron
    weights: jax.Array

    def __call__(self, x: jax.Array) -> tuple[jax.Array, State]:
        """Return ``(spikes, state)`` of ``x [B, T, F]``."""
        spikes, state = self._over_time(self.neuron, x)
        return spikes, state

    @property
    def trace(self) -> Callable[[jax.Array], tuple[jax.Array, State, jax.Array]]:
        """As the call, with the membrane before reset at every step; missing where the inner neuron has no trace."""
        # Read at once, not in the function: hasattr(self, "trace") must fail where the inner neuron has none.
        inner = cast(TracingNeuron, self.neuron).trace

        def trace(x: jax.Array) -> tuple[jax.Array, State, jax.Array]:
            spikes, state, u = self._over_time(inner, x)
            return spikes, state, u

        return trace

    def _over_time(self, neuron: Callable[..., tuple[Any, ...]], x: jax.Array) -> tuple[Any, ...]:
        def step(carry: tuple[State, jax.Array], x_t: jax.Array) -> tuple[tuple[State, jax.Array], list[jax.Array]]:
            state, spikes = carry
            # Cast in every step, not before the loop: the gradient then adds up over time in the weights' own dtype.
            feedback = spikes @ self.weights.astype(x.dtype)
            spikes, state, *others = neuron((x_t + feedback)[:, None], state)
            return (state, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        no_spikes = jnp.zeros_like(x[:, 0])
        shapes = jax.eval_shape(neuron, x[:, :1])[1]
        rest = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        (state, _), sequences = lax.scan(step, (rest, no_spikes), jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, state, *others
