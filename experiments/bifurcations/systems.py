"""The three trainings of the plan as maps with a knob, started for many values of the knob and many starts."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.training.compiled import resolve
from experiments import one_neuron
from experiments.study import to_float64
from experiments.xor import phase
from experiments.xor.net import Setting
from experiments.xor.net import start as xor_start


class System(NamedTuple):
    """A map, its initial states, and what is measured of it.

    states: ``states(axis, values) -> states [values x starts]``. dynamical_leaves, readout, size: of a single state.
    A run has run away if its size grows by ``classify.AWAY`` or is NaN, as after a step that was not finite.
    """

    step: Callable[[Any, Any], Any]
    states: Callable[[str, Sequence[float] | NDArray[Any]], Any]
    dynamical_leaves: Any
    readout: Callable[[Any], jax.Array]
    batch: Any
    starts: int
    size: Callable[[Any], jax.Array]


def stacked(state: Callable[[jax.Array, jax.Array], Any], values: Iterable[Any], starts: Iterable[Any]) -> Any:
    """``state(value, start)`` of all pairs, values first."""
    pairs = [(value, start) for value in values for start in starts]
    return jax.vmap(state)(*(jnp.asarray(column) for column in zip(*pairs, strict=True)))


def neuron_step(state: Any, _: Any) -> Any:
    """A step of the neuron's training; the state is ``(weights, knobs)``."""
    weights, knobs = state
    return one_neuron.update(weights, time_steps=20, **knobs)[0], knobs


def neuron() -> System:
    """One neuron that learns to be silent."""
    base = {"z": 9.0, "lr": one_neuron.LR, "target": one_neuron.TARGET}

    def states(axis, values):
        def state(value, start):
            knobs = {name: jnp.asarray(number) for name, number in base.items()}
            return (start, start), knobs | {axis: value}

        return stacked(state, values, np.linspace(-6.0, 4.0, 4))

    dynamical_leaves = ((True, True), dict.fromkeys(base, False))
    return System(neuron_step, states, dynamical_leaves, lambda state: state[0][0], None, 4, norm)


def xor(term: str) -> System:
    """The spiking XOR net."""
    names = {"z": "z0", "lr": "lr", "target": "target"}

    def states(axis, values):
        def state(value, start):
            setting = Setting(*(jnp.asarray(float(number)) for number in Setting(z0=30.0)))
            params = to_float64(xor_start(start, setting))
            return params, setting._replace(**{names[axis]: value})

        return stacked(state, values, np.arange(2))

    dynamical_leaves = (dict.fromkeys(("w1", "b1", "w2", "b2"), True), Setting(*(False,) * len(Setting._fields)))
    return System(phase.STEP[term], states, dynamical_leaves, lambda state: state[0]["w1"][0, 0], None, 2, norm)


def digits(term: str, data_dir: str) -> System:
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

        def state(value):
            return dataclasses.replace(start, hparams=start.hparams | {"z0": {tap: value * flip}})

        return jax.vmap(state)(jnp.asarray(values, flip.dtype))

    return System(run.step, states, learner.dynamical_leaves(start), readout, batch, 1, size)


def norm(state: Any) -> jax.Array:
    """Norm of the weights, which come first in a state."""
    return jnp.linalg.norm(ravel_pytree(state[0])[0])


def size(state: learner.State) -> jax.Array:
    """Norm of a learner's parameters; NaN after a step that was not finite, which it skips: its map is the identity."""
    return jnp.where(state.bad_steps > 0, jnp.nan, jnp.linalg.norm(ravel_pytree(state.params)[0]))


def readout(state: learner.State) -> jax.Array:
    """Mean weight of the first kernel."""
    return state.params["conv1"]["conv"]["kernel"].mean()


SYSTEMS: dict[str, Callable[[str], System]] = {
    "neuron": lambda _: neuron(),
    "xor": lambda _: xor("chaos"),
    "xor, drift": lambda _: xor("drift"),
    "digits": functools.partial(digits, "chaos"),
    "digits, drift": functools.partial(digits, "drift"),
}
