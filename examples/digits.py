"""The bundled digits as arrays."""

import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, data

TIME_STEPS = 4


def load():
    """``{part: (x, y)}``: pictures shown for 4 time steps, ``[N, T, 64]`` in [0, 1], and classes ``[N]``."""
    parts = data.load(configs.load("digits"))
    return {
        name: (jnp.repeat(part.x.reshape(len(part), 1, -1), TIME_STEPS, axis=1), jnp.asarray(part.y))
        for name, part in parts.items()
    }


def batches(x, y, epochs, size=64, seed=0):
    """Shuffled ``(step, x, y)``; what does not fill a batch waits for the next epoch's shuffle."""
    rng, step = np.random.default_rng(seed), 0
    for _ in range(epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y) - size + 1, size):
            chosen = order[start : start + size]
            yield step, x[chosen], y[chosen]
            step += 1
