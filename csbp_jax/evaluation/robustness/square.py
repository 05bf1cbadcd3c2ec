"""Black-box attack by random squares (Andriushchenko et al., ECCV 2020, arXiv:1912.00049), which needs no gradient.

It sees the logits alone. A network whose gradients mislead an attacker (masked gradients) may survive PGD; it does not
survive this attack for that reason, so PGD's result is only believed where it is the lower of the two.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from csbp_jax.evaluation.robustness import pictures
from csbp_jax.evaluation.robustness.pgd import Logits

FIRST_SHARE = 0.8
"""Share of the picture that the first squares cover, as in AutoAttack (Croce & Hein, ICML 2020)."""

_HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
"""Queries of 10,000 after which the share is halved."""

_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def sides(queries: int, height: int, width: int) -> NDArray[np.int32]:
    """Return the side of the square of each query, ``[queries]``; the first query, of stripes, has none.

    It is ``sqrt(p H W)``, rounded, from 1 to the shorter side of the picture; p falls from :data:`FIRST_SHARE`, halved
    after 10, 50, 200, 1000, 2000, 4000, 6000 and 8000 queries of 10,000, in proportion for other numbers.
    """
    halved = np.searchsorted(np.array(_HALVINGS) * queries / 10_000, np.arange(queries))
    side = np.round(np.sqrt(FIRST_SHARE * 0.5**halved * height * width))
    return np.asarray(np.clip(side, 1, min(height, width)), np.int32)


def margin(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Compute ``z[y] - max over k != y of z[k]`` for logits ``[B, classes]``.

    It is below 0 where misclassified; at 0, where logits are equal, the first class of them is predicted.
    """
    label = jax.nn.one_hot(y, logits.shape[-1], dtype=bool)
    return jnp.max(logits, axis=-1, where=label, initial=-math.inf) - jnp.max(
        logits, axis=-1, where=~label, initial=-math.inf
    )


def attack(
    logits: Logits, keys: jax.Array, x: jax.Array, y: jax.Array, eps: ArrayLike, side: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Search for misclassified pictures within ``|x' - x| <= eps`` and [0, 1].

    The first query is x with vertical stripes of -eps or eps, for each column and channel. Each further one sets a
    square at a random position, in each channel, to x - eps or x + eps (the projection of the paper's change by 2 eps).
    A change is accepted if it lowers the margin or is misclassified; an example that is misclassified is left as it is.

    Args:
      logits: function of the pictures.
      keys: ``[B]``.
      x: ``[B, 1, H, W, C]`` in [0, 1]. y: labels ``[B]``.
      eps: largest change of a pixel.
      side: ``[queries]``, of :func:`sides`.

    Returns:
      ``(x', margin [B], fooled [B], queries [B])``: the pictures of the last accepted query, their margins and whether
      they are misclassified, and the number of queries until they were (all of them if they are not).
    """
    _, _, height, width, channels = x.shape
    low, high = jnp.maximum(x - eps, 0), jnp.minimum(x + eps, 1)

    def stripes(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, shape=(1, 1, width, channels))

    def proposal(key: jax.Array, side: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the square, ``[1, H, W, 1]``, and whether it is bright in each channel, ``[1, 1, 1, C]``."""
        position_key, sign_key = jax.random.split(key)
        square = pictures.random_square(position_key, (height, width), side)
        return square[None, :, :, None], jax.random.bernoulli(sign_key, shape=(1, 1, 1, channels))

    def answer(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = logits(x)
        return margin(z, y), z.argmax(axis=-1) != y

    def query(carry: _Carry) -> _Carry:
        i, current, best, fooled, queries = carry
        query_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        square, bright = jax.vmap(proposal, (0, None))(query_keys, side[i])
        candidate = jnp.where(square, jnp.where(bright, high, low), current)
        new, wrong = answer(candidate)
        accepted = ~fooled & (wrong | (new < best))
        current = jnp.where(accepted.reshape(-1, 1, 1, 1, 1), candidate, current)
        return i + 1, current, jnp.where(accepted, new, best), fooled | wrong, queries + ~fooled

    def unfinished(carry: _Carry) -> jax.Array:
        i, _, _, fooled, _ = carry
        return (i < len(side)) & ~jnp.all(fooled)

    start = jnp.where(jax.vmap(stripes)(keys), high, low)
    carry = (jnp.int32(1), start, *answer(start), jnp.ones(len(x), jnp.int32))
    _, current, best, fooled, queries = jax.lax.while_loop(unfinished, query, carry)
    return current, best, fooled, queries
