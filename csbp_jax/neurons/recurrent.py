"""Recurrent neuron: its spikes are fed back to it one time step later."""

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons.protocol import Neuron, TracingNeuron


@dataclasses.dataclass(frozen=True)
class Feedback:
    """Neuron with recurrent input, starting from rest: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0``.

    neuron: called one time step at a time.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second; the product is in x's dtype.
    """

    neuron: Neuron
    weights: jax.Array

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return ``(spikes, membrane)`` of ``x [B, T, F]``."""
        spikes, membrane = self._over_time(self.neuron, x)
        return spikes, membrane

    @property
    def trace(self) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
        """As the call, with the membrane before reset at every step; missing where the inner neuron has no trace."""
        # Read at once, not in the function: hasattr(self, "trace") must fail where the inner neuron has none.
        inner = cast(TracingNeuron, self.neuron).trace

        def trace(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            spikes, membrane, u = self._over_time(inner, x)
            return spikes, membrane, u

        return trace

    def _over_time(self, neuron: Callable[..., tuple[jax.Array, ...]], x: jax.Array) -> tuple[jax.Array, ...]:
        def step(
            carry: tuple[jax.Array, jax.Array], x_t: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], list[jax.Array]]:
            membrane, spikes = carry
            # Cast in every step, not before the loop: the gradient then adds up over time in the weights' own dtype.
            feedback = spikes @ self.weights.astype(x.dtype)
            spikes, membrane, *others = neuron((x_t + feedback)[:, None], membrane)
            return (membrane, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        no_spikes = jnp.zeros_like(x[:, 0])
        rest = (no_spikes.astype(jnp.promote_types(x.dtype, jnp.float32)), no_spikes)
        (membrane, _), sequences = lax.scan(step, rest, jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, membrane, *others
