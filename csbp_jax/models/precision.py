"""Mixed precision: which tensors of a network are bfloat16, when its ``dtype`` is.

    x -> [product] -> h -> norm -> current -> [neuron's door] -> neuron -> [spikes] -> pooling -> the next product

In brackets: bfloat16. All else is float32: parameters, biases, h, norms and their statistics, sums of currents,
membranes, whatever is tapped, firing rates, the read-out, the loss. With ``dtype=None`` nothing is cast.

- 0, 1, their averages over 2x2 and sums up to 256 are exact in bfloat16. What enters a network is not: its first
  product rounds it to 8 bits, counts of events above 256 as well.
- At the door, because current, spikes and their cotangents are then half as large at every time step. The current is
  rounded once more there; its product was rounded as much.
- h and norms in float32, because the chaos term's gradient then meets the task's in float32. A sum in bfloat16 always
  rounds away what is less than 1/512 of it, and the term pulls all elements one way.
- No scaling of the loss: bfloat16 has the range of float32.
"""

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype


def to_float32(h: jax.Array) -> jax.Array:
    """bfloat16 as float32; all else as it is."""
    return h.astype(jnp.float32) if h.dtype == jnp.bfloat16 else h


def to_compute_dtype(current: jax.Array, dtype: Dtype | None) -> jax.Array:
    """At a neuron's door: its spikes have the current's dtype."""
    return current if dtype is None else current.astype(dtype)


def bias_apart(*operands: jax.Array | None, dtype: Dtype | None = None, inexact: bool = True) -> list[jax.Array | None]:
    """Flax's casts of (x, kernel, bias), but the bias stays: its gradient is a sum over batch, time and space."""
    if dtype is None:
        return promote_dtype(*operands, inexact=inexact)
    *product, bias = operands
    return [*promote_dtype(*product, dtype=dtype, inexact=inexact), bias]
