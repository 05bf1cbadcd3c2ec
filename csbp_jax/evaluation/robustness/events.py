"""Corruptions of one recording of events ``x [T, ...]``, whole numbers of events per frame and cell, as pure functions.

A corruption is called as ``corruption(key, x, severity)``, and its result holds whole numbers too. Severities may be
traced. They act on the frames, so events move between frames and not within them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def lost_events(key: jax.Array, x: jax.Array, share: ArrayLike) -> jax.Array:
    """Lose each event independently with probability ``share``: ``x' ~ Binomial(x, 1 - share)``."""
    return x - _thin(key, x, share)


def added_events(key: jax.Array, x: jax.Array, share: ArrayLike) -> jax.Array:
    """Add background activity: ``x' = x + Poisson(share m)``, m the mean of x over all frames and cells.

    The expected number of added events is ``share`` of the recording's own.
    """
    return x + jax.random.poisson(key, share * x.mean(), x.shape).astype(x.dtype)


def lost_steps(key: jax.Array, x: jax.Array, share: ArrayLike) -> jax.Array:
    """Lose each frame independently with probability ``share``: all its events."""
    lost = jax.random.bernoulli(key, share, (len(x), *(1,) * (x.ndim - 1)))
    return jnp.where(lost, 0, x)


def jitter(key: jax.Array, x: jax.Array, share: ArrayLike) -> jax.Array:
    """Move each event with probability ``share`` to the frame before or after its own, equally likely.

    An event that would leave the recording stays in its frame, so the number of events is preserved.
    """
    move_key, direction_key = jax.random.split(key)
    moved = _thin(move_key, x, share)
    earlier = _thin(direction_key, moved, 0.5)
    earlier, later = earlier.at[0].set(0), (moved - earlier).at[-1].set(0)
    return x - earlier - later + jnp.roll(earlier, -1, axis=0) + jnp.roll(later, 1, axis=0)


def _thin(key: jax.Array, x: jax.Array, share: ArrayLike) -> jax.Array:
    """Draw ``Binomial(x, share)`` for each cell."""
    return jax.random.binomial(key, x, share, dtype=x.dtype)
