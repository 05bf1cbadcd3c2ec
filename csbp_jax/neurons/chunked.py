"""Long sequences in chunks of time, of which only the state between them is kept for the reverse pass.

Not for nets whose norm takes its statistics over all time steps: a chunk would have its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Step = Callable[[Any, jax.Array], tuple[Any, jax.Array]]


def in_chunks(step: Step, state: Any, x: jax.Array, length: int) -> tuple[Any, jax.Array]:
    """``step`` over a sequence, ``length`` time steps at a time.

    The reverse pass runs each chunk forward again, so that memory is that of one chunk and a state for each, and time
    about 4/3. Exact: equal to ``step(state, x)`` if step is causal and its state all that it needs from before.

    Args:
      step: ``(state, x [B, t, ...]) -> (state, y [B, t, ...])``, for any t up to ``length``: e.g. layers of
        :func:`csbp_jax.neurons.lif`, whose membranes are the state.
      state: before the first time step, e.g. membranes of zeros.
      x: ``[B, T, ...]``, read in place. Its gradient, if asked for, is summed once a chunk over all of x.
      length: of a chunk, at least 1; the last one is shorter where T is no multiple.

    Returns:
      ``(state, y [B, T, ...])``.

    Raises:
      ValueError: ``length`` is below 1.

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
    whole, parts = x.shape[1] // length, []

    # Without prevent_cse: a loop keeps the two passes apart by itself. The slice within: what goes in would be kept.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(state, i):
        return step(state, lax.dynamic_slice_in_dim(x, i * length, length, axis=1))

    if whole:
        state, y = lax.scan(body, state, jnp.arange(whole))
        y = jnp.moveaxis(y, 0, 1)
        parts.append(y.reshape(y.shape[0], whole * length, *y.shape[3:]))
    if x.shape[1] % length:
        state, y = jax.checkpoint(step)(state, x[:, whole * length :])
        parts.append(y)
    return state, jnp.concatenate(parts, axis=1)
