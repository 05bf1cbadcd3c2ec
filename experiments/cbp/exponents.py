"""Exponents of CBP's map and of its controls over z (part 3 of the plan)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import dynamics
from experiments.cbp.net import Kind, Setting, start, step

KINDS = {"CBP": Kind(), "kick in 20 sub-steps": Kind(substeps=20), "drift": Kind(kick="drift")}
STRENGTHS, STARTS, DELTA, INIT = np.geomspace(0.25, 24, 96), 8, 1e-2, 1.0
# Steps that nothing is measured in; in which directions align, neither; that are counted.
TRANSIENT, ALIGN, COUNTED = 450, 50, 500


def push(kind, state, _):
    """A step at fixed z, as a map of ``(params, setting)``."""
    params, setting = state
    moved, pushed = step(params, setting, setting.z0, kind)
    return jax.tree.map(jnp.add, moved, pushed), setting


def of(kind, lr):
    """``{tangent, finite_size}``, each ``[strengths, starts]``."""
    one = functools.partial(push, kind)
    later = jax.jit(jax.vmap(one, (0, None)))
    z, seeds = (each.ravel() for each in np.meshgrid(STRENGTHS, np.arange(STARTS), indexing="ij"))
    setting = Setting(*(jnp.broadcast_to(float(value), z.shape) for value in Setting(lr=lr)))._replace(
        z0=jnp.asarray(z)
    )
    params = jax.vmap(lambda seed: start(seed, INIT))(jnp.asarray(seeds))
    states = (jax.tree.map(lambda p: p.astype(float), params), setting)
    fed = (dict.fromkeys(params, True), Setting(*(False,) * len(Setting._fields)))
    for _ in range(TRANSIENT):
        states = later(states, None)
    options = {"warmup": ALIGN, "dynamical_leaves": fed}
    given = functools.partial(itertools.repeat, None, ALIGN + COUNTED)
    tangent = dynamics.lyapunov_many(one, states, given(), **options)[0]
    sized = dynamics.finite_size_many(one, states, given(), jnp.array([DELTA]), **options)[0]
    return {name: table(values) for name, values in (("tangent", tangent), ("finite_size", sized))}


def table(values):
    """Plain numbers ``[strengths, starts]``; None where a run ran away."""
    rows = np.asarray(values)[:, 0].reshape(len(STRENGTHS), STARTS)
    return [[float(v) if np.isfinite(v) else None for v in row] for row in rows]


def measured():
    """All curves: ``{"z": ..., "kicks alone" and "whole map": {condition: {tangent, finite_size}}}``."""
    with jax.enable_x64(True):
        return {
            "z": STRENGTHS.tolist(),
            **{
                where: {name: of(kind, lr) for name, kind in KINDS.items()}
                for where, lr in (("kicks alone", 0.0), ("whole map", Setting().lr))
            },
        }
