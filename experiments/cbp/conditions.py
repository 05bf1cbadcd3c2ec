"""The cells of the published table, and the conditions of part 2: kind, settings to tune over, and their runs."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, controls
from experiments import forcing
from experiments.cbp.net import Kind, Setting, train

INITS = (0.2, 0.5, 1.0, 3.0)
STRENGTHS = [Setting(z0=z0) for z0 in (0.75, 1.5, 3.0, 6.0, 12.0, 24.0)]
GAUSSIAN, AR1, LOGISTIC, REPLAY = controls.gaussian(), controls.ar1(0.9), controls.logistic(), controls.replay()
BLOCK = 256

# Counts of 100 for the four INITS, from their repository (paper_example/results/xor).
PUBLISHED = {
    ("BP", "descent"): (2, 65, 81, 52),
    ("CBP", "descent"): (99, 100, 100, 100),
    ("BP", "momentum"): (92, 94, 87, 61),
    ("CBP", "momentum"): (100, 100, 100, 100),
    ("BP", "adam"): (41, 54, 65, 55),
    ("CBP", "adam"): (100, 100, 100, 100),
}
TABLE = {
    ("BP", "descent"): Kind(kick=None),
    ("CBP", "descent"): Kind(),
    **{("BP", name): Kind(kick=None, first=0, last=10_000, after=name) for name in ("momentum", "adam")},
    **{("CBP", name): Kind(first=4000, last=6000, after=name) for name in ("momentum", "adam")},
}


class Condition(NamedTuple):
    """A kind, the settings it is tuned over, and how its force is made of the CBP run's record.

    forced: as ``how`` of :func:`experiments.forcing.of_starts`.
    """

    kind: Kind
    settings: list[Setting]
    forced: str | None = None


def _forced(force: Any, how: str = "rms", kick: str | None = None) -> Condition:
    return Condition(Kind(kick=kick, force=force), STRENGTHS, how)


def _lever(**values: Sequence[float]) -> Condition:
    ((name, grid),) = values.items()
    return Condition(Kind(kick=None), [Setting(**{name: value}) for value in grid])


CONDITIONS = {
    "plain backpropagation": Condition(Kind(kick=None), [Setting()]),
    "CBP": Condition(Kind(), STRENGTHS),
    "kick in 20 sub-steps": Condition(Kind(substeps=20), STRENGTHS),
    "drift": Condition(Kind(kick="drift"), STRENGTHS),
    "Gaussian noise": _forced(GAUSSIAN),
    "AR(1) noise": _forced(AR1),
    "logistic sequences": _forced(LOGISTIC),
    "drift + Gaussian noise": _forced(GAUSSIAN, kick="drift"),
    "drift + AR(1) noise": _forced(AR1, kick="drift"),
    "drift + logistic sequences": _forced(LOGISTIC, kick="drift"),
    "replay": _forced(REPLAY, "replayed"),
    "replay, shuffled in time": _forced(REPLAY, "shuffled"),
    "replay, random phases": _forced(REPLAY, "phases"),
    "replay, shuffled, annealing kept": _forced(REPLAY, "shuffled, annealed"),
    "replay, random phases, annealing kept": _forced(REPLAY, "phases, annealed"),
    "replay of another start": _forced(REPLAY, "other"),
    "term as a loss (CSBP)": Condition(Kind(kick=None, loss=True), [s._replace(z0=5 * s.z0) for s in STRENGTHS]),
    "larger rate": _lever(lr=(0.5, 1.0, 2.0, 5.0, 10.0, 20.0)),
    "biases shifted at the start": _lever(shift=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0)),
    "weight decay": _lever(decay=(1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
    "softer targets": _lever(soft=(0.01, 0.02, 0.03, 0.05, 0.07, 0.09)),
}
WEAK = [Setting(z0=z0) for z0 in (0.09375, 0.1875, 0.375)]
WIDELY = {
    name: condition._replace(
        settings=[s._replace(z0=s.z0 * (5 if condition.kind.loss else 1)) for s in WEAK] + condition.settings
    )
    for name, condition in CONDITIONS.items()
    if condition.kind.kick or condition.kind.force or condition.kind.loss
}
"""Conditions with a strength, tuned over weaker ones too."""
HELD = {
    f"{name}, z0 {z0:g}": CONDITIONS[name]._replace(settings=[Setting(z0=z0)])
    for z0 in (12.0, 24.0)
    for name in ("CBP", "kick in 20 sub-steps")
}
"""Untuned conditions where CBP is chaotic, with and without its overshooting."""


def solved(condition: Condition, setting: Setting, seeds: np.ndarray) -> np.ndarray:
    """Whether each start ends in the global minimum, ``[seeds]``; in blocks, as records are large."""
    blocks = [seeds[i : i + BLOCK] for i in range(0, len(seeds), BLOCK)]
    return np.concatenate([_block(condition, setting, jnp.asarray(block)) for block in blocks])


def _block(condition: Condition, setting: Setting, seeds: jax.Array) -> np.ndarray:
    # As arrays, since Python numbers would compile once per setting.
    setting = jax.tree.map(jnp.float32, setting)
    recorded = functools.partial(train, setting=setting, kind=Kind(), record=True)
    z = chaos.strength(jnp.arange(Kind().first), setting.z0, setting.beta)
    force = forcing.of_starts(condition.forced, lambda seed: recorded(seed)[1], seeds, z)
    axes = (0, None, None if force is None else 0)
    return np.asarray(jax.vmap(lambda *a: train(*a, kind=condition.kind)[0], axes)(seeds, setting, force))
