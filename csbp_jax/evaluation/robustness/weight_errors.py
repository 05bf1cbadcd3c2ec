"""Errors of weights, output filter by output filter: Gaussian noise, and rounding to few bits.

Weights are the leaves of the parameters named ``kernel`` (of convolutions and dense layers, the read-out included) or
``feedback`` (of recurrent layers); their last axis numbers the outputs. Biases, norms and the neurons' own parameters
stay exact, and running statistics stay those of the exact weights.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path
from jax.typing import ArrayLike

_WEIGHTS = ("kernel", "feedback")


@jax.jit
def with_noise(key: jax.Array, params: Any, strength: ArrayLike) -> Any:
    """Add Gaussian noise to the weights, relative to the root mean square of each output filter.

    w'[i, o] = w[i, o] + strength r[o] n[i, o],    r[o] = sqrt(mean over i of w[i, o]**2),    n standard normal
    """

    def noisy(path: str, w: jax.Array) -> jax.Array:
        rms = jnp.sqrt(jnp.mean(w**2, axis=range(w.ndim - 1), keepdims=True))
        leaf_key = jax.random.fold_in(key, np.uint32(zlib.crc32(path.encode())))
        return w + strength * rms * jax.random.normal(leaf_key, w.shape, w.dtype)

    return _map_weights(noisy, params)


@jax.jit
def rounded(key: jax.Array, params: Any, bits: ArrayLike) -> Any:
    """Round the weights to ``bits`` bits, symmetrically, with a scale for each output filter; the key has no effect.

        w'[i, o] = q[o] round(w[i, o] / q[o]),    q[o] = max over i of |w[i, o]| / (2**(bits - 1) - 1)

    so that ``w / q`` is one of ``2**bits - 1`` whole numbers around 0 (Jacob et al., CVPR 2018, without a zero point).
    A filter of zeros stays as it is.
    """
    steps = 2.0 ** (jnp.asarray(bits, jnp.float32) - 1) - 1

    def quantised(_: str, w: jax.Array) -> jax.Array:
        largest = jnp.max(jnp.abs(w), axis=range(w.ndim - 1), keepdims=True)
        q = jnp.where(largest > 0, largest, 1) / steps.astype(w.dtype)
        return q * jnp.round(w / q)

    return _map_weights(quantised, params)


def _map_weights(function: Callable[[str, jax.Array], jax.Array], params: Any) -> Any:
    """Apply ``function(path, weights)`` to the weights of a tree of parameters."""

    def change(path: Any, leaf: jax.Array) -> jax.Array:
        name = keystr(path, simple=True, separator="/")
        return function(name, leaf) if name.rpartition("/")[2] in _WEIGHTS and leaf.ndim > 1 else leaf

    return tree_map_with_path(change, params)
