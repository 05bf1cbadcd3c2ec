"""Recurrent neuron: its spikes are fed back to it one time step later."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons.protocol import Neuron, State, Trace, TracingNeuron, membrane_of


class FeedbackState(NamedTuple):
    """State of :class:`Feedback`: that of the inner neuron, and its last spikes ``[B, F]``."""

    inner: State
    spikes: jax.Array

    @property
    def membrane(self) -> jax.Array | None:
        """The membrane of the inner neuron."""
        return membrane_of(self.inner)


@dataclasses.dataclass(frozen=True)
class Feedback:
    """Neuron with recurrent input: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0`` at rest.

    neuron: called one time step at a time, at rest from a state of zeros.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second; the product is in x's dtype.
    """

    neuron: Neuron
    weights: jax.Array

    def __call__(self, x: jax.Array, state: FeedbackState | None = None, /) -> tuple[jax.Array, FeedbackState]:
        """Return ``(spikes, state)`` of ``x [B, T, F]``."""
        spikes, state = self._over_time(self.neuron, x, state)
        return spikes, state

    @property
    def trace(self) -> Trace:
        """As the call, with the membrane before reset at every step; missing where the inner neuron has no trace."""
        # Read at once, not in the function: hasattr(self, "trace") must fail where the inner neuron has none.
        inner = cast(TracingNeuron, self.neuron).trace

        def trace(x: jax.Array, state: FeedbackState | None = None, /) -> tuple[jax.Array, FeedbackState, jax.Array]:
            spikes, state, u = self._over_time(inner, x, state)
            return spikes, state, u

        return trace

    def _over_time(
        self, neuron: Callable[..., tuple[Any, ...]], x: jax.Array, state: FeedbackState | None
    ) -> tuple[Any, ...]:
        def step(carry: FeedbackState, x_t: jax.Array) -> tuple[FeedbackState, list[jax.Array]]:
            state, spikes = carry
            # Cast in every step, not before the loop: the gradient then adds up over time in the weights' own dtype.
            feedback = spikes @ self.weights.astype(x.dtype)
            spikes, state, *others = neuron((x_t + feedback)[:, None], state)
            return FeedbackState(state, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        if state is None:
            shapes = jax.eval_shape(neuron, x[:, :1])[1]
            rest = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            state = FeedbackState(rest, jnp.zeros_like(x[:, 0]))
        end: FeedbackState
        end, sequences = lax.scan(step, state, jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, end, *others
