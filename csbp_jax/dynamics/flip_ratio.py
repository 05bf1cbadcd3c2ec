"""Where a training step starts to overshoot."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree


def flip_ratio(
    gradient: Callable[..., Any],
    params: Any,
    lr: float,
    momentum: float = 0.0,
    scale: Any = None,
    *,
    args: tuple[Any, ...] = (),
    tolerance: float = 1e-2,
    seed: int = 0,
) -> float:
    """``lr max Re eig(P J) / (2 (1 + momentum))``: above 1, the map of a training step flips over in some direction.

    ``J`` is the Jacobian of ``gradient``, ``P`` the preconditioner. Of heavy-ball descent, ``m <- momentum m + g``,
    ``x <- x - lr P m``, an eigendirection of curvature c loses its stability by flipping where ``lr c`` passes
    ``2 (1 + momentum)``. A surrogate gradient is no gradient of anything, so J need not be symmetric: the largest real
    part is found by Arnoldi's method (ARPACK), from products of J with vectors (jvp) alone, some 20 to 60 of them.

    Args:
      gradient: of a loss, as a function of the parameters and ``args``. The same function object is compiled once
        over calls.
      params: where.
      lr: the learning rate of this step. For Adam the rate times ``1 - b1``, with ``momentum=b1``.
      momentum: of the heavy ball.
      scale: pytree like ``params``, the diagonal of P; ones by default. For Adam ``1 / (sqrt(nu_hat) + eps)``.
      args: pytrees of arrays: what else the gradient depends on.
      tolerance: relative, of the eigenvalue.
      seed: of the first vector.

    Returns:
      The ratio; not positive where no direction curves upwards. NaN where the method did not converge, and where the
      Jacobian is not finite.

    >>> round(flip_ratio(lambda x: x * jnp.array([1.0, 8.0, 3.0]), jnp.zeros(3), lr=0.5), 4)
    2.0
    """
    from scipy.sparse.linalg import ArpackError

    x, _ = ravel_pytree(params)
    factor = jnp.ones_like(x) if scale is None else ravel_pytree(scale)[0]

    def product(v):
        pushed = np.asarray(factor * _curve(gradient, params, args, jnp.asarray(v.reshape(-1), x.dtype)))
        if not np.isfinite(pushed).all():
            raise FloatingPointError
        return pushed

    try:
        return float(lr * _largest(product, x, tolerance, seed) / (2 * (1 + momentum)))
    except (FloatingPointError, ArpackError):
        return float("nan")


def _largest(product, x, tolerance, seed):
    """The largest real part of an eigenvalue of a matrix of x's size and type, given by its products with vectors."""
    from scipy.sparse.linalg import LinearOperator, eigs

    if x.size <= _DENSE:
        return np.linalg.eigvals(np.stack([product(row) for row in np.eye(x.size)], axis=1)).real.max()
    start = np.random.default_rng(seed).standard_normal(x.size)
    if not product(start).any():
        return 0.0  # a random vector is in no null space but the whole; ARPACK wants another start
    operator = LinearOperator((x.size, x.size), product, dtype=x.dtype)
    return eigs(operator, 1, which="LR", v0=start, tol=tolerance, return_eigenvectors=False).real.max()


# ARPACK wants fewer vectors than dimensions; up to here the whole matrix costs less.
_DENSE = 32


@functools.partial(jax.jit, static_argnames="gradient")
def _curve(gradient, params, args, direction):
    unravel = ravel_pytree(params)[1]
    return ravel_pytree(jax.jvp(lambda p: gradient(p, *args), (params,), (unravel(direction),))[1])[0]
