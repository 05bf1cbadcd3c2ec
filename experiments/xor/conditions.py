"""The spiking XOR net as a system of experiments: its conditions, and the settings that all of them try."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import Arm, controls
from experiments import forcing
from experiments.xor.net import Kind, Params, Setting, start, train_from

CHUNK = 1024
"""Runs that train at once; the records of the chaos term are large."""
FIELDS = ("z0", "beta", "lr", "width", "shift")
"""Fields of a setting that are tuned."""
STRENGTHS, SIGMAS, GAMMA = (1 / 16, 4), (1e-4, 0.1), 0.7
"""Ranges of z0 and of the size of extrinsic forces, and the exponent of the rate in that size."""


class Condition(NamedTuple):
    """A kind, how its force is made of the record of the CSBP run, and whether a random jump precedes it.

    forced: as ``how`` of :func:`experiments.forcing.from_record`, or "constant", with the size ``z0 lr^GAMMA``.
    """

    kind: Kind
    forced: str | None = None
    jump: bool = False


PLAIN = Kind(alone=True)
_FORCES = {
    "Gaussian noise": controls.gaussian(),
    "AR(1) noise": controls.ar1(0.9),
    "logistic sequences": controls.logistic(),
}
NOISES = {name: Condition(Kind(force=force, alone=True), "rms") for name, force in _FORCES.items()}
EXTRINSIC = {
    name: Condition(Kind(force=force, alone=True), "constant")
    for name, force in (
        ("MPGD", controls.mpgd(gamma=GAMMA)),
        ("logistic maps", controls.logistic()),
        ("noise", controls.gaussian()),
    )
}
CONDITIONS: dict[str, Condition] = {
    "CSBP": Condition(Kind()),
    "plain backpropagation": Condition(PLAIN),
    "drift": Condition(Kind(term="drift")),
    "chaos term in 10 sub-steps": Condition(Kind(substeps=10)),
    "linear pull": Condition(Kind(term="linear")),
    "CBP's rule": Condition(Kind(cbp=True)),
    **NOISES,
    "drift + Gaussian noise": Condition(Kind(term="drift", force=_FORCES["Gaussian noise"]), "rms"),
    "drift + AR(1) noise": Condition(Kind(term="drift", force=_FORCES["AR(1) noise"]), "rms"),
    **EXTRINSIC,
}


def draw_setting(generator: np.random.Generator, most_shift: float = 1.5) -> dict[str, float]:
    """Draw a setting; shifts of the biases are uniform from 0 to ``most_shift``."""
    lr, width, z0 = (float(np.exp(generator.uniform(*np.log(ends)))) for ends in ((0.1, 2), (1, 5), STRENGTHS))
    shift, beta = float(generator.uniform(0, most_shift)), float(generator.choice([0.998, 0.999]))
    return {"z0": z0, "beta": beta, "lr": lr, "width": width, "shift": shift}


def draw_settings(tries: int, seed: int = 0, most_shift: float = 1.5) -> list[Setting]:
    """The settings that all conditions try in a draw."""
    generator = np.random.default_rng(seed)
    return [Setting(**draw_setting(generator, most_shift)) for _ in range(tries)]


@functools.partial(jax.jit, static_argnames=("condition", "steps"))
def solved(condition: Condition, params: Params, setting: Setting, seeds: jax.Array, *, steps: int) -> jax.Array:
    """Whether training from each of many starts solves XOR, ``[K]``; all leaves have a leading axis K."""

    def run(params: Params, setting: Setting, seed: jax.Array) -> jax.Array:
        force = None
        if condition.forced == "constant":
            size = setting.z0 * setting.lr ** (GAMMA - 1)  # of a gradient, which the rate multiplies
            force = {name: jnp.full(steps, size) for name in params}
        elif condition.forced or condition.jump:
            _, end, record = train_from(params, seed, setting, kind=Kind(), steps=steps, record=True)
            z = setting.z0 * setting.beta ** jnp.arange(steps)
            force = forcing.from_record(condition.forced, seed, z, record) if condition.forced else None
            params = jumped(params, end, seed) if condition.jump else params
        return train_from(params, seed, setting, force, kind=condition.kind, steps=steps)[0]

    return jax.vmap(run)(params, setting, seeds)


def jumped(params: Params, end: Params, seed: jax.Array) -> Params:
    """The parameters after a random jump, in each tensor as far as ``end`` is from them."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), len(params))

    def jump(key: jax.Array, name: str) -> jax.Array:
        direction = jax.random.normal(key, params[name].shape)
        length = jnp.linalg.norm(end[name] - params[name])
        return params[name] + length * direction / jnp.linalg.norm(direction)

    return {name: jump(key, name) for key, name in zip(keys, sorted(params), strict=True)}


def stacked(kind: type[Any], fields: Sequence[Mapping[str, Any]]) -> Any:
    """The settings of many runs, a NamedTuple ``kind`` whose leaves are ``[K]``."""
    settings = [kind(**{name: of[name] for name in kind._fields if name in of}) for of in fields]
    return jax.tree.map(lambda *values: jnp.asarray(values, jnp.float32), *settings)


@dataclasses.dataclass(frozen=True)
class Xor:
    """Training of XOR from random starts; fields are ``condition`` and those of a setting."""

    steps: int

    def group(self, fields: Mapping[str, Any]) -> str:
        return str(fields["condition"])

    def train(self, name: str, fields: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
        settings, starts = stacked(Setting, fields), jnp.asarray(seeds)
        params = jax.jit(jax.vmap(start))(starts, settings)
        return {"solved": solved(CONDITIONS[name], params, settings, starts, steps=self.steps)}


def sigma(fields: dict[str, Any], _: Any) -> dict[str, Any]:
    """The fields for an extrinsic force, whose size lies at the place of z0 in its range."""
    return fields | {"z0": float(np.exp(np.interp(np.log(fields["z0"]), np.log(STRENGTHS), np.log(SIGMAS))))}


def arms(names: Iterable[str]) -> dict[str, Arm]:
    """The arms of conditions."""
    # CBP's rule has no learning rate, so that its strength takes it in.
    adapted = dict.fromkeys(EXTRINSIC, sigma) | {"CBP's rule": lambda of, _: of | {"z0": of["z0"] * of["lr"]}}
    return {name: Arm({"condition": name}, adapt=adapted.get(name)) for name in names}
