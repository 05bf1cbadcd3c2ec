"""The sigmoid XOR net of CBP (Tao, Cheng, Chen, Neural Networks 2022), its kicks and its training, of one start.

h1 = x W1 + b1    h2 = sigmoid(h1) W2 + b2    L = mean BCE(sigmoid(h2), y)
p <- p - lr grad L + z (I0 - X)      X: a neuron's mean of sigmoid(h) over the patterns, for all its parameters alike
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from csbp_jax import chaos

X = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = jnp.array([0.1, 0.9, 0.9, 0.1])
I0, SOLVED = 0.65, 0.35
AFTER = {"descent": None, "momentum": optax.sgd(0.2, momentum=0.9), "adam": optax.adam(0.2)}


class Setting(NamedTuple):
    """What may differ between starts and settings, all traced.

    z0, beta: strength of the kicks and their annealing a step. lr: the rate. init: half the width of the start. shift:
    added to all biases at the start. decay: weight decay. soft: targets are soft + (1 - 2 soft) y.
    """

    z0: Any = 12.0
    beta: Any = 0.999
    lr: Any = 0.2
    init: Any = 1.0
    shift: Any = 0.0
    decay: Any = 0.0
    soft: Any = 0.0


class Kind(NamedTuple):
    """What a compilation depends on.

    kick: a name of KICKS, or None. substeps: that it is taken in. force: noise or a record, added to the kick. loss:
    the term is a loss instead. first: steps with kicks; after them, so many of ``after`` (a name of AFTER).
    """

    kick: str | None = "chaos"
    substeps: int = 1
    force: Any = None
    loss: bool = False
    first: int = 10_000
    last: int = 0
    after: str = "descent"


def start(seed, init):
    """All parameters from U(-init, init)."""
    shapes = {"w1": (2, 2), "b1": (2,), "w2": (2, 1), "b2": (1,)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
        n: jax.random.uniform(k, s, minval=-1.0, maxval=1.0) * init
        for (n, s), k in zip(shapes.items(), keys, strict=True)
    }


def inputs(params):
    """``(h1 [4, 2], h2 [4, 1])``."""
    h1 = X @ params["w1"] + params["b1"][None]
    return h1, jax.nn.sigmoid(h1) @ params["w2"] + params["b2"][None]


def loss(params, soft=0.0):
    """``(mean binary cross-entropy, inputs)``."""
    h = inputs(params)
    return optax.sigmoid_binary_cross_entropy(h[1][:, 0], soft + (1 - 2 * soft) * Y).mean(), h


# A neuron's kick for z = 1, from its inputs [4, neurons].
KICKS = {
    "chaos": lambda h: I0 - jax.nn.sigmoid(h).mean(0),
    "drift": lambda h: (I0 - 0.5) * (1 - h.mean(0) / jnp.log(I0 / (1 - I0))),
}


def kick(name, params, h, z):
    """The kick of each parameter."""
    first, second = (z * KICKS[name](one) for one in h)
    whole = {"w1": first, "b1": first, "w2": second, "b2": second}
    return {n: jnp.broadcast_to(whole[n], p.shape) for n, p in params.items()}


def kicks(params, h, z, kind):
    """The whole kick of a step; in sub-steps, each from the net that the one before it left."""
    if kind.kick is None:
        return jax.tree.map(jnp.zeros_like, params)
    if kind.substeps == 1:
        return kick(kind.kick, params, h, z)

    def push(moved, _):
        more = kick(kind.kick, moved, inputs(moved), z / kind.substeps)
        return jax.tree.map(jnp.add, moved, more), None

    moved = lax.scan(push, params, length=kind.substeps)[0]
    return jax.tree.map(jnp.subtract, moved, params)


def step(params, setting, z, kind):
    """``(params, kick, gradient)``: the net after a step of descent, and what is still to be added and was taken."""

    def whole(params):
        value, h = loss(params, setting.soft)
        term = sum(chaos.term(one, I0, 1.0) for one in h) if kind.loss else 0.0
        return value + z * term, h

    gradient, h = jax.grad(whole, has_aux=True)(params)
    pushed = jax.tree.map(jnp.zeros_like, params) if kind.loss else kicks(params, h, z, kind)
    return jax.tree.map(lambda p, g: p - setting.lr * (g + setting.decay * p), params, gradient), pushed


@functools.partial(jax.jit, static_argnames=("kind", "record"))
def train(seed, setting: Setting, forcing=None, *, kind: Kind, record: bool = False):
    """``(whether the last loss is below 0.35, kicks [steps, ...] or None)``."""
    params = start(seed, setting.init)
    params |= {n: params[n] + setting.shift for n in ("b1", "b2")}
    carry = None if kind.force is None else kind.force.init(params)

    def push(state, n):
        params, carry = state
        z = chaos.strength(n, setting.z0, setting.beta)
        moved, pushed = step(params, setting, z, kind)
        if kind.force is not None:
            key = jax.random.fold_in(jax.random.key(seed), n)
            pushed, carry = kind.force.update(pushed, carry, params, step=n, key=key, forcing=forcing)
        return (jax.tree.map(jnp.add, moved, pushed), carry), pushed if record else None

    (params, _), pushes = lax.scan(push, (params, carry), jnp.arange(kind.first))
    if kind.last:
        tx = AFTER[kind.after]

        def descend(state, _):
            params, moments = state
            updates, moments = tx.update(jax.grad(loss, has_aux=True)(params)[0], moments)
            return (optax.apply_updates(params, updates), moments), None

        params = lax.scan(descend, (params, tx.init(params)), length=kind.last)[0][0]
    return loss(params)[0] < SOLVED, pushes
