"""Forces made of what the term did in the twin run, for the controls of the studies."""

import functools

import jax
import jax.numpy as jnp

from csbp_jax import controls


def made(how, twin, seeds, steps):
    """The forcing of each start, a leading axis ``[seeds]``; None where ``how`` is None.

    Args:
      how: "rms" of the record; or the record "replayed", "shuffled" in time, with random "phases", of an "other" start.
      twin: ``twin(seed) -> record``, a pytree of ``[steps, ...]``.
      steps: of a run; keys of these draws are folded with it, which no step's is.
    """
    if how is None:
        return None

    def one(seed):
        record, key = twin(seed), jax.random.fold_in(jax.random.key(seed), steps)
        return {
            "rms": controls.rms,
            "replayed": lambda r: r,
            "other": lambda r: r,
            "shuffled": functools.partial(controls.shuffled, key),
            "phases": functools.partial(controls.phase_randomised, key),
        }[how](record)

    records = jax.jit(jax.vmap(one))(seeds)
    return jax.tree.map(lambda r: jnp.roll(r, 1, axis=0), records) if how == "other" else records
