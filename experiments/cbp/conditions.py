"""The training of CBP's net as a system of experiments: its conditions, and what each of them tries."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import Arm, controls
from experiments import forcing
from experiments.cbp.net import Kind, Setting, strength, train
from experiments.xor.conditions import stacked

INITS = (0.2, 0.5, 1.0, 3.0)
PUBLISHED = {
    "BP descent": (2, 65, 81, 52),
    "CBP descent": (99, 100, 100, 100),
    "BP momentum": (92, 94, 87, 61),
    "BP adam": (41, 54, 65, 55),
    "CBP momentum": (100, 100, 100, 100),
    "CBP adam": (100, 100, 100, 100),
}
"""Counts of 100 for the four INITS, from their repository (paper_example/results/xor)."""
STRENGTHS, WEAK = (0.75, 1.5, 3.0, 6.0, 12.0, 24.0), (0.09375, 0.1875, 0.375)
CHUNK = 256
"""Runs that train at once; the records of kicks are large."""


class Condition(NamedTuple):
    """A kind of training, and how its force is made of the kicks of the paired CBP run.

    forced: as ``how`` of :func:`experiments.forcing.from_record`, or "other", the kicks of the run from the seed
    before.
    """

    kind: Kind
    forced: str | None = None


def _forced(force: Any, how: str = "rms", kick: str | None = None) -> Condition:
    return Condition(Kind(kick=kick, force=force), how)


LEVERS: dict[str, dict[str, Sequence[float]]] = {
    "larger rate": {"lr": (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)},
    "biases shifted at the start": {"shift": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)},
    "weight decay": {"decay": (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3)},
    "softer targets": {"soft": (0.01, 0.02, 0.03, 0.05, 0.07, 0.09)},
}
"""What is tuned without a strength."""
PLAIN = Condition(Kind(kick=None))
GAUSSIAN, AR1, LOGISTIC, REPLAY = controls.gaussian(), controls.ar1(0.9), controls.logistic(), controls.replay()
CONDITIONS = {
    "plain backpropagation": PLAIN,
    "CBP": Condition(Kind()),
    "kick in 20 sub-steps": Condition(Kind(substeps=20)),
    "drift": Condition(Kind(kick="drift")),
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
    "term as a loss (CSBP)": Condition(Kind(kick=None, loss=True)),
    **dict.fromkeys(LEVERS, PLAIN),
}
STRONG = [name for name, condition in CONDITIONS.items() if condition != PLAIN]
"""Conditions with a strength."""

AFTER = {
    f"{method}, {after}": Condition(kind._replace(after=after))
    for after in ("momentum", "adam")
    for method, kind in (("BP", Kind(kick=None, first=0, last=10_000)), ("CBP", Kind(first=4000, last=6000)))
}
"""The conditions of the published table that are none of the others."""


def arm(name: str, strengths: Sequence[float] = STRENGTHS) -> Arm:
    """The arm of a condition, with its tries; plain backpropagation has nothing to tune, and as many."""
    if name in STRONG:
        scale = 5 if CONDITIONS[name].kind.loss else 1
        return Arm({"condition": name}, tuned={"z0": [scale * z0 for z0 in strengths]})
    return Arm({"condition": name}, tuned=LEVERS.get(name, [{}] * len(strengths)))


@functools.partial(jax.jit, static_argnames="condition")
def solved(condition: Condition, setting: Setting, seeds: jax.Array) -> jax.Array:
    """Whether each run ends in the global minimum, ``[K]``; all leaves have a leading axis K."""
    kind, how = condition.kind, condition.forced

    def run(setting: Setting, seed: jax.Array) -> jax.Array:
        force = None
        if how:
            paired = seed - 1 if how == "other" else seed
            record = train(paired, setting, kind=Kind(task=kind.task), record=True)[1]
            z = strength(jnp.arange(kind.first), setting)
            force = forcing.from_record("replayed" if how == "other" else how, seed, z, record)
        return train(seed, setting, force, kind=kind)[0]

    return jax.vmap(run)(setting, seeds)


@dataclasses.dataclass(frozen=True)
class Cbp:
    """Training from the start of a seed at every init; fields are ``condition`` and those of a setting.

    ``solved`` is the share of the inits, ``n = 0.2`` and the others whether that one is solved.
    """

    def group(self, fields: Mapping[str, Any]) -> str:
        return str(fields["condition"])

    def train(self, name: str, fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
        condition, settings, starts = (CONDITIONS | AFTER)[name], stacked(Setting, fields), jnp.asarray(seeds)
        inits = {
            f"n = {init:g}": np.asarray(solved(condition, settings._replace(init=jnp.full(len(seeds), init)), starts))
            for init in INITS
        }
        return {"solved": np.mean(list(inits.values()), axis=0), **inits}
