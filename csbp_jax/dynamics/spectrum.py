"""Dimension and entropy from the whole spectrum of Lyapunov exponents."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from csbp_jax.dynamics.standard_error import standard_error


def kaplan_yorke(exponents: ArrayLike) -> jax.Array:
    """Compute the Kaplan-Yorke (Lyapunov) dimension of a spectrum (Kaplan & Yorke 1979).

    With the exponents l in falling order and k the largest number of them with a sum that is not negative:
    ``D = k + (l[1] + ... + l[k]) / |l[k+1]|``. It is 0 if all are negative, and n if the sum of all is not negative. It
    is conjectured to be the information dimension of the attractor.

    What it cannot show: the spectrum must be whole. A map that folds, as training does, may have a positive sum on a
    bounded attractor, and n is then no more than the dimension of the state. Neutral directions count by the sign of
    their rounding: (0, -1) has D = 1, and (-1e-9, -1) has 0; set exponents that are 0 within their errors to 0.

    Args:
      exponents: ``[n]``, in any order. The result is differentiable in them.

    Returns:
      D; NaN if an exponent is.

    Raises:
      ValueError: the exponents have another number of axes.

    >>> float(kaplan_yorke(jnp.array([1.0, 0.0, -4.0])))
    2.25
    """
    exponents = jnp.asarray(exponents)
    if exponents.ndim != 1:
        raise ValueError(f"kaplan_yorke: takes one spectrum [n], not an array of shape {exponents.shape}; use jax.vmap")
    ordered = -jnp.sort(-exponents)
    sums = jnp.cumsum(ordered)
    count = jnp.sum(sums >= 0)
    last = len(ordered) - 1
    total = jnp.where(count > 0, sums[jnp.clip(count - 1, 0, last)], 0.0)
    following = jnp.where(count <= last, ordered[jnp.clip(count, 0, last)], -jnp.inf)
    return jnp.where(jnp.isnan(sums[-1]), jnp.nan, count + total / jnp.abs(following))


def pesin(exponents: ArrayLike) -> jax.Array:
    """Compute the sum of the positive exponents, in nats per step.

    It is an upper bound of the metric entropy (Ruelle 1978), and equal to it where the invariant measure is smooth
    along the unstable directions (Pesin 1977). Both are theorems on smooth maps, and so on training between spike
    flips. Neutral exponents add their error where it is positive.

    Args:
      exponents: ``[n]``, with all that are positive. The result is differentiable in them.

    Returns:
      The sum; NaN if an exponent is.

    >>> float(pesin(jnp.array([1.0, 0.5, -4.0])))
    1.5
    """
    return jnp.sum(jnp.maximum(jnp.asarray(exponents), 0.0))


def delta_method(function: Callable[[jax.Array], jax.Array], history: ArrayLike) -> tuple[float, float]:
    """Compute a function of the mean exponents and its standard error, by the delta method.

    To first order, ``f(mean of h) - f(l) = mean of (h - l) . grad f(l)``. The standard error is that of the mean of
    this series, so that it accounts for the correlation of the exponents with each other and in time: in a map of
    constant Jacobian determinant, for instance, their errors cancel in the sum. It is 0 where the function is constant
    near the means, as :func:`kaplan_yorke` is at n, however near its edge is.

    Args:
      function: from exponents ``[n]`` to a number, differentiable at their means: :func:`kaplan_yorke`,
        :func:`pesin`, ``jnp.sum``.
      history: ``[chunks, n]``, local exponents as returned by :func:`csbp_jax.dynamics.lyapunov.lyapunov`.

    Returns:
      ``(value, standard error)``.
    """
    local = np.asarray(history)
    means = jnp.asarray(local.mean(axis=0))
    value, gradient = jax.value_and_grad(function)(means)
    return float(value), float(standard_error(local @ np.asarray(gradient)))
