"""The chaos loss in a Flax NNX net, on the input of a layer deep inside it. ``python -m examples.with_nnx``"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from csbp_jax import chaos
from examples import digits


@jax.custom_jvp
def spike(u):
    return (u > 0).astype(u.dtype)


spike.defjvps(lambda tangent, _, u: tangent * jnp.maximum(1 - jnp.abs(u), 0))


def lif(current):
    """``[B, T, ...]`` to spikes."""

    def step(v, current):
        u = 0.5 * v + current
        s = spike(u - 1)
        return u * (1 - s), s

    _, spikes = lax.scan(step, jnp.zeros_like(current[:, 0]), current.swapaxes(0, 1))
    return spikes.swapaxes(0, 1)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        """``[B, T, 64]`` to logits ``[B, 10]``."""
        spikes = lif(self.first(x))
        spikes = lif(self.second(spikes))
        return self.out(spikes.mean(axis=1))


def loss(net, x, y, step, z0):
    # The first marked line stands in for the one above it, which jit then drops.
    logits = net(x)
    logits, taken = nnx.capture(net, nnx.Intermediate, method_outputs=nnx.Intermediate)(x)  # CSBP 1/3: all outputs
    value = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    z = chaos.strength(step, z0, beta=0.98)  # CSBP 2/3: its strength, annealed
    value += z * chaos.term(taken["second"]["__call__"][0], reduce="neuron")  # CSBP 3/3: the loss
    return value


@nnx.jit
def update(net, optimizer, x, y, step, z0):
    optimizer.update(net, nnx.grad(loss)(net, x, y, step, z0))


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    parts, net = digits.load(), Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, optax.adam(2e-3), wrt=nnx.Param)
    for step, x, y in digits.batches(*parts["train"], epochs=epochs):
        update(net, optimizer, x, y, step, z0)
    x, y = parts["test"]
    return float((net(x).argmax(-1) == y).mean())


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
