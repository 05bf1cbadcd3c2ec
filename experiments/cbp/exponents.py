"""Exponents of CBP's map and of its controls over z (part 3 of the plan)."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from experiments.cbp.net import Kind, Setting, start, step
from experiments.study import Content, finite_or_none, float64, to_float64

KINDS = {"CBP": Kind(), "kick in 20 sub-steps": Kind(substeps=20), "drift": Kind(kick="drift")}
STRENGTHS, STARTS, DELTA, INIT = np.geomspace(0.25, 24, 96), 8, 1e-2, 1.0
# Steps before anything is measured, steps in which directions align, and steps that exponents are taken over.
TRANSIENT, ALIGN, COUNTED = 450, 50, 500


def push(kind: Kind, state: Any, _: Any) -> Any:
    """A step at fixed z, as a map of ``(params, setting)``."""
    params, setting = state
    moved, pushed = step(params, setting, setting.z0, kind)
    return jax.tree.map(jnp.add, moved, pushed), setting


def measure(kind: Kind, lr: float) -> Content:
    """``{tangent, finite_size}``, each ``[strengths, starts]``."""
    push_once = functools.partial(push, kind)
    push_all = jax.jit(jax.vmap(push_once, (0, None)))
    z, seeds = (axis.ravel() for axis in np.meshgrid(STRENGTHS, np.arange(STARTS), indexing="ij"))
    setting = Setting(*(jnp.broadcast_to(float(value), z.shape) for value in Setting(lr=lr)))._replace(
        z0=jnp.asarray(z)
    )
    params = jax.vmap(lambda seed: start(seed, INIT))(jnp.asarray(seeds))
    states = (to_float64(params), setting)
    leaves = (dict.fromkeys(params, True), Setting(*(False,) * len(Setting._fields)))
    for _ in range(TRANSIENT):
        states = push_all(states, None)
    options: dict[str, Any] = {"warmup": ALIGN, "dynamical_leaves": leaves}
    batches = functools.partial(itertools.repeat, None, ALIGN + COUNTED)
    tangent = dynamics.lyapunov_many(push_once, states, batches(), **options)[0]
    sized = dynamics.finite_size_many(push_once, states, batches(), jnp.array([DELTA]), **options)[0]
    return {name: rows(values) for name, values in (("tangent", tangent), ("finite_size", sized))}


def rows(values: jax.Array) -> list[list[float | None]]:
    """Largest exponents as plain numbers ``[strengths, starts]``; None where a run ran away."""
    largest = np.asarray(values)[:, 0].reshape(len(STRENGTHS), STARTS)
    return [[finite_or_none(value) for value in row] for row in largest]


def measure_all() -> Content:
    """All curves: ``{"z": ..., "kicks alone" and "whole map": {condition: {tangent, finite_size}}}``."""
    with float64():
        return {
            "z": STRENGTHS.tolist(),
            **{
                where: {name: measure(kind, lr) for name, kind in KINDS.items()}
                for where, lr in (("kicks alone", 0.0), ("whole map", Setting().lr))
            },
        }
