"""Integer LIF (I-LIF) of Luo et al. (ECCV 2024), and its spikes as binary ones in sub-steps.

A neuron emits an integer n, up to D, in a time step, which stands for n binary spikes in the time step's D sub-steps.
As synapses are linear, W n is the sum over the sub-steps of W b: a network that is trained with integers is equal to
one whose synapses receive binary spikes, if norms, biases and neurons act on the sums (:func:`to_binary`,
:func:`from_binary`).
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax import ranges
from csbp_jax.neurons import arguments, cell_scan
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.surrogate import Surrogate


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold"],
    meta_fields=["levels", "detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class ILIF:
    """Integer LIF: the number of spikes of a time step is the membrane, rounded.

        u[t] = decay v[t-1] + x[t]
        n[t] = round(u[t] / threshold), clipped to 0 ... levels
        v[t] = u[t] - threshold n[t]
        dn/du = 1/threshold where 0 <= u <= levels threshold, else 0

    Halves are rounded down, or up if ``at_threshold="fire"`` (the article's code rounds them to even numbers, and
    detaches the reset). The threshold of the article is 1. Its one state is the membrane, and constants are those of
    :func:`csbp_jax.neurons.lif`.
    """

    decay: ArrayLike = 0.25
    threshold: ArrayLike = 1.0
    levels: int = 4
    detach_reset: bool = False
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Return ``(n [B, T, ...], membrane [B, ...])`` of the current ``x [B, T, ...]``."""
        return self.trace(x, membrane)[:2]

    def trace(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As the call, with u ``[B, T, ...]``, the membrane before reset."""
        x, shape, dtype = arguments.sequence("ILIF", x)
        arguments.one_of("ILIF", "at_threshold", self.at_threshold, AtThreshold)
        ranges.require("ILIF", ranges.FROM_0_TO_1, decay=self.decay)
        ranges.require("ILIF", ranges.ABOVE_0, threshold=self.threshold)
        ranges.require("ILIF", ranges.WHOLE_FROM_1, levels=self.levels)
        expand = functools.partial(arguments.expand, "ILIF", shape=shape, dtype=dtype)
        start = jnp.broadcast_to(expand("membrane", 0.0 if membrane is None else membrane), shape)
        constants = (expand("threshold", self.threshold),)
        cell = cell_scan.Cell(_rounding, (self.detach_reset,), _Round(self.levels, self.at_threshold))
        window = Surrogate(_window, (float(self.levels),))
        spikes, (v, _), u = cell_scan.run(cell, x, (start, ()), expand("decay", self.decay), constants, window)
        return spikes, v, u


@dataclasses.dataclass(frozen=True)
class _Round:
    """Round to 0 ... levels."""

    levels: int
    at_threshold: AtThreshold

    def __call__(self, u: jax.Array) -> jax.Array:
        rounded = jnp.floor(u + 0.5) if self.at_threshold == "fire" else jnp.ceil(u - 0.5)
        return jnp.clip(rounded, 0, self.levels)


def _window(u: jax.Array, levels: jax.Array) -> jax.Array:
    return ((u >= 0) & (u <= levels)).astype(u.dtype)


def _rounding(
    options: tuple[bool],
    fire: cell_scan.Fire,
    constants: cell_scan.Constants,
    u: jax.Array,
    hidden: cell_scan.Hidden,
) -> tuple[jax.Array, jax.Array, cell_scan.Hidden]:
    (threshold,) = constants
    spikes = fire(u / threshold)
    return spikes, cell_scan.after_reset(u, spikes, threshold, "soft", *options), hidden


def to_binary(spikes: jax.Array, levels: int) -> jax.Array:
    """Expand integers ``[B, T, ...]`` to 0 and 1, ``[B, T levels, ...]``: of a time step's sub-steps, n have a spike.

    Integers are from 0 to ``levels``, that of the neuron or more.

    >>> to_binary(jnp.array([[2.0, 0.0, 1.0]]), levels=2).tolist()
    [[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]]
    """
    ranges.require("to_binary", ranges.WHOLE_FROM_1, levels=levels)
    sub_steps = jnp.arange(levels, dtype=spikes.dtype).reshape(levels, *(1,) * (spikes.ndim - 2))
    binary = (spikes[:, :, None] > sub_steps[None, None]).astype(spikes.dtype)
    return binary.reshape(spikes.shape[0], -1, *spikes.shape[2:])


def from_binary(h: jax.Array, levels: int) -> jax.Array:
    """Sum ``[B, T levels, ...]`` over the sub-steps of each time step, to ``[B, T, ...]``.

    Raises:
      ValueError: the number of sub-steps is not a multiple of ``levels``.
    """
    ranges.require("from_binary", ranges.WHOLE_FROM_1, levels=levels)
    if h.shape[1] % levels:
        raise ValueError(f"from_binary: h has {h.shape[1]} sub-steps, but must have a multiple of levels, {levels}")
    return h.reshape(h.shape[0], -1, levels, *h.shape[2:]).sum(2)
