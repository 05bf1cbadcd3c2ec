"""Two examples in one, and their labels in the same proportion: ``x [B, ...]``, ``y [B, C]`` probabilities.

Each example has its own proportion and is mixed with its neighbour in the batch, which is as good as a random one:
the order of the data is random already. A batch that is split over devices then only passes on its edges. The
proportion lam is drawn from Beta(1, 1), which is uniform, as both papers do for CIFAR-10.
"""

import jax
import jax.numpy as jnp

from csbp_jax.data.device import augment


def mixup(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """lam x_i + (1 - lam) x_j, and y alike. Zhang et al. 2018, arXiv:1710.09412."""
    share = jax.random.uniform(key, (len(x),))
    return _blend(x, share), _blend(y, share)


def cutmix(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A rectangle of 1 - lam of the area is filled from the other example, in all frames of ``x [B, T, H, W, C]``.

    The labels weigh what is really visible, since the rectangle is cut off at the edges. Yun et al. 2019,
    arXiv:1905.04899.
    """
    height, width = x.shape[2:4]

    def rectangle(key):
        size, place = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.uniform(size))
        sides = (jnp.int32(height * side), jnp.int32(width * side))
        return augment.box(place, (height, width), sides)

    inside = jax.vmap(rectangle)(jax.random.split(key, len(x)))
    share = 1 - inside.mean((1, 2), dtype=y.dtype)
    return jnp.where(inside[:, None, :, :, None], _partner(x), x), _blend(y, share)


def probabilities(y: jax.Array, classes: int) -> jax.Array:
    """Labels ``[B]`` as ``[B, classes]``; ``[B, classes]`` as it is."""
    return y if y.ndim == 2 else jax.nn.one_hot(y, classes)


def _blend(values, share):
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * _partner(values)


def _partner(values):
    return jnp.roll(values, 1, axis=0)
