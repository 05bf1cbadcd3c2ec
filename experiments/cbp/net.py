"""The sigmoid XOR net of CBP (Tao, Cheng, Chen, Neural Networks 2022), its kicks and its training, for a single start.

h1 = x W1 + b1    h2 = sigmoid(h1) W2 + b2    L = mean BCE(sigmoid(h2), y)
p <- p - lr grad L + z (I0 - X)      X: a neuron's mean of sigmoid(h) over the patterns, for all its parameters
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from csbp_jax import chaos
from experiments.xor.net import Params, per_parameter, shift_biases, uniform

I0, SOLVED = 0.65, 0.35
# Inputs of each task; its target is their parity, and its net has as many hidden neurons as inputs.
INPUTS = {"xor": 2, "parity": 3}
AFTER = {"descent": None, "momentum": optax.sgd(0.2, momentum=0.9), "adam": optax.adam(0.2)}


class Setting(NamedTuple):
    """Traced hyperparameters, which may differ between starts and settings.

    z0, beta: strength of the kicks and its annealing per step. lr: learning rate. init: half the width of the initial
    distribution. shift: added to all biases at the start. decay: weight decay. soft: targets are soft + (1 - 2 soft) y.
    ceiling: z is at most this.
    """

    z0: Any = 12.0
    beta: Any = 0.999
    lr: Any = 0.2
    init: Any = 1.0
    shift: Any = 0.0
    decay: Any = 0.0
    soft: Any = 0.0
    ceiling: Any = jnp.inf


class Kind(NamedTuple):
    """Static choices, on which the compilation depends.

    task: a name of INPUTS. kick: a name of KICKS, or None. substeps: in which the kick is taken. force: noise or a
    record, added to the kick. loss: the term is a loss instead. first: steps with kicks. last: steps of ``after`` (a
    name of AFTER) that follow.
    """

    task: str = "xor"
    kick: str | None = "chaos"
    substeps: int = 1
    force: Any = None
    loss: bool = False
    first: int = 10_000
    last: int = 0
    after: str = "descent"


def patterns(task: str) -> tuple[jax.Array, jax.Array]:
    """All patterns of a task, ``[2**inputs, inputs]``, and their targets, 0.9 where the parity is odd, else 0.1."""
    x = jnp.array(list(itertools.product([0.0, 1.0], repeat=INPUTS[task])))
    return x, jnp.where(x.sum(1) % 2 == 1, 0.9, 0.1)


def start(seed: jax.Array | int, init: Any, task: str = "xor") -> Params:
    """All parameters from U(-init, init)."""
    return {n: p * init for n, p in uniform(seed, INPUTS[task], INPUTS[task]).items()}


def inputs(params: Params, task: str = "xor") -> tuple[jax.Array, jax.Array]:
    """Inputs of the hidden and the output neurons over the patterns, ``(h1 [patterns, hidden], h2 [patterns, 1])``."""
    h1 = patterns(task)[0] @ params["w1"] + params["b1"][None]
    return h1, jax.nn.sigmoid(h1) @ params["w2"] + params["b2"][None]


def loss(params: Params, soft: Any = 0.0, task: str = "xor") -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """``(mean binary cross-entropy, inputs)``."""
    h = inputs(params, task)
    return optax.sigmoid_binary_cross_entropy(h[1][:, 0], soft + (1 - 2 * soft) * patterns(task)[1]).mean(), h


# A neuron's kick for z = 1, from its inputs [patterns, neurons].
KICKS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "chaos": lambda h: I0 - jax.nn.sigmoid(h).mean(0),
    "drift": lambda h: (I0 - 0.5) * (1 - h.mean(0) / jnp.log(I0 / (1 - I0))),
}


def kick(name: str, params: Params, h: tuple[jax.Array, jax.Array], z: Any) -> Params:
    """The kick of each parameter, from the net's inputs."""
    hidden, output = (z * KICKS[name](neurons) for neurons in h)
    return per_parameter(hidden, output, params)


def kicks(params: Params, h: tuple[jax.Array, jax.Array], z: Any, kind: Kind) -> Params:
    """The total kick of a step, over its sub-steps, each of which starts from the net that the one before it left."""
    name = kind.kick
    if name is None:
        return jax.tree.map(jnp.zeros_like, params)
    if kind.substeps == 1:
        return kick(name, params, h, z)

    def push(moved, _):
        more = kick(name, moved, inputs(moved, kind.task), z / kind.substeps)
        return jax.tree.map(jnp.add, moved, more), None

    moved = lax.scan(push, params, length=kind.substeps)[0]
    return jax.tree.map(jnp.subtract, moved, params)


def step(params: Params, setting: Setting, z: Any, kind: Kind) -> tuple[Params, Params]:
    """``(params after a step of descent, kick to be added to them)``."""

    def objective(params):
        value, h = loss(params, setting.soft, kind.task)
        term = sum(chaos.term(neurons, I0, 1.0) for neurons in h) if kind.loss else 0.0
        return value + z * term, h

    gradient, h = jax.grad(objective, has_aux=True)(params)
    pushed = jax.tree.map(jnp.zeros_like, params) if kind.loss else kicks(params, h, z, kind)
    return jax.tree.map(lambda p, g: p - setting.lr * (g + setting.decay * p), params, gradient), pushed


def strength(n: jax.Array, setting: Setting) -> jax.Array:
    """z at step n: annealed, and at most the setting's ceiling."""
    return jnp.minimum(chaos.strength(n, setting.z0, setting.beta), setting.ceiling)


@functools.partial(jax.jit, static_argnames=("kind", "record"))
def train(
    seed: jax.Array, setting: Setting, forcing: Any = None, *, kind: Kind, record: bool = False
) -> tuple[jax.Array, Params | None]:
    """Train from one start: ``(whether the last loss is below 0.35, kicks [steps, ...] or None)``."""
    params = shift_biases(start(seed, setting.init, kind.task), setting.shift)
    carry = None if kind.force is None else kind.force.init(params)

    def push(state, n):
        params, carry = state
        z = strength(n, setting)
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
            updates, moments = tx.update(jax.grad(loss, has_aux=True)(params, 0.0, kind.task)[0], moments)
            return (optax.apply_updates(params, updates), moments), None

        params = lax.scan(descend, (params, tx.init(params)), length=kind.last)[0][0]
    return loss(params, 0.0, kind.task)[0] < SOLVED, pushes
