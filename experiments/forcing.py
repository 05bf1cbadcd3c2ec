"""Forces made of what the term did in the twin run, for the controls of the studies."""

import functools

import jax
import jax.numpy as jnp

from csbp_jax import controls


def made(how, twin, seeds, z):
    """The forcing of each start, a leading axis ``[seeds]``; None where ``how`` is None.

    Args:
      how: "rms" of the record; or the record "replayed", of an "other" start, "shuffled" in time, with random "phases";
        the last two also of the record without its annealing, put back afterwards ("shuffled, annealed", and so on).
      twin: ``twin(seed) -> record``, a pytree of ``[steps, ...]``.
      z: the strength at each step, ``[steps]``; keys of the draws are folded with its length, which no step's is.
    """
    if how is None:
        return None

    def one(seed):
        record, key = twin(seed), jax.random.fold_in(jax.random.key(seed), len(z))
        shuffled = functools.partial(controls.shuffled, key)
        phases = functools.partial(controls.phase_randomised, key)
        return {
            "rms": controls.rms,
            "replayed": lambda r: r,
            "other": lambda r: r,
            "shuffled": shuffled,
            "phases": phases,
            "shuffled, annealed": functools.partial(controls.annealed, shuffled, z),
            "phases, annealed": functools.partial(controls.annealed, phases, z),
        }[how](record)

    records = jax.jit(jax.vmap(one))(seeds)
    return jax.tree.map(lambda r: jnp.roll(r, 1, axis=0), records) if how == "other" else records
