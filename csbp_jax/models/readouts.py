"""Read-outs over time: what a network's outputs of all time steps say together.

Shape key: B batch, T time steps, C outputs.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

from typing import Literal

import jax
import jax.numpy as jnp

from csbp_jax.xla.lengths import valid

ReadOut = Literal["mean", "max", "last", "softmax"]


def leaky(outputs: jax.Array, decay: float) -> jax.Array:
    """Integrate outputs with a leak and without spikes, ``u[t] = decay u[t-1] + (1 - decay) o[t]`` with ``u[-1] = 0``.

    The non-spiking output neuron of Bittar & Garner (Frontiers in Neuroscience 2022, eq. 17) and Baronig et al. (Nature
    Communications 2025).

    Args:
      outputs: o, ``[B, T, C]``.
      decay: in [0, 1); 0 returns the outputs.

    >>> leaky(jnp.array([[[1.0], [0.0]]]), 0.5)[0, :, 0].tolist()
    [0.5, 0.25]
    """
    if decay == 0:
        return outputs

    def step(u: jax.Array, o: jax.Array) -> tuple[jax.Array, jax.Array]:
        u = decay * u + (1 - decay) * o
        return u, u

    _, integrated = jax.lax.scan(step, jnp.zeros_like(outputs[:, 0]), jnp.moveaxis(outputs, 1, 0))
    return jnp.moveaxis(integrated, 0, 1)


def over_time(outputs: jax.Array, read_out: ReadOut, lengths: jax.Array | None = None) -> jax.Array:
    """Return outputs whose mean over time is a read-out of the sequence.

    Losses, measures and decisions average the outputs of a network over time. With R[t] the read-out of the time steps
    up to t, and R[-1] = 0, they get ``T (R[t] - R[t-1])``: its mean over all T time steps is R of the sequence, and its
    mean over the first t is in proportion to R of these, so that a decision after t time steps is that of R, too.

    ``max`` takes the largest output over time, ``last`` the output of the last time step, and ``softmax`` the sum of
    ``softmax(o[t])`` over time, of which a cross-entropy then takes a second softmax. The first is the read-out of
    SpyTorch (Neftci, Mostafa & Zenke 2019), the last that of Bittar & Garner (2022) for SHD.

    Args:
      outputs: o, ``[B, T, C]``.
      read_out: ``mean`` returns the outputs.
      lengths: of sequences of unequal length, ``[B]``, which then stand for T; their padding changes nothing.

    >>> over_time(jnp.array([[[1.0], [3.0], [2.0]]]), "max").mean(axis=1).tolist()
    [[3.0]]
    """
    if read_out == "mean":
        return outputs
    count = jnp.asarray(outputs.shape[1], outputs.dtype) if lengths is None else lengths[:, None, None]
    if read_out == "softmax":
        return count * jax.nn.softmax(outputs, axis=-1)
    so_far = jax.lax.cummax(outputs, axis=1) if read_out == "max" else outputs
    before = jnp.pad(so_far[:, :-1], ((0, 0), (1, 0), (0, 0)))
    increments = count * (so_far - before)
    there = valid(lengths, increments)
    return increments if there is None else jnp.where(there, increments, 0)
