"""A neuron whose spikes are fed back to it one step later."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Feedback:
    """A neuron whose spikes come back one step later, from rest: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0``.

    neuron: called one time step at a time.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second; the product is in x's dtype.
    """

    neuron: Any
    weights: jax.Array

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        spikes, membrane = self._over_time(self.neuron, x)
        return spikes, membrane

    @property
    def trace(self) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
        return functools.partial(self._over_time, self.neuron.trace)

    def _over_time(self, neuron, x):
        def step(carry, x_t):
            membrane, spikes = carry
            # Cast here, not before the loop: over the steps, the gradient adds up in the weights' own dtype.
            fed_back = spikes @ self.weights.astype(x.dtype)
            spikes, membrane, *others = neuron((x_t + fed_back)[:, None], membrane)
            return (membrane, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        none = jnp.zeros_like(x[:, 0])
        rest = (none.astype(jnp.promote_types(x.dtype, jnp.float32)), none)
        (membrane, _), sequences = lax.scan(step, rest, jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, membrane, *others
