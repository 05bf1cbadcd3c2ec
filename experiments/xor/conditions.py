"""The conditions of the plan: kind, settings to tune over, and the runs of all starts."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, controls
from experiments import forcing
from experiments.xor.net import Kind, Setting, train

STRENGTHS = [Setting(z0=z0, beta=beta) for z0, beta in itertools.product((0.5, 1.0, 2.0), (0.998, 0.999))]
WIDER = [Setting(z0=2.0**power, beta=beta) for power, beta in itertools.product(range(-3, 5), (0.998, 0.999))]
GAUSSIAN, AR1, LOGISTIC, REPLAY = controls.gaussian(), controls.ar1(0.9), controls.logistic(), controls.replay()


class Condition(NamedTuple):
    """A kind, the settings it is tuned over, and how its force is made of the CSBP run's record.

    forced: as ``how`` of :func:`experiments.forcing.of_starts`.
    """

    kind: Kind
    settings: list[Setting]
    forced: str | None = None


def _levers(**values: Sequence[float]) -> Condition:
    ((name, grid),) = values.items()
    return Condition(Kind(alone=True), [Setting(**{name: value}) for value in grid])


def _noise(force: Any, **beside: Any) -> Condition:
    return Condition(Kind(force=force, **(beside or {"alone": True})), STRENGTHS, "rms")


def _replay(how: str) -> Condition:
    return Condition(Kind(force=REPLAY, alone=True), STRENGTHS, how)


def halved(settings: Sequence[Setting]) -> list[Setting]:
    """Halve the strengths, for CBP's rule: it has no learning rate, which is 1/2 for the term."""
    return [s._replace(z0=s.z0 / 2) for s in settings]


CONDITIONS: dict[str, Condition] = {
    "plain backpropagation": Condition(Kind(alone=True), [Setting()]),
    "CSBP": Condition(Kind(), STRENGTHS),
    "drift": Condition(Kind(term="drift"), STRENGTHS),
    "linear pull": Condition(Kind(term="linear"), STRENGTHS),
    "chaos term in 20 sub-steps": Condition(Kind(substeps=20), STRENGTHS),
    "Gaussian noise": _noise(GAUSSIAN),
    "AR(1) noise": _noise(AR1),
    "logistic sequences": _noise(LOGISTIC),
    "drift + Gaussian noise": _noise(GAUSSIAN, term="drift"),
    "drift + AR(1) noise": _noise(AR1, term="drift"),
    "drift + logistic sequences": _noise(LOGISTIC, term="drift"),
    "CBP's rule": Condition(Kind(cbp=True), halved(STRENGTHS)),
    "replay": _replay("replayed"),
    "replay, shuffled in time": _replay("shuffled"),
    "replay, random phases": _replay("phases"),
    "replay, shuffled, annealing kept": _replay("shuffled, annealed"),
    "replay, random phases, annealing kept": _replay("phases, annealed"),
    "replay of another start": _replay("other"),
    "biases shifted at the start": _levers(shift=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0)),
    "wider surrogate": _levers(width=(1.5, 2.0, 3.0, 4.0, 5.0, 8.0)),
    "floor under the rates": _levers(floor=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
    "weight decay": _levers(decay=(1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    "softer targets": _levers(soft=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
    "large rate, annealed": Condition(
        Kind(alone=True), [Setting(lr=lr, lr_end=0.1 / lr) for lr in (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)]
    ),
}

WIDELY = {
    name: condition._replace(settings=halved(WIDER) if condition.kind.cbp else WIDER)
    for name, condition in CONDITIONS.items()
    if condition.settings[0].z0
}
"""Conditions with a strength, tuned over more of them."""


def solved(condition: Condition, setting: Setting, seeds: np.ndarray, steps: int = 5000) -> np.ndarray:
    """Whether each start solves XOR, ``[seeds]``."""
    recorded = functools.partial(train, setting=_traced(setting), kind=Kind(), steps=steps, record=True)
    z = chaos.strength(jnp.arange(steps), setting.z0, setting.beta)
    force = forcing.of_starts(condition.forced, lambda seed: recorded(seed)[2], jnp.asarray(seeds), z)
    run = jax.vmap(lambda *a: train(*a, kind=condition.kind, steps=steps)[0], (0, None, None if force is None else 0))
    return np.asarray(run(jnp.asarray(seeds), _traced(setting), force))


def _traced(setting: Setting) -> Setting:
    # As arrays, since Python numbers would compile once per setting.
    return jax.tree.map(jnp.float32, setting)
