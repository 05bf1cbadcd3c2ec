"""Mixing of two examples and, in the same proportion, of their labels: ``x [B, ...]``, probabilities ``y [B, C]``.

Each example has its own proportion and is mixed with its neighbour in the batch. The order of the data is random
already, so a neighbour is as good as a random partner, and a batch that is split over devices only exchanges its edges.
The proportion lam is drawn from Beta(1, 1), the uniform distribution, as both papers do for CIFAR-10.
"""

import jax
import jax.numpy as jnp

from csbp_jax.data.device import augment


def mixup(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return lam x_i + (1 - lam) x_j, and the same of y. Zhang et al. 2018, arXiv:1710.09412."""
    proportion = jax.random.uniform(key, (len(x),))
    return _blend(x, proportion), _blend(y, proportion)


def cutmix(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Fill a rectangle of area 1 - lam from the other example, in all frames of ``x [B, T, H, W, C]``.

    Labels are weighted by the visible areas, since the rectangle is cut off at the edges. Yun et al. 2019,
    arXiv:1905.04899.
    """
    height, width = x.shape[2:4]

    def rectangle(key: jax.Array) -> jax.Array:
        size_key, box_key = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.uniform(size_key))
        sides = (jnp.int32(height * side), jnp.int32(width * side))
        return augment.box(box_key, (height, width), sides)

    inside = jax.vmap(rectangle)(jax.random.split(key, len(x)))
    proportion = 1 - inside.mean((1, 2), dtype=y.dtype)
    return jnp.where(inside[:, None, :, :, None], jnp.roll(x, 1, axis=0), x), _blend(y, proportion)


def probabilities(y: jax.Array, classes: int) -> jax.Array:
    """Convert labels ``[B]`` to one-hot ``[B, classes]``; probabilities ``[B, classes]`` stay as they are."""
    return y if y.ndim == 2 else jax.nn.one_hot(y, classes)


def _blend(values: jax.Array, proportion: jax.Array) -> jax.Array:
    proportion = proportion.reshape(-1, *[1] * (values.ndim - 1))
    return proportion * values + (1 - proportion) * jnp.roll(values, 1, axis=0)
