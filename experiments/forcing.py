"""Forcings made from the record of a CSBP run's chaos term, for the control conditions of the studies."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from csbp_jax import controls

Record = Any
"""A pytree like the parameters with leaves ``[steps, ...]``."""


def from_record(how: str, seed: Any, z: jax.Array, record: Record) -> Record:
    """The forcing that is made of a record.

    Args:
      how: "rms" of each step; "alternating", the rms with the sign of (-1)^n; "replayed", the record itself;
        "shuffled" in time; "phases", with random phases; "shuffled, annealed" and "phases, annealed", the same for the
        record divided by z, multiplied by z afterwards.
      seed: of the draws; their key is folded with the number of steps, which no step's key is.
      z: strength at each step, ``[steps]``.
    """
    key = jax.random.fold_in(jax.random.key(seed), len(z))
    shuffled = functools.partial(controls.shuffled, key)
    phases = functools.partial(controls.phase_randomised, key)
    forms: dict[str, Callable[[Record], Record]] = {
        "rms": controls.rms,
        "alternating": alternating,
        "replayed": lambda record: record,
        "shuffled": shuffled,
        "phases": phases,
        "shuffled, annealed": functools.partial(controls.annealed, shuffled, z),
        "phases, annealed": functools.partial(controls.annealed, phases, z),
    }
    return forms[how](record)


def alternating(record: Record) -> Record:
    """A force of the record's rms, tensor by tensor and step by step, that changes its sign at every step."""

    def spread(rms: jax.Array, record: jax.Array) -> jax.Array:
        signed = rms * (1 - 2 * (jnp.arange(len(rms)) % 2))
        return jnp.broadcast_to(signed.reshape(-1, *[1] * (record.ndim - 1)), record.shape)

    return jax.tree.map(spread, controls.rms(record), record)
