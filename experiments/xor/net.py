"""The spiking XOR net, its losses and its training, as pure functions of a single start, to be mapped by vmap.

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

Params = dict[str, jax.Array]
"""``{w1 [2, 2], b1 [2], w2 [2, 1], b2 [1]}``."""


class Setting(NamedTuple):
    """Traced hyperparameters, which may differ between starts and settings.

    z0, beta: strength of the term and its annealing per step. lr: learning rate. width: of the surrogate. shift: added
    to all biases at the start. target: I0.
    """

    z0: Any = 0.0
    beta: Any = 0.999
    lr: Any = 0.5
    width: Any = 1.0
    shift: Any = 0.0
    target: Any = 0.65


class Kind(NamedTuple):
    """Static choices, on which the compilation depends.

    term: a name of controls.TERMS. substeps: in which the term's gradient is taken. force: added to the gradient,
    beside the term or, with alone, instead of it. cbp: CBP's rule instead of the term.
    """

    term: str = "chaos"
    substeps: int = 1
    force: Any = None
    alone: bool = False
    cbp: bool = False


@functools.partial(jax.jit, static_argnames=("inputs", "hidden"))
def uniform(seed: jax.Array | int, inputs: int = 2, hidden: int = 2) -> Params:
    """Weights and biases from U(-1, 1)."""
    shapes = {"w1": (inputs, hidden), "b1": (hidden,), "w2": (hidden, 1), "b2": (1,)}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {n: jax.random.uniform(k, s, minval=-1.0) for (n, s), k in zip(shapes.items(), keys, strict=True)}


def shift_biases(params: Params, shift: Any) -> Params:
    """Add ``shift`` to all biases."""
    return params | {n: params[n] + shift for n in ("b1", "b2")}


def per_parameter(hidden: jax.Array, output: jax.Array, params: Params) -> Params:
    """Values of the hidden neurons ``[2]`` and of the output neuron ``[1]``, for all parameters of each neuron."""
    values = {"w1": hidden, "b1": hidden, "w2": output, "b2": output}
    return {n: jnp.broadcast_to(values[n], p.shape) for n, p in params.items()}


def start(seed: jax.Array, setting: Setting) -> Params:
    """Weights and biases from U(-1, 1), the biases shifted."""
    return shift_biases(uniform(seed), setting.shift)


def forward(params: Params, setting: Setting) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """``(rates [4], currents)``."""
    spike = surrogate.triangle(setting.width)
    h1 = jnp.broadcast_to((X @ params["w1"] + params["b1"][None])[:, None], (4, T, 2))
    s1, _ = lif(h1, DECAY, spike=spike)
    h2 = s1 @ params["w2"] + params["b2"][None, None]
    s2, _ = lif(h2, DECAY, spike=spike)
    return s2[..., 0].mean(1), (h1, h2)


def task_loss(params: Params, setting: Setting) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """``(squared error of the rates, currents)``."""
    rates, currents = forward(params, setting)
    return jnp.mean((rates - Y) ** 2), currents


def term_loss(params: Params, setting: Setting, term: str) -> jax.Array:
    """The term of both layers, for z = 1."""
    _, currents = forward(params, setting)
    hidden, output = (controls.TERMS[term](h, setting.target, SCALE, cut=None, reduce="mean") for h in currents)
    return hidden + output


def term_gradient(params: Params, setting: Setting, kind: Kind, z: Any, lr: Any) -> Params:
    """The gradient of z times the term, or its mean along sub-steps of plain descent."""

    def push(carry, _):
        params, total = carry
        gradient = jax.tree.map(lambda g: z * g, jax.grad(term_loss)(params, setting, kind.term))
        moved = jax.tree.map(lambda p, g: p - lr / kind.substeps * g, params, gradient)
        return (moved, jax.tree.map(lambda t, g: t + g / kind.substeps, total, gradient)), None

    return lax.scan(push, (params, jax.tree.map(jnp.zeros_like, params)), length=kind.substeps)[0][1]


def cbp_kick(params: Params, currents: tuple[jax.Array, jax.Array], z: Any, target: Any) -> Params:
    """CBP's rule (Tao et al. 2022): ``p <- p + z (I0 - X)``, X a neuron's mean activation; without a learning rate."""
    hidden, output = (z * (target - jax.nn.sigmoid(h).mean((0, 1))) for h in currents)
    return jax.tree.map(jnp.add, params, per_parameter(hidden, output, params))


@functools.partial(jax.jit, static_argnames=("kind", "steps", "record"))
def train(
    seed: jax.Array,
    setting: Setting,
    forcing: Any = None,
    *,
    kind: Kind,
    steps: int = 5000,
    record: bool = False,
) -> tuple[jax.Array, Params, Params | None]:
    """Train from the start of a seed; arguments and results as of :func:`train_from`."""
    return train_from(start(seed, setting), seed, setting, forcing, kind=kind, steps=steps, record=record)


@functools.partial(jax.jit, static_argnames=("kind", "steps", "record"))
def train_from(
    params: Params,
    seed: jax.Array,
    setting: Setting,
    forcing: Any = None,
    *,
    kind: Kind,
    steps: int = 5000,
    record: bool = False,
) -> tuple[jax.Array, Params, Params | None]:
    """Train from given parameters: ``(whether all four rates are right, params, record)``.

    Args:
      seed: of the force.
      forcing: of the force (controls.py).
      record: also return z times the term's gradient at each step, ``[steps, ...]`` for each tensor, instead of None.
    """
    force = kind.force
    carry = None if force is None else force.init(params)

    def step(carry, n):
        params, carry = carry
        z = chaos.strength(n, setting.z0, setting.beta)
        gradient, currents = jax.grad(task_loss, has_aux=True)(params, setting)
        pushed = jax.tree.map(jnp.zeros_like, params)
        if not kind.alone and not kind.cbp:
            pushed = term_gradient(params, setting, kind, z, setting.lr)
        if force is not None:
            key = jax.random.fold_in(jax.random.key(seed), n)
            gradient, carry = force.update(gradient, carry, params, step=n, key=key, forcing=forcing)
        params = jax.tree.map(lambda p, g, c: p - setting.lr * (g + c), params, gradient, pushed)
        params = cbp_kick(params, currents, z, setting.target) if kind.cbp else params
        return (params, carry), pushed if record else None

    (params, _), pushes = lax.scan(step, (params, carry), jnp.arange(steps))
    rates, _ = forward(params, setting)
    return jnp.all((rates > 0.5) == (Y > 0.5)), params, pushes
