"""A value that XLA computes once and writes to memory, for programs on CPU."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def unfused(x: jax.Array) -> jax.Array:
    """Return x, written to memory as it is: XLA on CPU does not fuse across a call that is not inlined.

    Left alone, it computes x again within each operation that reads it.
    """
    with set_xla_metadata(inlineable="false"):
        same: jax.Array = _identity(x)
    return same


@jax.jit
def _identity(x: jax.Array) -> jax.Array:
    return x
