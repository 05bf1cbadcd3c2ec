"""Sequences of unequal length in one batch: which time steps are there.

The batch has as many time steps as its longest sequence, or more, and ``lengths [B]``, 1 or more each; what stands
after them is padding. The package's neurons, norms and synapses are causal, so that padding changes no time step before
it, and whatever averages over time leaves it out: an example has the same loss, gradient, spikes and statistics
whatever its padding is. Only the random numbers of a dropout that draws at each time step depend on the padded length.
"""

import jax
import jax.numpy as jnp


def valid(lengths: jax.Array | None, h: jax.Array) -> jax.Array | None:
    """Return which time steps of ``h [B, T, ...]`` are there, as the ``where`` of its mean; None where all are.

    >>> valid(jnp.array([1, 3]), jnp.zeros((2, 3, 5)))[..., 0].tolist()
    [[True, False, False], [True, True, True]]
    """
    if lengths is None:
        return None
    return (jnp.arange(h.shape[1])[None] < lengths[:, None]).reshape(*h.shape[:2], *(1,) * (h.ndim - 2))


def without_padding(lengths: jax.Array | None, h: jax.Array) -> jax.Array:
    """Return ``h [B, T, ...]`` with zeros in its padding."""
    where = valid(lengths, h)
    return h if where is None else jnp.where(where, h, 0)


def mean_over_time(h: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Average ``h [B, T, ...]`` over the time steps that are there."""
    return jnp.mean(h, axis=1, where=valid(lengths, h))
