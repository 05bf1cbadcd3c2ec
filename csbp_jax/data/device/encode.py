"""Encodings of still images as spike trains: brightness in [0, 1], ``[B, 1, ...]``, to ``[B, T, ...]`` in float32."""

import jax
import jax.numpy as jnp
import numpy as np


def direct(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """Return the image itself, ``[B, 1, ...]``: the first synapse's current is repeated over time.

    See :func:`csbp_jax.xla.static.repeat_over_time`.
    """
    del key, time_steps
    return x


def rate(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """Draw Bernoulli spikes, P(s_t = 1) = x, independent over time and pixels.

    The usual substitute for a Poisson neuron (Diehl & Cook 2015, doi:10.3389/fncom.2015.00099), with at most one spike
    per step.
    """

    def spikes(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, x, (time_steps, *x.shape[1:]))

    return jax.vmap(spikes)(jax.random.split(key, len(x)), x).astype(jnp.float32)


def latency(key: jax.Array, x: jax.Array, time_steps: int) -> jax.Array:
    """Encode by time to first spike: a pixel fires once, at step floor((1 - x) T), and never if it is black.

    Of uint8 or uint16, whose largest number is brightness 1, the step is computed in integers, and so exactly.

    Idea: Thorpe & Gautrais 1998 (doi:10.1007/978-1-4615-4831-7_19); the linear law is one of several in use.
    """
    del key
    if jnp.issubdtype(x.dtype, jnp.integer):
        most = np.iinfo(x.dtype).max
        first = (most - x.astype(jnp.int32)) * time_steps // most
    else:
        first = jnp.maximum(jnp.floor((1 - x) * time_steps), 0)  # rounding may leave white at 1 + 6e-8
    steps = jnp.arange(time_steps, dtype=first.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    return (steps == first).astype(jnp.float32)
