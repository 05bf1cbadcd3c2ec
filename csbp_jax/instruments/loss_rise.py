"""How much the loss rises around trained weights: sharpness that rescaled weights do not change.

The loss of a spiking network is piecewise constant in every weight before the read-out, so that its Hessian there is 0
almost everywhere, and the Jacobian of a surrogate gradient is not the Hessian of any loss. Where batch norm follows, a
weight's scale is free, and any eigenvalue with it (Dinh, Pascanu, Bengio & Bengio, ICML 2017). Both functions therefore
compare losses at a finite distance that is relative to each output filter (Li et al., NeurIPS 2018). A filter is all
that leads to one index of the last axis of a leaf with two or more axes; other leaves stay as they are.

Batch norm's statistics belong to the weights: ``loss`` should take them from the data, as in training.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Loss = Callable[[Any], jax.Array]
"""A scalar loss as a function of the parameters."""


def noise_rises(
    loss: Loss,
    perturbed: Callable[[jax.Array, Any, ArrayLike], Any],
    params: Any,
    keys: jax.Array,
    sizes: Sequence[float],
) -> jax.Array:
    """Compute ``(L(w + size e) + L(w - size e)) / 2 - L(w)`` for random e: the rise without its first-order part.

    Where the loss is smooth, its mean over e is ``size**2 / 2`` times the trace of the Hessian, weighed with the
    variances of e. Discontinuities, as spikes that flip, make it rise with a lower power of the size.

    Args:
      perturbed: ``(key, params, size) -> w + size e``, such as ``evaluation.robustness.weight_errors.with_noise``.
      keys: of the draws, ``[draws]``.
      sizes: of the perturbation.

    Returns:
      The rises, ``[sizes, draws]``.

    >>> squares = lambda w: jnp.sum(w**2)
    >>> signs = lambda key, w, size: w + size * jax.random.rademacher(key, w.shape, float)
    >>> noise_rises(squares, signs, jnp.ones(4), jax.random.split(jax.random.key(0), 2), (0.5, 1.0)).tolist()
    [[1.0, 1.0], [4.0, 4.0]]
    """
    start = loss(params)

    def of_draw(key: jax.Array) -> jax.Array:
        def of_size(size: jax.Array) -> jax.Array:
            both = loss(perturbed(key, params, size)) + loss(perturbed(key, params, -size))
            return both / 2 - start

        return jnp.asarray(jax.lax.map(of_size, jnp.asarray(sizes)))

    return jnp.asarray(jax.lax.map(of_draw, keys)).T


def worst_rise(loss: Loss, params: Any, radius: float, steps: int = 20) -> jax.Array:
    """Search the largest ``L(w + e) - L(w)`` with ``|e[o]| <= radius |w[o]|`` for every output filter o, by ascent.

    A step moves each filter by ``2.5 radius |w[o]| / steps`` along its gradient and projects it into its ball. The
    largest rise on the way is returned, so that it is at least 0. It is a lower bound of the largest rise in the ball,
    and with a surrogate gradient, which may point elsewhere, a loose one. (Worst rise in a ball: Keskar et al., ICLR
    2017; relative to the weights: Kwon et al., ICML 2021.)

    Args:
      radius: of the balls, relative to the norms of the filters.
      steps: of the ascent.

    >>> float(worst_rise(lambda w: jnp.sum(w**2) / 2, jnp.array([[3.0], [4.0]]), radius=0.1))
    2.625...
    """

    def ascend(offset: Any, _: None) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(jax.tree.map(jnp.add, params, offset))
        move = jax.tree.map(lambda w, e, g: _moved(w, e, g, radius, 2.5 / steps), params, offset, gradient)
        return move, value

    offset, values = jax.lax.scan(ascend, jax.tree.map(jnp.zeros_like, params), length=steps)
    last = loss(jax.tree.map(jnp.add, params, offset))
    return jnp.maximum(values.max(), last) - values[0]


def _moved(w: jax.Array, e: jax.Array, g: jax.Array, radius: float, share: float) -> jax.Array:
    """Move the offset e of a leaf along g by a share of the radius, and project it into the ball of each filter."""
    if w.ndim < 2:
        return e
    limit = radius * _norms(w)
    e = e + share * limit * g / _positive(_norms(g))
    return e * jnp.minimum(1, limit / _positive(_norms(e)))


def _positive(norms: jax.Array) -> jax.Array:
    """The norms, with 1 for those that are 0."""
    return jnp.where(norms == 0, 1, norms)


def _norms(x: jax.Array) -> jax.Array:
    """Norm of each output filter, with axes of length 1 for the others."""
    return jnp.sqrt(jnp.sum(x**2, axis=range(x.ndim - 1), keepdims=True))
