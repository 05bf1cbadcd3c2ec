"""A still picture as a sequence of spikes. Brightness x in [0, 1], ``[B, 1, ...]`` to ``[B, T, ...]``, float32."""

import jax
import jax.numpy as jnp


def direct(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """The picture itself, ``[B, 1, ...]``: a network shows its current after the first synapse (``layers.show``)."""
    del key, time_steps
    return x


def rate(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """Bernoulli spikes, P(s_t = 1) = x, independent over time and pixels.

    The usual stand-in for a Poisson neuron (Diehl & Cook 2015, doi:10.3389/fncom.2015.00099, with at most one spike a
    step).
    """

    def one(key, x):
        return jax.random.bernoulli(key, x, (time_steps, *x.shape[1:]))

    return jax.vmap(one)(jax.random.split(key, len(x)), x).astype(jnp.float32)


def latency(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """Time to first spike: a pixel fires once, at step floor((1 - x) T), the brighter the earlier; black never fires.

    The idea is that of Thorpe & Gautrais 1998 (doi:10.1007/978-1-4615-4831-7_19), the linear law one of several in use.
    """
    del key
    first = jnp.floor((1 - x) * time_steps)
    steps = jnp.arange(time_steps, dtype=first.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    return (steps == first).astype(jnp.float32)
