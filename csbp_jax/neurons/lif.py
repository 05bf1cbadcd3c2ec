"""Leaky integrate-and-fire (LIF) neuron over time, as one pure function.

    u[t] = decay v[t-1] + x[t]          membrane before reset;  v[-1] = membrane, 0 by default
    s[t] = H(u[t] - threshold)          H(0) = 0, or 1 if at_threshold="fire"
    v[t] = (1 - s[t]) u[t]    hard   |   u[t] - threshold s[t]    soft   |   u[t]    none

Time is axis 1: ``[B, T, ...]``. The whole sequence is one ``custom_vjp`` (lif_scan.py): its only residual is the
membrane before reset, ``[B, T, ...]`` in float32 (and the initial membrane, if passed), from which spikes and resets
are recomputed in the reverse pass; of a short sequence in bfloat16, on CPUs and TPUs, it is x, from which all is
recomputed in half the memory: to the same numbers on CPUs, and with a gradient that is rounded at each time step on
TPUs. No hidden state remains between calls, so there is no ``reset()``.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax import ranges
from csbp_jax.neurons import arguments, lif_scan
from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.surrogate import Surrogate, triangle

Reset = Literal["hard", "soft", "none"]


def lif(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
    at_threshold: AtThreshold = "silent",
) -> tuple[jax.Array, jax.Array]:
    """Run the leaky integrate-and-fire neuron over a sequence (equations at the top of this module).

    Inside ``jax.shard_map``, its gradient, like that of the other neurons and of batch norm, needs ``check_vma=False``;
    gradients of weights that the devices share are then local, and the caller sums them over devices (``lax.psum``).

    Args:
      x: input current, ``[B, T, ...]``, of a floating dtype, in units of the threshold. Do not use float16 if a chaos
        term is applied to the membrane: the membrane is float32, but the term's gradient would underflow in x.
      decay: fraction of the membrane that remains from one step to the next (``tau`` of the CSBP code: 0.25 in its
        deep nets, 0.2 in its demonstration); 1 is the integrate-and-fire neuron. Broadcasts, from the right, against x
        without its time axis; may be traced and differentiated.
      threshold: membrane above which the neuron fires. Broadcasts, and may be traced and
        differentiated, like ``decay``.
      spike: surrogate whose ``derivative(u - threshold)`` replaces ``ds/du`` in the reverse pass.
      reset: ``"hard"`` to 0, ``"soft"`` by subtraction of the threshold, or ``"none"``.
      detach_reset: whether to stop the gradient through the spike in the reset (the CSBP code does not).
      membrane: ``v[-1]``, ``[B, ...]``; zeros by default. Pass the returned membrane to continue a sequence.
      at_threshold: whether a neuron stays ``"silent"`` at ``u = threshold`` exactly, or is to ``"fire"`` there, as
        those of SpikingJelly and sinabs do.

    Returns:
      ``(spikes, membrane)``: spikes ``[B, T, ...]`` in x's dtype, 0 or 1; membrane ``[B, ...]`` after the last
      reset, in float32 for x of any dtype but float64, for which it is float64.

    Raises:
      ValueError: x has no time step, ``reset`` or ``at_threshold`` is unknown, a shape does not
        broadcast, or a number of Python or NumPy is out of range: ``decay`` from 0 to 1, ``threshold`` above 0.
      TypeError: x does not have a floating dtype, or ``spike`` is not a surrogate.

    >>> spikes, membrane = lif(jnp.array([[0.8, 0.8, 0.8]]), decay=0.5)
    >>> spikes.tolist(), round(float(membrane[0]), 2)
    ([[0.0, 1.0, 0.0]], 0.8)
    """
    arguments.firing("lif", spike, at_threshold)
    rule = lif_scan.Rule(reset, detach_reset, at_threshold=at_threshold)
    return lif_scan.lif(*prepare_arguments(x, membrane, decay, threshold, reset), spike, rule)


def lif_trace(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
    at_threshold: AtThreshold = "silent",
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Run :func:`lif` and also return ``u``, the membrane before reset at every step, ``[B, T, ...]``.

    The reverse pass stores ``u`` anyway; returning it costs only its cotangent.
    """
    arguments.firing("lif", spike, at_threshold)
    rule = lif_scan.Rule(reset, detach_reset, at_threshold=at_threshold)
    return lif_scan.lif_trace(*prepare_arguments(x, membrane, decay, threshold, reset), spike, rule)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "spike"],
    meta_fields=["reset", "detach_reset", "at_threshold"],
)
@dataclasses.dataclass(frozen=True)
class LIF:
    """LIF neuron that holds the arguments of :func:`lif` as a pytree.

    It is a :class:`csbp_jax.neurons.TracingNeuron`. Its leaves (decay, threshold, the surrogate's width) may be traced,
    so a sweep can vary them.
    """

    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    spike: Surrogate = triangle()
    reset: Reset = "hard"
    detach_reset: bool = False
    at_threshold: AtThreshold = "silent"

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Run :func:`lif`."""
        return lif(x, **vars(self), membrane=membrane)

    def trace(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Run :func:`lif_trace`."""
        return lif_trace(x, **vars(self), membrane=membrane)


def prepare_arguments(
    x: jax.Array, membrane: jax.Array | None, decay: ArrayLike, threshold: ArrayLike, reset: str
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
    """Check the arguments of :func:`lif`, and bring them to the membrane's dtype and the rank of x without time."""
    x, shape, dtype = arguments.sequence("lif", x)
    arguments.one_of("lif", "reset", reset, Reset)
    ranges.require("lif", ranges.FROM_0_TO_1, decay=decay)
    ranges.require("lif", ranges.ABOVE_0, threshold=threshold)
    expand = functools.partial(arguments.expand, "lif", shape=shape, dtype=dtype)
    if membrane is not None:
        membrane = jnp.broadcast_to(expand("membrane", membrane), shape)
    return x, membrane, expand("decay", decay), expand("threshold", threshold)
