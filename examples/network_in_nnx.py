"""A network of this package as a Flax NNX module, trained with the chaos loss. ``python -m examples.network_in_nnx``"""

import jax.numpy as jnp
import optax
from flax import nnx

from csbp_jax import chaos, models
from csbp_jax.config import Model
from examples import digits

TAP = "fc1.membrane"


def build(seed=0):
    network = models.build(Model(name="dense", input_shape=(64,), classes=10, time_steps=4, features=(64, 64)))
    # Networks with dropout also need nnx.Rngs(params=seed, dropout=seed + 1).
    return nnx.bridge.ToNNX(network, rngs=nnx.Rngs(seed)).lazy_init(jnp.zeros((1, 4, 64)))


def loss(net, x, y, step, z0):
    # In training, the norms' running statistics are updated; the net holds the new ones.
    logits, aux = net(x, True, mutable=["batch_stats"], taps=(TAP,))
    value = optax.softmax_cross_entropy_with_integer_labels(logits.mean(axis=1), y).mean()
    return value + chaos.strength(step, z0, beta=0.98) * aux.terms[TAP]


@nnx.jit
def update(net, optimizer, x, y, step, z0):
    value, gradient = nnx.value_and_grad(loss)(net, x, y, step, z0)
    optimizer.update(net, gradient)
    return value


def train(z0: float, epochs: int = 4) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    splits, net = digits.load(), build()
    optimizer = nnx.Optimizer(net, optax.adam(2e-3), wrt=nnx.Param)
    for step, x, y in digits.batches(*splits["train"], epochs=epochs):
        update(net, optimizer, x, y, step, z0)
    x, y = splits["test"]
    logits, _ = net(x)
    return float((logits.mean(axis=1).argmax(-1) == y).mean())


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=10.0):.2%} of the test digits")
