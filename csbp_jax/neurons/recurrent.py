"""Neurons that call another one time step at a time.

:class:`Feedback` is recurrent: its spikes are fed back to it one time step later. :func:`until_end` stops at the end of
each sequence of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax.neurons.protocol import Neuron, State, Trace, TracingNeuron, membrane_of
from csbp_jax.xla.lengths import valid


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
        return self._over_time(self.neuron, x, state)

    @property
    def trace(self) -> Trace:
        """As the call, with the membrane before reset at every step; missing where the inner neuron has no trace."""
        # Read at once, not in the function: hasattr(self, "trace") must fail where the inner neuron has none.
        inner = cast(TracingNeuron, self.neuron).trace

        def trace(x: jax.Array, state: FeedbackState | None = None, /) -> tuple[jax.Array, FeedbackState, jax.Array]:
            return self._over_time(inner, x, state)

        return trace

    def _over_time(self, neuron: Callable[..., tuple[Any, ...]], x: jax.Array, state: FeedbackState | None) -> Any:
        def step(carry: FeedbackState, x_t: jax.Array) -> tuple[FeedbackState, list[jax.Array]]:
            state, spikes = carry
            # Cast in every step, not before the loop: the gradient then adds up over time in the weights' own dtype.
            feedback = spikes @ self.weights.astype(x.dtype)
            spikes, state, *others = neuron((x_t + feedback)[:, None], state)
            return FeedbackState(state, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        if state is None:
            state = FeedbackState(_at_rest(neuron, x), jnp.zeros_like(x[:, 0]))
        return _over_steps(step, state, x)


def until_end(neuron: Callable[..., tuple[Any, ...]], lengths: jax.Array) -> Callable[..., tuple[Any, ...]]:
    """Return a neuron, or its ``trace``, whose state is that after the last time step of each sequence.

    A neuron alone would go on in the padding. It is slower, as it keeps the states between all time steps.

    neuron: called one time step at a time, at rest from a state of zeros.
    lengths: of the sequences, ``[B]``.
    """

    def run(x: jax.Array, state: State | None = None, /) -> tuple[Any, ...]:
        def step(state: State, rows: tuple[jax.Array, jax.Array]) -> tuple[State, list[jax.Array]]:
            x_t, goes_on = rows
            spikes, after, *others = neuron(x_t[:, None], state)
            masks = jax.tree.map(lambda leaf: goes_on.reshape(-1, *(1,) * (leaf.ndim - 1)), after)
            return jax.tree.map(jnp.where, masks, after, state), [rows[:, 0] for rows in (spikes, *others)]

        return _over_steps(step, _at_rest(neuron, x) if state is None else state, (x, valid(lengths, x)))

    return run


def _over_steps(step: Callable[..., Any], state: State, sequences: Any) -> tuple[Any, ...]:
    """Return ``(spikes, last state, ...)`` of ``step(state, rows) -> (state, [spikes, ...])`` over axis 1."""
    end, outputs = lax.scan(step, state, jax.tree.map(lambda sequence: jnp.moveaxis(sequence, 1, 0), sequences))
    spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in outputs)
    return spikes, end, *others


def _at_rest(neuron: Callable[..., tuple[Any, ...]], x: jax.Array) -> State:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(neuron, x[:, :1])[1])
