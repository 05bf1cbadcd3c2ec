"""The product of a fully connected synapse, in the form of the device for which a program is lowered."""

import functools
import math
from typing import Any

import jax
from jax import lax

from csbp_jax.xla.platform import by_platform

_FEW = 128


def product(x: jax.Array, kernel: jax.Array, dimensions: lax.DotDimensionNumbers, **options: Any) -> jax.Array:
    """Return ``x [..., inputs] @ kernel [inputs, features]``, as ``nn.Dense`` asks its ``dot_general`` for it.

    On a CPU, a kernel to few features is turned first, and so its gradient last: ``(y_bar^T x)^T``. Left alone, XLA
    computes it as ``x^T y_bar``, which reads x by columns and takes eight times as long to 10 features.
    """
    rows, features = math.prod(x.shape[:-1]), kernel.shape[1]
    if not isinstance(rows, int) or features > min(_FEW, rows):  # exported programs take any batch
        return lax.dot_general(x, kernel, dimensions, **options)
    plain = functools.partial(lax.dot_general, dimension_numbers=dimensions, **options)
    return by_platform(x, kernel, cpu=functools.partial(_turned, **options), default=plain)


def _turned(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    # The barrier, also that of the gradient, keeps XLA from turning it back.
    turned = lax.optimization_barrier(kernel.T)
    return lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ())), **options)
