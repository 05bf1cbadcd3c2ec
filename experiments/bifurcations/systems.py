"""The three trainings of the plan as maps with a knob: ``step(state, batch)``, states of many values and starts."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.training.compiled import resolve
from experiments import one_neuron
from experiments.xor import phase
from experiments.xor.net import Setting
from experiments.xor.net import start as xor_start


class System(NamedTuple):
    """A map and what to look at.

    states: ``states(axis, values) -> states [values x starts]``. dynamical_leaves, readout: of one state. size: of one
    state; a run whose size grows by ``verdict.AWAY``, or is NaN as a step was not finite, has run away.
    """

    step: Callable[[Any, Any], Any]
    states: Callable[[str, Sequence[float]], Any]
    dynamical_leaves: Any
    readout: Callable[[Any], jax.Array]
    batch: Any
    starts: int
    size: Callable[[Any], jax.Array]


def stacked(one, values, starts):
    """``one(value, start)`` of all pairs, values first."""
    pairs = [(value, start) for value in values for start in starts]
    return jax.vmap(one)(*(jnp.asarray(column) for column in zip(*pairs, strict=True)))


def neuron_step(state, _):
    weights, knobs = state
    return one_neuron.update(weights, time_steps=20, **knobs)[0], knobs


def neuron():
    """One neuron that learns to be silent."""
    base = {"z": 9.0, "lr": one_neuron.LR, "target": one_neuron.TARGET}

    def states(axis, values):
        def one(value, start):
            knobs = {name: jnp.asarray(number) for name, number in base.items()}
            return (start, start), knobs | {axis: value}

        return stacked(one, values, np.linspace(-6.0, 4.0, 4))

    dynamical_leaves = ((True, True), dict.fromkeys(base, False))
    return System(neuron_step, states, dynamical_leaves, lambda state: state[0][0], None, 4, norm)


def xor(term):
    """The spiking XOR net."""
    names = {"z": "z0", "lr": "lr", "target": "target"}

    def states(axis, values):
        def one(value, start):
            setting = Setting(*(jnp.asarray(float(number)) for number in Setting(z0=30.0)))
            params = jax.tree.map(lambda p: p.astype(float), xor_start(start, setting))
            return params, setting._replace(**{names[axis]: value})

        return stacked(one, values, np.arange(2))

    dynamical_leaves = (dict.fromkeys(("w1", "b1", "w2", "b2"), True), Setting(*(False,) * len(Setting._fields)))
    return System(phase.STEP[term], states, dynamical_leaves, lambda state: state[0]["w1"][0, 0], None, 2, norm)


def digits(term, data_dir):
    """A convolutional net on a fixed batch of digits; z in units of the chaos term's flip at the start."""
    config = dataclasses.replace(
        configs.load("digits"),
        batch_size=16,
        model=dataclasses.replace(configs.load("digits").model, features=(16, 32, 32)),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",), unit="flip"),
    )
    parts = data.load(config, data_dir)
    config = resolve(config, parts)
    batch, per_epoch = training_map.batches(config, parts["train"], 1)[0], len(parts["train"]) // config.batch_size
    plain = training_map.in_plain_units(config, batch, per_epoch)
    run = training_map.make(replaced(plain, "chaos.term", term), batch, per_epoch)
    start = run.start(0, True)
    (tap, flip) = next(iter(start.hparams["z0"].items()))

    def states(axis, values):
        if axis != "z":
            raise ValueError(f"digits: axis is {axis!r}, but only 'z' is in the plan")

        def one(value):
            return dataclasses.replace(start, hparams=start.hparams | {"z0": {tap: value * flip}})

        return jax.vmap(one)(jnp.asarray(values, flip.dtype))

    return System(run.step, states, learner.dynamical_leaves(start), readout, batch, 1, size)


def norm(state):
    """Of the weights, which come first in a state."""
    return jnp.linalg.norm(ravel_pytree(state[0])[0])


def size(state):
    """Of a learner, which skips a step that is not finite: its map is then the identity, whose exponent is 0."""
    return jnp.where(state.bad_steps > 0, jnp.nan, jnp.linalg.norm(ravel_pytree(state.params)[0]))


def readout(state):
    """Mean weight of the first kernel."""
    return state.params["conv1"]["conv"]["kernel"].mean()


SYSTEMS = {
    "neuron": lambda _: neuron(),
    "xor": lambda _: xor("chaos"),
    "xor, drift": lambda _: xor("drift"),
    "digits": functools.partial(digits, "chaos"),
    "digits, drift": functools.partial(digits, "drift"),
}
