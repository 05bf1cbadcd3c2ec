"""Auxiliary outputs of a forward pass: chaos terms of tapped tensors, firing rates, spikes and membranes of layers.

No variables are sown and no hooks are used: a layer returns its :class:`Aux`, and a network merges them. Tensors that
can be tapped, named after their layer, as far as the layer has them:

    LAYER.conv, LAYER.dense   before the norm
    LAYER.norm                after the norm: the neuron's input, unless another current is still added to it
    LAYER.current             the neuron's input, where it is a sum of currents
    LAYER.membrane            after the last reset, ``[B, ...]``; of several states, the membrane alone
    LAYER.membrane_pre        before reset at every time step, ``[B, T, ...]``
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct

from csbp_jax.config import ConfigError
from csbp_jax.neurons import Neuron, State, TracingNeuron, membrane_of
from csbp_jax.neurons.psn import Parallel
from csbp_jax.neurons.recurrent import until_end
from csbp_jax.xla import lengths
from csbp_jax.xla.memory import time_outermost

Tap = Callable[..., jax.Array]
"""Function from a tapped tensor to a term, e.g. ``chaos.term``; it takes ``where`` if sequences have lengths."""

TAPS = {
    "conv, dense": "output of the synapses, before the norm",
    "norm": "after the norm: the neuron's input, unless another current is added",
    "current": "the neuron's input, where it is a sum of currents",
    "membrane": "membrane after the last time step and its reset",
    "membrane_pre": "membrane before reset, at every time step",
}
"""Kinds of tensors that a layer has, in words."""


@struct.dataclass
class Aux:
    """Auxiliary outputs of a forward pass.

    Of a layer that is called more than once, a term is the sum over the calls, as the chaos loss is, a rate is the
    mean, and spikes and membranes are those of the last call.

    terms: ``{tap: scalar}``, the tap function of each tapped tensor.
    rates: ``{layer: scalar}``, spikes per neuron per time step.
    spikes, membranes: ``{layer: [B, T, ...]}`` of the inspected layers, 0 in padding. Membranes are those before reset,
        and only of layers whose neuron has a ``trace``.
    states: ``{layer: state}`` of all neurons after the last time step, padding or not, if states were passed, and
        ``{LAYER.inputs: the last inputs}`` of layers with delays; see streaming.py.
    names: all tensors that can be tapped (static).
    """

    terms: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    rates: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    spikes: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    membranes: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    states: dict[str, State] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())


@dataclasses.dataclass(frozen=True)
class Probe:
    """Request for auxiliary outputs: the tap function, the tensors to tap, and the layers to inspect.

    states: the states of layers before the first time step, zeros where there is none; None: do not return states.
    lengths: of the sequences, ``[B]``; None where all are equal (lengths.py).
    """

    tap: Tap
    taps: tuple[str, ...] = ()
    inspect: tuple[str, ...] = ()
    states: Mapping[str, State] | None = None
    lengths: jax.Array | None = None

    def where(self, h: jax.Array) -> dict[str, jax.Array | None]:
        """Return the argument by which terms of ``h [B, T, ...]`` leave padding out, or no argument."""
        return {} if self.lengths is None else {"where": lengths.valid(self.lengths, h)}


def apply_taps(layer: str, tensors: dict[str, jax.Array], probe: Probe) -> Aux:
    """Compute the Aux of a layer from its tensors, named without the layer (``"norm"``).

    Raises:
      TypeError: a layer that computes in float16 is tapped. Its membrane is float32, but the term's gradient would
        underflow to zero on its way back through the float16 current.
    """
    tapped = {f"{layer}.{kind}": h for kind, h in tensors.items() if f"{layer}.{kind}" in probe.taps}
    if tapped and any(h.dtype == jnp.float16 for h in tensors.values()):
        raise TypeError(f"{layer} computes in float16 and is tapped; use bfloat16 or float32")
    with jax.named_scope("tap"):  # its kernels have this name in a profile
        terms = {
            name: probe.tap(h, **({} if name == f"{layer}.membrane" else probe.where(h))) for name, h in tapped.items()
        }
    return Aux(
        terms=terms,
        names=tuple(f"{layer}.{kind}" for kind in tensors),
    )


def run_neuron(
    layer: str, tensors: dict[str, jax.Array], current: jax.Array, neuron: Neuron, probe: Probe
) -> tuple[jax.Array, Aux]:
    """Run a layer's neuron on its input current, and compute the layer's :class:`Aux`.

    Args:
      layer: its name.
      tensors: those computed on the way to the current, for taps.
      current: ``[B, T, ...]``.
      neuron: see :class:`csbp_jax.neurons.Neuron`.
      probe: the requested outputs.

    Returns:
      ``(spikes [B, T, ...], Aux)``.

    Raises:
      ConfigError: a tap is of the membrane at every time step, and the neuron has no ``trace``; or sequences are
        padded, and the neuron mixes all time steps.
      TypeError: see :func:`apply_taps`, or the neuron gives something else than it should.
    """
    inspected = layer in probe.inspect
    required = f"{layer}.membrane_pre" in probe.taps
    traced = (required or inspected) and hasattr(neuron, "trace")
    if required and not traced:
        raise ConfigError(f"{layer}.membrane_pre: this neuron has no method trace(x, state=None)")
    if probe.lengths is not None and isinstance(neuron, Parallel):
        raise ConfigError(
            "model.neuron.name: psn and masked_psn are not possible with sequences of unequal length, whose padding "
            "their weights would mix with the time steps before it; take sliding_psn"
        )
    run: Any = cast(TracingNeuron, neuron).trace if traced else neuron
    if probe.lengths is not None and f"{layer}.membrane" in probe.taps:
        run = until_end(run, probe.lengths)
    start = [probe.states[layer]] if probe.states and layer in probe.states else []
    with jax.named_scope("neuron"):  # its kernels have this name in a profile
        current = time_outermost(current)
        spikes, state, *u = _checked(
            run(current, *start), current, "(spikes, state, u)" if traced else "(spikes, state)"
        )
    membrane = membrane_of(state)
    after_reset = {} if membrane is None else {"membrane": membrane}
    aux = apply_taps(layer, {**tensors, **after_reset, **({"membrane_pre": u[0]} if u else {})}, probe)
    rate_dtype, where = jnp.promote_types(spikes.dtype, jnp.float32), lengths.valid(probe.lengths, spikes)
    return spikes, dataclasses.replace(
        aux,
        rates={layer: jnp.mean(spikes, dtype=rate_dtype, where=where)},
        spikes={layer: lengths.without_padding(probe.lengths, spikes)} if inspected else {},
        membranes={layer: lengths.without_padding(probe.lengths, u[0])} if inspected and u else {},
        states={} if probe.states is None else {layer: state},
        names=tuple(dict.fromkeys([*aux.names, f"{layer}.membrane_pre"])),
    )


def _checked(result: Any, current: jax.Array, form: str) -> Any:
    shapes = [jnp.shape(part) for part in result[:1]] if isinstance(result, tuple) else []
    if len(shapes) != 1 or len(result) != form.count(",") + 1 or shapes[0] != current.shape:
        first = (
            f"a tuple of {len(result)}, the first of shape {shapes[0]}"
            if shapes
            else "an array"
            if hasattr(result, "shape")
            else type(result).__name__
        )
        raise TypeError(
            f"for x of shape {current.shape}, it gives {first}; expected is {form}, spikes of the shape of x"
        )
    return result


def merge_aux(layers: Sequence[Aux], probe: Probe) -> Aux:
    """Merge the Aux of all layers of a network.

    Raises:
      ConfigError: a tap or an inspected layer does not exist; the message lists those that do. Or states are requested
        of a layer that is called more than once.
    """
    # A list for each name, which has one value for each call of the layer.
    collected: dict[str, dict[str, list[Any]]] = {
        field.name: {} for field in dataclasses.fields(Aux) if field.name != "names"
    }
    for aux in layers:
        for collection, values in collected.items():
            for name, value in getattr(aux, collection).items():
                values.setdefault(name, []).append(value)
    if repeated := [name for name, states in collected["states"].items() if len(states) > 1]:
        raise ConfigError(
            f"stream: not possible for this network, whose layer {', '.join(repeated)} is called more than once; apply "
            "it to whole sequences"
        )
    combined = {"terms": _sum, "rates": _mean}
    merged: dict[str, dict[str, Any]] = {
        collection: {name: combined.get(collection, operator.itemgetter(-1))(calls) for name, calls in values.items()}
        for collection, values in collected.items()
    }
    names = tuple(name for aux in layers for name in aux.names)
    for option, requested, known in (
        ("chaos.taps", probe.taps, names),
        ("inspect", probe.inspect, tuple(merged["rates"])),
    ):
        unknown = [name for name in requested if name not in known]
        if unknown:
            hint = "; separate names by blanks" if "," in unknown[0] else ""
            raise ConfigError(f"{option}: this network has no {', '.join(unknown)}; it has {', '.join(known)}{hint}")
    return Aux(**merged, names=names)


def _sum(calls: list[Any]) -> Any:
    return functools.reduce(operator.add, calls)


def _mean(calls: list[Any]) -> Any:
    return _sum(calls) / len(calls) if len(calls) > 1 else calls[0]
