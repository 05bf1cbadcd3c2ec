"""Spiking layers in Linen: synapse, norm over batch and time, neuron. Sequences are ``[B, T, ...]``, channels last.

Nothing is sown or hooked. A layer returns its spikes and an :class:`Aux`: one scalar for each tapped tensor, its firing
rate, and only what was asked for beyond that. Tensors that can be tapped, by the name of their layer:

    LAYER.conv, LAYER.dense   before the norm
    LAYER.norm                the neuron's input (what there is of it before the feedback, in a recurrent layer)
    LAYER.membrane            after the last reset, ``[B, ...]``
    LAYER.membrane_pre        before reset at every step, ``[B, T, ...]``
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from csbp_jax.config import ConfigError

# neuron(x, membrane=None) -> (spikes, membrane); with a method ``trace`` of the form of neurons.lif_trace where the
# membrane at every step is tapped or inspected.
Neuron = Callable[..., tuple[jax.Array, jax.Array]]
Tap = Callable[[jax.Array], jax.Array]


@struct.dataclass
class Aux:
    """What a forward pass hands out besides its logits.

    terms: ``{tap: scalar}``, the tap function of each tapped tensor.
    rates: ``{layer: scalar}``, share of (example, time step, neuron) that fired.
    spikes, membranes: ``{layer: [B, T, ...]}`` of the inspected layers (membranes before reset).
    names: every tensor that could be tapped (static).
    """

    terms: dict[str, jax.Array] = struct.field(default_factory=dict)
    rates: dict[str, jax.Array] = struct.field(default_factory=dict)
    spikes: dict[str, jax.Array] = struct.field(default_factory=dict)
    membranes: dict[str, jax.Array] = struct.field(default_factory=dict)
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())


@dataclasses.dataclass(frozen=True)
class Probe:
    """Which tensors go through the tap function, and which layers are handed out whole."""

    tap: Tap
    taps: tuple[str, ...] = ()
    inspect: tuple[str, ...] = ()


class Conv(nn.Module):
    """3x3 convolution, batch norm, neuron."""

    features: int
    time_steps: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Conv(self.features, (3, 3), use_bias=False, kernel_init=_HE, name="conv")
        h = show(synapse(x), self.time_steps)
        return fire(str(self.name), {"conv": h}, norm(train)(h), neuron, probe)


class Dense(nn.Module):
    """Fully connected, batch norm, neuron."""

    features: int
    time_steps: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Dense(self.features, use_bias=False, kernel_init=_HE, name="dense")
        h = show(synapse(x), self.time_steps)
        return fire(str(self.name), {"dense": h}, norm(train)(h), neuron, probe)


class Recurrent(nn.Module):
    """Fully connected, batch norm, neuron whose spikes come back: its current is ``norm(W x[t]) + V s[t-1]``."""

    features: int
    time_steps: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Neuron, probe: Probe) -> tuple[jax.Array, Aux]:
        synapse = nn.Dense(self.features, use_bias=False, kernel_init=_HE, name="dense")
        feedback = self.param("feedback", nn.initializers.orthogonal(), (self.features, self.features))
        h = show(synapse(x), self.time_steps)
        return fire(str(self.name), {"dense": h}, norm(train)(h), Feedback(neuron, feedback), probe)


_HE = nn.initializers.he_normal()


def norm(train: bool) -> nn.BatchNorm:
    """Batch norm with statistics over batch, time and space, a channel each; running ones decay by 0.9 a step."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm")


def show(h: jax.Array, time_steps: int) -> jax.Array:
    """Direct coding: a static input (T = 1), already through its first synapse, is shown for ``time_steps`` steps."""
    if h.shape[1] != 1:
        return h
    return jnp.broadcast_to(h, (h.shape[0], time_steps, *h.shape[2:]))


def pool(x: jax.Array) -> jax.Array:
    """2x2 average pooling of ``[B, T, H, W, C]``."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def flat(x: jax.Array) -> jax.Array:
    """``[B, T, ...]`` to ``[B, T, features]``."""
    return x.reshape(*x.shape[:2], -1)


def fire(
    layer: str, tensors: dict[str, jax.Array], current: jax.Array, neuron: Neuron, probe: Probe
) -> tuple[jax.Array, Aux]:
    """The neuron on its input current, and the layer's :class:`Aux`.

    Raises:
      ConfigError: the membrane at every step is asked of a neuron that has no ``trace``.
      TypeError: a layer that computes in float16 is tapped: the membrane is float32, but the term's gradient would turn
        to zero on its way back through the float16 current.
    """
    if current.dtype == jnp.float16 and any(tap.rpartition(".")[0] == layer for tap in probe.taps):
        raise TypeError(f"{layer} computes in float16 and is tapped; use bfloat16 or float32")
    tensors = {**tensors, "norm": current}
    inspected = layer in probe.inspect
    if inspected or f"{layer}.membrane_pre" in probe.taps:
        if not hasattr(neuron, "trace"):
            raise ConfigError(f"{layer}.membrane_pre: this neuron has no method trace(x, membrane=None)")
        spikes, tensors["membrane"], tensors["membrane_pre"] = neuron.trace(current)
    else:
        spikes, tensors["membrane"] = neuron(current)
    return spikes, Aux(
        terms={f"{layer}.{kind}": probe.tap(h) for kind, h in tensors.items() if f"{layer}.{kind}" in probe.taps},
        rates={layer: jnp.mean(spikes, dtype=jnp.promote_types(spikes.dtype, jnp.float32))},
        spikes={layer: spikes} if inspected else {},
        membranes={layer: tensors["membrane_pre"]} if inspected else {},
        names=tuple(f"{layer}.{kind}" for kind in dict.fromkeys([*tensors, "membrane_pre"])),
    )


@dataclasses.dataclass(frozen=True)
class Feedback:
    """A neuron whose spikes come back one step later, from rest: its current is ``x[t] + V s[t-1]``, ``s[-1] = 0``.

    neuron: called one time step at a time; there is a ``trace`` where the neuron has one.
    weights: ``V``, ``[F, F]``, from the neuron of the first axis to that of the second.
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
            spikes, membrane, *others = neuron((x_t + spikes @ self.weights)[:, None], membrane)
            return (membrane, spikes[:, 0]), [rows[:, 0] for rows in (spikes, *others)]

        none = jnp.zeros_like(x[:, 0])
        rest = (none.astype(jnp.promote_types(x.dtype, jnp.float32)), none)
        (membrane, _), sequences = lax.scan(step, rest, jnp.moveaxis(x, 1, 0))
        spikes, *others = (jnp.moveaxis(rows, 0, 1) for rows in sequences)
        return spikes, membrane, *others


def collect(parts: Sequence[Aux], probe: Probe) -> Aux:
    """One Aux of all layers.

    Raises:
      ConfigError: a tap or an inspected layer does not exist; lists those that do.
    """
    merged = {
        field: {k: v for part in parts for k, v in getattr(part, field).items()}
        for field in ("terms", "rates", "spikes", "membranes")
    }
    names = tuple(name for part in parts for name in part.names)
    for kind, asked, known in (("chaos.taps", probe.taps, names), ("inspect", probe.inspect, merged["rates"])):
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise ConfigError(f"{kind}: this network has no {', '.join(unknown)}; it has {', '.join(known)}")
    return Aux(**merged, names=names)
