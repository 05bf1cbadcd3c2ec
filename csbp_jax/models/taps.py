"""What a forward pass hands out besides its logits: the terms of tapped tensors, firing rates, inspected layers.

Nothing is sown or hooked. A layer returns its :class:`Aux`, and a network collects them. Tensors that can be tapped, by
the name of their layer, as far as the layer has them:

    LAYER.conv, LAYER.dense   before the norm
    LAYER.norm                after it: the neuron's input, unless another current is still added to it
    LAYER.current             the neuron's input, where it is a sum of currents
    LAYER.membrane            after the last reset, ``[B, ...]``
    LAYER.membrane_pre        before reset at every step, ``[B, T, ...]``
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct

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


def apply_taps(layer: str, tensors: dict[str, jax.Array], probe: Probe) -> Aux:
    """The Aux of a layer's tensors, by the last part of their names.

    Raises:
      TypeError: a layer that computes in float16 is tapped: the membrane is float32, but the term's gradient would turn
        to zero on its way back through the float16 current.
    """
    tapped = {f"{layer}.{kind}": h for kind, h in tensors.items() if f"{layer}.{kind}" in probe.taps}
    if tapped and any(h.dtype == jnp.float16 for h in tensors.values()):
        raise TypeError(f"{layer} computes in float16 and is tapped; use bfloat16 or float32")
    return Aux(
        terms={name: probe.tap(h) for name, h in tapped.items()},
        names=tuple(f"{layer}.{kind}" for kind in tensors),
    )


def run_neuron(
    layer: str, tensors: dict[str, jax.Array], current: jax.Array, neuron: Neuron, probe: Probe
) -> tuple[jax.Array, Aux]:
    """The neuron on its input current, and the layer's :class:`Aux`; ``tensors`` are those on the way to the current.

    Raises:
      ConfigError: the membrane at every step is asked of a neuron that has no ``trace``.
      TypeError: see :func:`listen`.
    """
    inspected = layer in probe.inspect
    before_reset = {}
    if inspected or f"{layer}.membrane_pre" in probe.taps:
        if not hasattr(neuron, "trace"):
            raise ConfigError(f"{layer}.membrane_pre: this neuron has no method trace(x, membrane=None)")
        spikes, membrane, before_reset["membrane_pre"] = neuron.trace(current)
    else:
        spikes, membrane = neuron(current)
    aux = apply_taps(layer, {**tensors, "membrane": membrane, **before_reset}, probe)
    return spikes, dataclasses.replace(
        aux,
        rates={layer: jnp.mean(spikes, dtype=jnp.promote_types(spikes.dtype, jnp.float32))},
        spikes={layer: spikes} if inspected else {},
        membranes={layer: before_reset["membrane_pre"]} if inspected else {},
        names=tuple(dict.fromkeys([*aux.names, f"{layer}.membrane_pre"])),
    )


def merge_aux(parts: Sequence[Aux], probe: Probe) -> Aux:
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
