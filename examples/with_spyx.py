"""The chaos loss in a spyx net; time is axis 0 there. ``python -m examples.with_spyx``"""

import jax.numpy as jnp
import optax
import spyx
import spyx.nn as snn
from flax import nnx

from csbp_jax import chaos
from examples import digits


def init(seed):
    rngs = nnx.Rngs(seed)
    beta = jnp.float32(0.5)  # 0.5 alone would be weakly typed until the first update, and compile it three times
    return snn.Sequential(
        nnx.Linear(64, 64, use_bias=False, rngs=rngs),
        snn.LIF((64,), beta=beta, activation=spyx.axn.superspike(5), rngs=rngs),
        nnx.Linear(64, 10, use_bias=False, rngs=rngs),
        snn.LI((10,), beta, rngs=rngs),
    )


def forward(net, x):
    """``[B, T, 64]`` to the read-out's membranes ``[T, B, 10]``."""
    return snn.run(net, x.swapaxes(0, 1))[0]


def loss(net, x, y, step, z0):
    value = optax.softmax_cross_entropy_with_integer_labels(forward(net, x).sum(axis=0), y).mean()
    h = net.layers[0](x)  # CSBP 1/3: the tensor, here the input of the LIF layer
    z = chaos.strength(step, z0, beta=0.98)  # CSBP 2/3: its strength, annealed
    value += z * chaos.term(h, reduce="neuron")  # CSBP 3/3: the loss
    return value


@nnx.jit
def update(net, optimizer, x, y, step, z0):
    optimizer.update(net, nnx.grad(loss)(net, x, y, step, z0))


def train(z0: float, epochs: int = 8) -> float:
    """Train with the initial strength z0, and return the test accuracy."""
    parts, net = digits.load(), init(0)
    optimizer = nnx.Optimizer(net, optax.adam(2e-3), wrt=nnx.Param)
    for step, x, y in digits.batches(*parts["train"], epochs=epochs):
        update(net, optimizer, x, y, step, z0)
    x, y = parts["test"]
    return float((forward(net, x).sum(axis=0).argmax(-1) == y).mean())


if __name__ == "__main__":
    print(f"plain {train(z0=0.0):.2%}, CSBP {train(z0=0.1):.2%} of the test digits")
