"""Flip ratio: curvature over the curvature at which a training step starts to overshoot."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from csbp_jax.dynamics.state import PyTree

TOLERANCE = 1e-2
"""Relative tolerance of the eigenvalue."""


def flip_ratio(
    gradient: Callable[..., PyTree],
    params: PyTree,
    lr: float,
    momentum: float = 0.0,
    scale: PyTree = None,
    *,
    args: tuple[PyTree, ...] = (),
) -> float:
    """Compute ``lr max Re eig(P J) / (2 (1 + momentum))``; above 1, a training step flips in some direction.

    ``J`` is the Jacobian of ``gradient``, ``P`` the preconditioner. Under heavy-ball descent, ``m <- momentum m + g``,
    ``x <- x - lr P m``, an eigendirection of curvature c loses its stability by flipping where ``lr c`` exceeds
    ``2 (1 + momentum)``. A surrogate gradient is not the gradient of a function, so J need not be symmetric: the
    largest real part is computed by Arnoldi's method (ARPACK), from about 20 to 60 products of J with vectors (jvp).

    Args:
      gradient: gradient of a loss, as a function of the parameters and ``args``. The same function object is compiled
        once over calls.
      params: the parameters at which J is taken.
      lr: the learning rate of this step. For Adam's t-th step the rate times ``(1 - b1) / (1 - b1**t)``, with
        ``momentum=b1``.
      momentum: of the heavy ball.
      scale: pytree like ``params``, the diagonal of P; ones by default. For Adam ``1 / (sqrt(nu_hat) + eps)``.
      args: further arguments of the gradient, pytrees of arrays.

    Returns:
      The ratio; not positive if no direction has positive curvature. NaN if the method did not converge or the Jacobian
      is not finite.

    >>> round(flip_ratio(lambda x: x * jnp.array([1.0, 8.0, 3.0]), jnp.zeros(3), lr=0.5), 4)
    2.0
    """
    from scipy.sparse.linalg import ArpackError

    x, _ = ravel_pytree(params)
    factor = jnp.ones_like(x) if scale is None else ravel_pytree(scale)[0]

    def product(v: NDArray[Any]) -> NDArray[Any]:
        image = np.asarray(factor * _jacobian_vector(gradient, params, args, jnp.asarray(v.reshape(-1), x.dtype)))
        if not np.isfinite(image).all():
            raise FloatingPointError
        return image

    try:
        return float(lr * _largest(product, x) / (2 * (1 + momentum)))
    except (FloatingPointError, ArpackError):
        return float("nan")


# ARPACK needs fewer vectors than dimensions; up to this size the whole matrix costs less anyway.
_DENSE = 32


def _largest(product: Callable[[NDArray[Any]], NDArray[Any]], x: jax.Array) -> float | np.floating[Any]:
    """Compute the largest real part of the eigenvalues of a matrix with x's size and dtype, from its products."""
    from scipy.sparse.linalg import LinearOperator, eigs

    if x.size <= _DENSE:
        matrix = np.stack([product(row) for row in np.eye(x.size)], axis=1)
        return np.linalg.eigvals(matrix).real.max()
    start = np.random.default_rng(0).standard_normal(x.size)
    # Only the null matrix maps a random vector to 0, and ARPACK rejects a start that is mapped to 0.
    if not product(start).any():
        return 0.0
    operator = LinearOperator((x.size, x.size), product, dtype=x.dtype)
    return eigs(operator, 1, which="LR", v0=start, tol=TOLERANCE, return_eigenvectors=False).real.max()


@functools.partial(jax.jit, static_argnames="gradient")
def _jacobian_vector(
    gradient: Callable[..., PyTree], params: PyTree, args: tuple[PyTree, ...], direction: jax.Array
) -> jax.Array:
    unravel = ravel_pytree(params)[1]
    return ravel_pytree(jax.jvp(lambda p: gradient(p, *args), (params,), (unravel(direction),))[1])[0]
