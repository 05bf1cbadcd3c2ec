"""Mixed precision: which tensors of a network are bfloat16 if its ``dtype`` is.

    x -> [product] -> h -> norm -> current -> [input of the neuron] -> neuron -> [spikes] -> pooling -> next product

Tensors in brackets are bfloat16. All others are float32: parameters, biases, h, norms and their statistics, sums of
currents, membranes, tapped tensors, firing rates, the read-out, the loss. In a recurrent layer, though, the feedback
and its sum with the current are bfloat16. With ``dtype=None`` nothing is cast.

Products of float32, that of the read-out too, are what JAX makes of them on the device: a TPU rounds their factors to
bfloat16, an A100 or H100 to 11 bits (TF32), unless ``JAX_DEFAULT_MATMUL_PRECISION`` is ``highest``. The membranes of a
PSN, which are products, keep all bits of float32.

- 0, 1, their averages over 2x2 and sums up to 256 are exact in bfloat16. The input of a network is not: its first
  product rounds it to 8 bits, and so event counts above 256 too. Dropout and drop-path of spikes divide them by
  1 - rate in bfloat16, so that this factor, and sums after it, are rounded to 8 bits.
- The input of a neuron is bfloat16 because current, spikes and their cotangents then take half the memory at every time
  step. The current is rounded once more there, by as much as its product was.
- h and norms are float32 because the gradients of chaos term and task are then added in float32. A sum in bfloat16
  rounds away any summand below 1/512 of it, and the term pulls all elements in one direction.
- The loss is not scaled: bfloat16 has the range of float32.
"""

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype


def to_float32(h: jax.Array) -> jax.Array:
    """Cast bfloat16 to float32; return other dtypes unchanged."""
    return h.astype(jnp.float32) if h.dtype == jnp.bfloat16 else h


def to_compute_dtype(current: jax.Array, dtype: Dtype | None) -> jax.Array:
    """Cast a neuron's input current to ``dtype``, which its spikes then have too; None leaves it unchanged."""
    return current if dtype is None else current.astype(dtype)


def promote_without_bias(
    *operands: jax.Array | None, dtype: Dtype | None = None, inexact: bool = True
) -> list[jax.Array | None]:
    """Cast (x, kernel, bias) as Flax does, except for the bias."""
    if dtype is None:
        return promote_dtype(*operands, inexact=inexact)
    # The bias stays float32: its gradient is a sum over batch, time and space.
    *product, bias = operands
    return [*promote_dtype(*product, dtype=dtype, inexact=inexact), bias]
