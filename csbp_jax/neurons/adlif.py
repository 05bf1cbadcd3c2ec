"""Adaptive LIF whose membrane and adaptation drive each other (adLIF), in the three published discretisations.

``p`` is the membrane before the spike, ``u`` that after the reset, ``w`` the adaptation, which acts as a negative
current; z is the spike, alpha ``decay``, beta ``adaptation_decay``, a ``coupling``, b ``adaptation`` and q
``adaptation_scale``. All forms have

    p[t] = alpha u[t-1] + (1 - alpha) (x[t] - w)            z[t] = H(p[t] - threshold)

and u[t] is p[t] after the reset of lif.py, but they differ in the adaptation:

    ==============  ==============  ================================================================  =========
    ``form``        w in p[t]       adaptation                                                        source
    ==============  ==============  ================================================================  =========
    ``symplectic``  ``w[t-1]``      ``w[t] = beta w[t-1] + (1 - beta) q (a u[t] + b z[t])``           Baronig
    ``euler``       ``w[t-1]``      ``w[t] = beta w[t-1] + (1 - beta) q (a u[t-1] + b z[t-1])``       Baronig
    ``bittar``      ``w[t]``        ``w[t] = beta w[t-1] + a p[t-1] + b z[t-1]``                      Bittar
    ==============  ==============  ================================================================  =========

Baronig et al. (Nature Communications 2025, "Advancing spatio-temporal processing through adaptation in spiking neural
networks", SE-adLIF and its Euler forward form; github.com/IGITUGraz/SE-adlif); Bittar and Garner (Frontiers in
Neuroscience 2022; github.com/idiap/sparch).
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from csbp_jax import ranges
from csbp_jax.neurons import arguments, cell_scan
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.neurons.lif import Reset
from csbp_jax.neurons.two_states import AdaptiveState
from csbp_jax.surrogate import Surrogate, triangle

Form = Literal["symplectic", "euler", "bittar"]

PUBLISHED_SCALE: dict[Form, float] = {"symplectic": 120.0, "euler": 60.0}
"""q of Baronig et al."""


class EulerState(NamedTuple):
    """State of :class:`AdLIF` in its ``euler`` form: ``u[t]`` after the last reset, ``w[t]`` and ``z[t]``."""

    membrane: jax.Array
    adaptation: jax.Array
    spikes: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "adaptation_decay", "coupling", "adaptation", "adaptation_scale", "spike"],
    meta_fields=["form", "reset", "detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class AdLIF:
    """Adaptive LIF (adLIF); its equations are at the top of this module.

    Constants broadcast, and may be traced and differentiated, as those of :func:`csbp_jax.neurons.lif`, which also
    lists the errors. Those of Baronig et al. are one for each neuron: ``decay`` exp(-1/tau) with tau from 5 to 25
    steps, ``adaptation_decay`` with tau from 60 to 300, ``coupling`` from 0 to 1, ``adaptation`` from 0 to 2, a hard
    reset that is detached, and a threshold of 1. Those of Bittar and Garner are ``form="bittar"`` with tau from 5 to
    25 and from 30 to 120, ``coupling`` from -1 to 1, ``adaptation`` from 0 to 2, and a soft reset with its gradient.

    The state is an :class:`csbp_jax.neurons.AdaptiveState` of ``u[t]`` and the adaptation that acts in the next time
    step: ``w[t]``, or ``w[t+1]`` in the form ``bittar``. Of the form ``euler`` it is an :class:`EulerState`. At rest
    all are 0; Bittar and Garner's code draws them from [0, 1).

    adaptation_scale: q; None: 120, or 60 in the form ``euler``. The form ``bittar`` has none.
    """

    decay: ArrayLike = 0.9
    threshold: ArrayLike = 1.0
    adaptation_decay: ArrayLike = 0.99
    coupling: ArrayLike = 0.5
    adaptation: ArrayLike = 1.0
    adaptation_scale: ArrayLike | None = None
    spike: Surrogate = triangle()
    form: Form = "symplectic"
    reset: Reset = "hard"
    detach_reset: bool = True
    at_threshold: AtThreshold = "silent"

    def __call__(
        self, x: jax.Array, state: AdaptiveState | EulerState | None = None
    ) -> tuple[jax.Array, AdaptiveState | EulerState]:
        """Return ``(spikes [B, T, ...], state)`` of the current ``x [B, T, ...]``."""
        return self.trace(x, state)[:2]

    def trace(
        self, x: jax.Array, state: AdaptiveState | EulerState | None = None
    ) -> tuple[jax.Array, AdaptiveState | EulerState, jax.Array]:
        """As the call, with p ``[B, T, ...]``, the membrane before reset."""
        x, shape, dtype = arguments.sequence("AdLIF", x)
        arguments.one_of("AdLIF", "form", self.form, Form)
        arguments.one_of("AdLIF", "reset", self.reset, Reset)
        arguments.firing("AdLIF", self.spike, self.at_threshold)
        ranges.require("AdLIF", ranges.FROM_0_TO_1, decay=self.decay, adaptation_decay=self.adaptation_decay)
        ranges.require("AdLIF", ranges.ABOVE_0, threshold=self.threshold)
        ranges.require("AdLIF", ranges.FROM_0, adaptation=self.adaptation)
        expand = functools.partial(arguments.expand, "AdLIF", shape=shape, dtype=dtype)
        decay, threshold = expand("decay", self.decay), expand("threshold", self.threshold)
        kept = expand("adaptation_decay", self.adaptation_decay)
        factor = self._factor(kept)
        constants = (
            decay,
            threshold,
            kept,
            factor * expand("coupling", self.coupling),
            factor * expand("adaptation", self.adaptation),
        )
        start = _start(self.form, state, constants, shape, dtype)

        cell = cell_scan.Cell(
            _coupled, (self.form, self.reset, self.detach_reset), cell_scan.HEAVISIDE[self.at_threshold]
        )
        # What a step leaves to the next one, alpha u - (1 - alpha) w, takes the place of the membrane, so that the
        # scan stores p.
        no_decay = jnp.ones_like(decay)
        scaled = (1 - jnp.expand_dims(decay, 1)) * x.astype(dtype)
        spikes, (_, hidden), p = cell_scan.run(cell, scaled, start, no_decay, constants, self.spike)

        last = spikes[:, -1]
        membrane = cell_scan.after_reset(p[:, -1], last, threshold, self.reset, self.detach_reset)
        spikes = spikes.astype(x.dtype)
        if self.form == "euler":
            return spikes, EulerState(membrane, hidden[1], last), p
        return spikes, AdaptiveState(membrane, hidden[0]), p

    def _factor(self, adaptation_decay: jax.Array) -> jax.Array | float:
        """Return what coupling and adaptation are multiplied by."""
        if self.form == "bittar":
            if self.adaptation_scale is not None:
                raise ValueError("AdLIF: the form bittar has no adaptation_scale, which must be None")
            return 1.0
        q = PUBLISHED_SCALE[self.form] if self.adaptation_scale is None else self.adaptation_scale
        return (1 - adaptation_decay) * jnp.asarray(q, adaptation_decay.dtype)


def _start(
    form: Form,
    state: AdaptiveState | EulerState | None,
    constants: cell_scan.Constants,
    shape: tuple[int, ...],
    dtype: DTypeLike,
) -> cell_scan.State:
    """Return the state of the scan before the first time step; see :func:`_coupled`."""
    decay, _, kept, coupling, adaptation = constants
    if form == "euler":
        u, w, z = arguments.states("AdLIF", EulerState, state, shape, dtype)
        return decay * u - (1 - decay) * w, (kept * w + coupling * u + adaptation * z, w)
    u, w = arguments.states("AdLIF", AdaptiveState, state, shape, dtype)
    return decay * u - (1 - decay) * w, (w,)


def _coupled(
    options: tuple[Form, Reset, bool],
    fire: cell_scan.Fire,
    constants: cell_scan.Constants,
    p: jax.Array,
    hidden: cell_scan.Hidden,
) -> tuple[jax.Array, jax.Array, cell_scan.Hidden]:
    """Compute the spikes, ``alpha u[t] - (1 - alpha) w``, and the adaptation of the next step.

    hidden: ``(w[t-1],)`` in the form ``symplectic``, ``(w[t],)`` in the form ``bittar``, and in the form ``euler``
      ``(w[t], w[t-1])``, of which the second is read after the last step only, as part of the neuron's state.
    """
    form, reset, detach_reset = options
    decay, threshold, kept, coupling, adaptation = constants
    w = hidden[0]
    spikes = fire(p - threshold)
    u = cell_scan.after_reset(p, spikes, threshold, reset, detach_reset)
    following = kept * w + coupling * (p if form == "bittar" else u) + adaptation * spikes
    if form == "euler":
        return spikes, decay * u - (1 - decay) * w, (following, w)
    return spikes, decay * u - (1 - decay) * following, (following,)
