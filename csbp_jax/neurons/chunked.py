"""Long sequences in chunks of time, with only the state between chunks stored for the reverse pass.

Not for networks whose norm takes its statistics over all time steps: each chunk would have its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

PyTree = Any
"""Any pytree of arrays: the state of ``step``."""

Step = Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]]


def in_chunks(step: Step, state: PyTree, x: jax.Array, length: int) -> tuple[PyTree, jax.Array]:
    """Apply ``step`` to a sequence, ``length`` time steps at a time.

    The reverse pass recomputes each chunk, so that memory is that of one chunk plus one state per chunk, and time grows
    by about a third. Exact: equal to ``step(state, x)`` if ``step`` is causal and its state is all that it needs of the
    past.

    Args:
      step: ``(state, x [B, t, ...]) -> (state, y [B, t, ...])``, for any t up to ``length``: e.g. layers of
        :func:`csbp_jax.neurons.lif`, whose membranes are the state.
      state: before the first time step, e.g. membranes of zeros.
      x: ``[B, T, ...]``, read in place. Its gradient, if needed, is summed over all of x once per chunk.
      length: time steps per chunk, at least 1; the last chunk is shorter if T is not a multiple.

    Returns:
      ``(state, y [B, T, ...])``.

    Raises:
      ValueError: ``length`` is below 1, or x has no time step.

    >>> from csbp_jax.neurons import lif
    >>> def step(membrane, x):
    ...     spikes, membrane = lif(x, membrane=membrane)
    ...     return membrane, spikes
    >>> membrane, spikes = in_chunks(step, jnp.zeros((1, 3)), jnp.ones((1, 1000, 3)), length=64)
    >>> spikes.shape
    (1, 1000, 3)
    """
    if length < 1:
        raise ValueError(f"in_chunks: length is {length}, but must be at least 1")
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"in_chunks: x has shape {x.shape}, but must be [B, T, ...] with T >= 1 (time is axis 1)")
    full_chunks, outputs = x.shape[1] // length, []

    # prevent_cse is not needed in a loop, which keeps the two passes apart by itself. The slice is taken inside: an
    # argument of a checkpointed function would be stored.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(state: PyTree, i: jax.Array) -> tuple[PyTree, jax.Array]:
        return step(state, lax.dynamic_slice_in_dim(x, i * length, length, axis=1))

    if full_chunks:
        state, y = lax.scan(body, state, jnp.arange(full_chunks))
        y = jnp.moveaxis(y, 0, 1)
        outputs.append(y.reshape(y.shape[0], full_chunks * length, *y.shape[3:]))
    if x.shape[1] % length:
        state, y = jax.checkpoint(step)(state, x[:, full_chunks * length :])
        outputs.append(y)
    return state, jnp.concatenate(outputs, axis=1)
