"""The XOR net, its losses and its training, as pure functions of one start; vmap makes thousands of them.

h1 = x W1 + b1 (shown for T steps)   s1 = LIF(h1)   h2[t] = s1[t] W2 + b2   s2 = LIF(h2)   rate = mean of s2 over time
L = mean (rate - y)**2 + z (term(h1) + term(h2))
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax import chaos, controls, surrogate
from csbp_jax.neurons import lif

X = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = jnp.array([0.0, 1.0, 1.0, 0.0])
T, DECAY, SCALE = 10, 0.5, 1.0


class Setting(NamedTuple):
    """What may differ between starts and settings, all traced.

    z0, beta: strength of the term and its annealing a step. lr: the learning rate, and lr_end what it is multiplied by
    at the last step, on an exponential path. width: of the surrogate. shift: added to all biases at the start. floor:
    weight of a penalty on firing rates below 0.1. decay: weight decay. soft: targets are soft and 1 - soft. target: I0.
    """

    z0: Any = 0.0
    beta: Any = 0.999
    lr: Any = 0.5
    lr_end: Any = 1.0
    width: Any = 1.0
    shift: Any = 0.0
    floor: Any = 0.0
    decay: Any = 0.0
    soft: Any = 0.0
    target: Any = 0.65


class Kind(NamedTuple):
    """What a compilation depends on.

    term: a name of controls.TERMS. substeps: that the term's gradient is taken in. force: on the gradient, in place of
    the term (alone) or beside it. alone: whether the force stands in for the term. cbp: CBP's rule stands in for it.
    """

    term: str = "chaos"
    substeps: int = 1
    force: Any = None
    alone: bool = False
    cbp: bool = False


def start(seed: jax.Array, setting: Setting) -> dict[str, jax.Array]:
    """Weights and biases from U(-1, 1), the biases shifted."""
    shapes = {"w1": (2, 2), "b1": (2,), "w2": (2, 1), "b2": (1,)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    params = {n: jax.random.uniform(k, s, minval=-1.0) for (n, s), k in zip(shapes.items(), keys, strict=True)}
    return params | {n: params[n] + setting.shift for n in ("b1", "b2")}


def forward(params, setting):
    """``(rates [4], currents, firing rates of all three neurons [4, 3])``."""
    spike = surrogate.triangle(setting.width)
    h1 = jnp.broadcast_to((X @ params["w1"] + params["b1"][None])[:, None], (4, T, 2))
    s1, _ = lif(h1, DECAY, spike=spike)
    h2 = s1 @ params["w2"] + params["b2"][None, None]
    s2, _ = lif(h2, DECAY, spike=spike)
    return s2[..., 0].mean(1), (h1, h2), jnp.concatenate([s1, s2], axis=-1).mean(1)


def task_loss(params, setting):
    """Squared error of the rates, and the plain levers' penalties."""
    rates, currents, fired = forward(params, setting)
    goal = setting.soft + (1 - 2 * setting.soft) * Y
    floor = setting.floor * jnp.mean(jnp.maximum(0.1 - fired.mean(0), 0))
    return jnp.mean((rates - goal) ** 2) + floor, currents


def term_loss(params, setting, term):
    """The term of both layers, for z = 1."""
    _, currents, _ = forward(params, setting)
    return sum(controls.TERMS[term](h, setting.target, SCALE, cut=None, reduce="mean") for h in currents)


def term_gradient(params, setting, kind, z, lr):
    """The gradient of z times the term, or its mean along sub-steps of plain descent."""

    def push(carry, _):
        params, total = carry
        gradient = jax.tree.map(lambda g: z * g, jax.grad(term_loss)(params, setting, kind.term))
        moved = jax.tree.map(lambda p, g: p - lr / kind.substeps * g, params, gradient)
        return (moved, jax.tree.map(lambda t, g: t + g / kind.substeps, total, gradient)), None

    return lax.scan(push, (params, jax.tree.map(jnp.zeros_like, params)), length=kind.substeps)[0][1]


def cbp_kick(params, currents, z, target):
    """CBP's own rule (Tao et al. 2022): ``p <- p + z (I0 - X)``, X a neuron's mean activation; no learning rate."""
    kicks = [z * (target - jax.nn.sigmoid(h).mean((0, 1))) for h in currents]
    whole = {"w1": kicks[0], "b1": kicks[0], "w2": kicks[1], "b2": kicks[1]}
    return jax.tree.map(lambda p, k: p + jnp.broadcast_to(k, p.shape), params, whole)


@functools.partial(jax.jit, static_argnames=("kind", "steps", "record"))
def train(seed, setting: Setting, forcing=None, *, kind: Kind, steps: int = 5000, record: bool = False):
    """``(solved, params, record)``: whether all four rates are right, and z times the term's gradient at each step.

    Args:
      seed: of the start, and of the force.
      forcing: of the force (controls.py).
      record: keep the gradients, ``[steps, ...]`` for each tensor; else there is none.
    """
    params = start(seed, setting)
    force = kind.force
    carry = None if force is None else force.init(params)

    def step(carry, n):
        params, carry = carry
        z = chaos.strength(n, setting.z0, setting.beta)
        lr = setting.lr * setting.lr_end ** (n / steps)
        gradient, currents = jax.grad(task_loss, has_aux=True)(params, setting)
        gradient = jax.tree.map(lambda g, p: g + setting.decay * p, gradient, params)
        pushed = jax.tree.map(jnp.zeros_like, params)
        if not kind.alone and not kind.cbp:
            pushed = term_gradient(params, setting, kind, z, lr)
        if force is not None:
            key = jax.random.fold_in(jax.random.key(seed), n)
            gradient, carry = force.update(gradient, carry, params, step=n, key=key, forcing=forcing)
        params = jax.tree.map(lambda p, g, c: p - lr * (g + c), params, gradient, pushed)
        params = cbp_kick(params, currents, z, setting.target) if kind.cbp else params
        return (params, carry), pushed if record else None

    (params, _), pushes = lax.scan(step, (params, carry), jnp.arange(steps))
    rates, _, _ = forward(params, setting)
    return jnp.all((rates > 0.5) == (Y > 0.5)), params, pushes
