"""The chaos loss in an Equinox net. ``python -m examples.with_equinox``"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax

from csbp_jax import chaos
from examples import digits


@jax.custom_jvp
def spike(u):
    return (u > 0).astype(u.dtype)


spike.defjvps(lambda tangent, _, u: tangent / (1 + 10 * jnp.abs(u)) ** 2)


class LIF(eqx.Module):
    """A soft reset, and a decay that each neuron learns."""

    logit: jax.Array

    def __init__(self, size):
        self.logit = jnp.zeros(size)

    def __call__(self, current):
        """``[T, size]`` to spikes."""

        def step(v, current):
            u = jax.nn.sigmoid(self.logit) * v + current
            s = spike(u - 1)
            return u - s, s

        return lax.scan(step, jnp.zeros_like(current[0]), current)[1]


class Net(eqx.Module):
    hidden: eqx.nn.Linear
    neurons: LIF
    out: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.hidden = eqx.nn.Linear(64, 64, key=keys[0])
        self.neurons = LIF(64)
        self.out = eqx.nn.Linear(64, 10, key=keys[1])

    def __call__(self, x):
        """``[T, 64]``, one example, to logits ``[10]``."""
        return self.out(self.neurons(jax.vmap(self.hidden)(x)).mean(axis=0))


def loss(net, x, y, step, z0):
    value = optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(x), y).mean()
    h = jax.vmap(jax.vmap(net.hidden))(x)  # CSBP 1/3: the tensor, here the input of the neurons
    z = chaos.strength(step, z0, beta=0.98)  # CSBP 2/3: its strength, annealed
    value += z * chaos.term(h, reduce="neuron")  # CSBP 3/3: the loss
    return value


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    parts, tx, net = digits.load(), optax.adam(2e-3), Net(jax.random.key(0))

    @eqx.filter_jit
    def update(net, state, x, y, step, z0):
        updates, state = tx.update(eqx.filter_grad(loss)(net, x, y, step, z0), state)
        return eqx.apply_updates(net, updates), state

    state = tx.init(eqx.filter(net, eqx.is_inexact_array))
    for step, x, y in digits.batches(*parts["train"], epochs=epochs):
        net, state = update(net, state, x, y, jnp.asarray(step), jnp.asarray(z0))  # a Python number would be static
    x, y = parts["test"]
    return float((jax.vmap(net)(x).argmax(-1) == y).mean())


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
