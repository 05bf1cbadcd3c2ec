"""The chaos loss in plain JAX: weights in a dict, a scan over time. ``python -m examples.with_jax``"""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from csbp_jax import chaos
from examples import digits


def init(key):
    keys = jax.random.split(key)
    return {"hidden": jax.random.normal(keys[0], (64, 64)) / 4, "out": jax.random.normal(keys[1], (64, 10)) / 8}


def spike(u):
    """Step function with the derivative of a sigmoid."""
    smooth = jax.nn.sigmoid(4 * u)
    return smooth + lax.stop_gradient((u > 0).astype(u.dtype) - smooth)


def forward(weights, x):
    """``[B, T, 64]`` to logits ``[B, 10]``."""
    current = x @ weights["hidden"]

    def step(v, current):
        u = 0.5 * v + current
        s = spike(u - 1)
        return u * (1 - s), s

    _, spikes = lax.scan(step, jnp.zeros_like(current[:, 0]), current.swapaxes(0, 1))
    return spikes.mean(axis=0) @ weights["out"]


def loss(weights, x, y, step, z0):
    value = optax.softmax_cross_entropy_with_integer_labels(forward(weights, x), y).mean()
    h = x @ weights["hidden"]  # CSBP 1/3: the tensor, here the input of the neurons
    z = chaos.strength(step, z0, beta=0.98)  # CSBP 2/3: its strength, annealed at each step
    value += z * chaos.term(h, reduce="neuron")  # CSBP 3/3: the loss
    return value


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    parts, tx, weights = digits.load(), optax.adam(2e-3), init(jax.random.key(0))

    @jax.jit
    def update(weights, state, x, y, step, z0):
        updates, state = tx.update(jax.grad(loss)(weights, x, y, step, z0), state)
        return optax.apply_updates(weights, updates), state

    state = tx.init(weights)
    for step, x, y in digits.batches(*parts["train"], epochs=epochs):
        weights, state = update(weights, state, x, y, step, z0)
    x, y = parts["test"]
    return float((forward(weights, x).argmax(-1) == y).mean())


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
