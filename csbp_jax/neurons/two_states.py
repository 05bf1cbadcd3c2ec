"""Neurons of two states: current-based LIF, adaptive LIF and complementary LIF.

Their state is a named tuple of arrays ``[B, ...]``, in the dtype of membranes, one of which is the membrane; each
neuron is at rest with zeros. Gradients of an adaptive threshold and of a complementary potential flow through their
spikes, whether or not ``detach_reset`` stops the gradient of the reset.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax import ranges
from csbp_jax.neurons import arguments, cell_scan, lif_scan
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.neurons.lif import LIF, Reset
from csbp_jax.surrogate import Surrogate, triangle


class CurrentState(NamedTuple):
    """State of :class:`CuBaLIF`: the membrane after the last reset, and the synaptic current."""

    membrane: jax.Array
    current: jax.Array


class AdaptiveState(NamedTuple):
    """State of :class:`ALIF`: the membrane after the last reset, and the adaptation."""

    membrane: jax.Array
    adaptation: jax.Array


class ComplementaryState(NamedTuple):
    """State of :class:`CLIF`: the membrane after the last reset, and the complementary potential."""

    membrane: jax.Array
    complementary: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["synapse_decay", "decay", "threshold", "spike"],
    meta_fields=["reset", "detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class CuBaLIF:
    """Current-based LIF, a LIF neuron behind a leaky synapse (Cramer et al., IEEE TNNLS 2022).

        I[t] = synapse_decay I[t-1] + x[t]
        u[t] = decay v[t-1] + I[t]                  s and v as in lif.py

    In the article, I reaches the membrane one time step later. Constants broadcast, and may be traced and
    differentiated, as those of :func:`csbp_jax.neurons.lif`, which also lists the errors.
    """

    synapse_decay: ArrayLike = 0.5
    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    spike: Surrogate = triangle()
    reset: Reset = "hard"
    detach_reset: bool = False
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, state: CurrentState | None = None) -> tuple[jax.Array, CurrentState]:
        """Return ``(spikes [B, T, ...], state)``; ``x [B, T, ...]`` is the input of the synapse."""
        return self.trace(x, state)[:2]

    def trace(self, x: jax.Array, state: CurrentState | None = None) -> tuple[jax.Array, CurrentState, jax.Array]:
        """As the call, with u ``[B, T, ...]``, the membrane before reset."""
        x, shape, dtype = arguments.sequence("CuBaLIF", x)
        ranges.require("CuBaLIF", ranges.FROM_0_TO_1, synapse_decay=self.synapse_decay, decay=self.decay)
        v, current = arguments.states("CuBaLIF", CurrentState, state, shape, dtype)
        synapse_decay = arguments.expand("CuBaLIF", "synapse_decay", self.synapse_decay, shape, dtype)
        currents, last = lif_scan.leaky_sum(x, current, synapse_decay)
        options = (self.spike, self.reset, self.detach_reset)
        neuron = LIF(self.decay, self.threshold, *options, at_threshold=self.at_threshold)
        spikes, v, u = neuron.trace(currents, v)
        return spikes.astype(x.dtype), CurrentState(v, last), u


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "adaptation", "adaptation_decay", "spike"],
    meta_fields=["reset", "detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class ALIF:
    """Adaptive LIF, whose threshold rises with each spike (Bellec et al., Nature Communications 2020).

        u[t] = decay v[t-1] + x[t]
        s[t] = H(u[t] - threshold - adaptation a[t-1])
        a[t] = adaptation_decay a[t-1] + s[t]               v as in lif.py; a soft reset subtracts ``threshold``

    Constants broadcast, and may be traced and differentiated, as those of :func:`csbp_jax.neurons.lif`.

    adaptation: rise of the threshold with a spike, 0 or more.
    adaptation_decay: fraction of the rise that remains from one time step to the next.
    reset: in the article, the threshold is subtracted after the decay; "soft" does so before it.
    """

    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    adaptation: ArrayLike = 0.2
    adaptation_decay: ArrayLike = 0.9
    spike: Surrogate = triangle()
    reset: Reset = "hard"
    detach_reset: bool = False
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, state: AdaptiveState | None = None) -> tuple[jax.Array, AdaptiveState]:
        """Return ``(spikes [B, T, ...], state)`` of the current ``x [B, T, ...]``."""
        return self.trace(x, state)[:2]

    def trace(self, x: jax.Array, state: AdaptiveState | None = None) -> tuple[jax.Array, AdaptiveState, jax.Array]:
        """As the call, with u ``[B, T, ...]``, the membrane before reset."""
        x, shape, dtype = arguments.sequence("ALIF", x)
        arguments.one_of("ALIF", "reset", self.reset, Reset)
        arguments.firing("ALIF", self.spike, self.at_threshold)
        ranges.require("ALIF", ranges.FROM_0_TO_1, decay=self.decay, adaptation_decay=self.adaptation_decay)
        ranges.require("ALIF", ranges.ABOVE_0, threshold=self.threshold)
        ranges.require("ALIF", ranges.FROM_0, adaptation=self.adaptation)
        v, a = arguments.states("ALIF", AdaptiveState, state, shape, dtype)
        decay, *constants = (
            arguments.expand("ALIF", name, getattr(self, name), shape, dtype)
            for name in ("decay", "threshold", "adaptation", "adaptation_decay")
        )
        cell = cell_scan.Cell(_adaptive, (self.reset, self.detach_reset), cell_scan.HEAVISIDE[self.at_threshold])
        spikes, (v, (a,)), u = cell_scan.run(cell, x, (v, (a,)), decay, tuple(constants), self.spike)
        return spikes, AdaptiveState(v, a), u


def _adaptive(
    options: tuple[Reset, bool],
    fire: cell_scan.Fire,
    constants: cell_scan.Constants,
    u: jax.Array,
    hidden: cell_scan.Hidden,
) -> tuple[jax.Array, jax.Array, cell_scan.Hidden]:
    threshold, adaptation, adaptation_decay = constants
    (a,) = hidden
    spikes = fire(u - threshold - adaptation * a)
    return spikes, cell_scan.after_reset(u, spikes, threshold, *options), (adaptation_decay * a + spikes,)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "spike"],
    meta_fields=["detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class CLIF:
    """Complementary LIF, whose spikes are followed by a stronger reset for some time (Huang et al., ICML 2024).

        u[t] = decay v[t-1] + x[t]
        s[t] = H(u[t] - threshold)
        m[t] = m[t-1] sigma((1 - decay) u[t]) + s[t]
        v[t] = u[t] - s[t] (threshold + sigma(m[t]))            sigma the logistic function; decay = 1 - 1/tau

    m is the complementary potential. Constants are those of :func:`csbp_jax.neurons.lif`.
    """

    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    spike: Surrogate = triangle()
    detach_reset: bool = False
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, state: ComplementaryState | None = None) -> tuple[jax.Array, ComplementaryState]:
        """Return ``(spikes [B, T, ...], state)`` of the current ``x [B, T, ...]``."""
        return self.trace(x, state)[:2]

    def trace(
        self, x: jax.Array, state: ComplementaryState | None = None
    ) -> tuple[jax.Array, ComplementaryState, jax.Array]:
        """As the call, with u ``[B, T, ...]``, the membrane before reset."""
        x, shape, dtype = arguments.sequence("CLIF", x)
        arguments.firing("CLIF", self.spike, self.at_threshold)
        ranges.require("CLIF", ranges.FROM_0_TO_1, decay=self.decay)
        ranges.require("CLIF", ranges.ABOVE_0, threshold=self.threshold)
        v, m = arguments.states("CLIF", ComplementaryState, state, shape, dtype)
        decay = arguments.expand("CLIF", "decay", self.decay, shape, dtype)
        constants = (arguments.expand("CLIF", "threshold", self.threshold, shape, dtype), 1 - decay)
        cell = cell_scan.Cell(
            _complementary, (self.detach_reset,), cell_scan.HEAVISIDE[self.at_threshold], expensive=True
        )
        spikes, (v, (m,)), u = cell_scan.run(cell, x, (v, (m,)), decay, constants, self.spike)
        return spikes, ComplementaryState(v, m), u


def _complementary(
    options: tuple[bool],
    fire: cell_scan.Fire,
    constants: cell_scan.Constants,
    u: jax.Array,
    hidden: cell_scan.Hidden,
) -> tuple[jax.Array, jax.Array, cell_scan.Hidden]:
    threshold, leak = constants
    spikes = fire(u - threshold)
    m = hidden[0] * _logistic(leak * u) + spikes
    return spikes, cell_scan.after_reset(u, spikes, threshold + _logistic(m), "soft", *options), (m,)


def _logistic(x: jax.Array) -> jax.Array:
    # XLA on CPU computes tanh faster than exp.
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
