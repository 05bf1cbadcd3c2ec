"""The bundled digits as arrays."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, data

TIME_STEPS = 4


def load() -> dict[str, tuple[jax.Array, jax.Array]]:
    """``{split: (x, y)}``: images repeated for 4 time steps, ``[N, T, 64]`` in [0, 1], and classes ``[N]``."""
    parts: dict[str, Any] = data.load(configs.load("digits"))
    return {
        name: (jnp.repeat(part.x.reshape(len(part), 1, -1), TIME_STEPS, axis=1), jnp.asarray(part.y))
        for name, part in parts.items()
    }


def batches(
    x: jax.Array, y: jax.Array, epochs: int, size: int = 64, seed: int = 0
) -> Iterator[tuple[int, jax.Array, jax.Array]]:
    """Shuffled ``(step, x, y)`` of full batches; the remaining examples are left out until the next shuffle."""
    rng, step = np.random.default_rng(seed), 0
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y) - size + 1, size):
            chosen = order[start : start + size]
            yield step, x[chosen], y[chosen]
            step += 1
