"""A network that is described by data: a graph of synapses, neurons and poolings with the weights they begin with.

A layer's input is the sum of the outputs of its sources, in their order. Layers have the names of the graph's nodes,
and taps those of taps.py: ``NODE.conv`` or ``NODE.dense`` of a synapse, ``NODE.membrane`` and so on of a neuron.
"""

import dataclasses
import functools
import operator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from numpy.typing import NDArray

from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.base import Network, RunLayer
from csbp_jax.models.taps import Aux, Probe, apply_taps, run_neuron
from csbp_jax.neurons import LIF, Neuron
from csbp_jax.neurons.lif import Reset
from csbp_jax.neurons.plif import Scaled
from csbp_jax.neurons.recurrent import Feedback
from csbp_jax.surrogate import Surrogate
from csbp_jax.xla.convolution import convolution
from csbp_jax.xla.static import repeat_over_time

Array = NDArray[Any]


class Synapse(NamedTuple):
    """Matrix product, or convolution with one padding ``(low, high)``, stride and dilation for each axis of the image.

    kernel: ``[in, out]`` or ``[height, width, in / groups, out]``.
    """

    kernel: Array
    bias: Array | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Spiking(NamedTuple):
    """Neuron of constants that broadcast, from the right, against its input without batch and time.

    feedback: ``[from, to]``, weights of its spikes at the next time step; None without recurrence.
    """

    decay: Array
    gain: Array
    threshold: Array
    reset: Reset
    feedback: Array | None = None


class Integrator(NamedTuple):
    """Neuron without threshold, whose output is its membrane."""

    decay: Array
    gain: Array


class Pool(NamedTuple):
    """Average pooling of an image, or sums over its windows."""

    window: tuple[int, int]
    stride: tuple[int, int]
    sums: bool


class Flatten(NamedTuple):
    """Flattening of an image, with its last axis, the channels, first or last."""

    channels_first: bool


class Scale(NamedTuple):
    """Product with a factor per element."""

    factor: Array


class Identity(NamedTuple):
    """Sum of the sources alone."""


Operation = Synapse | Spiking | Integrator | Pool | Flatten | Scale | Identity


class Node(NamedTuple):
    """Operation on the sum of the outputs of earlier nodes."""

    name: str
    sources: tuple[str, ...]
    operation: Operation


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, each behind its sources; the last one is the output, and the input is the name of no node.

    It is compared and hashed by identity, so that a module that holds it can be static.

    shape: of the input, without batch and time, channels last.
    """

    input: str
    shape: tuple[int, ...]
    nodes: tuple[Node, ...]


class GraphNetwork(Network):
    """Network of a :class:`Graph`, whose first variables are the graph's weights, whatever the key is.

    The constants of its neurons are those of the graph, and are not trained.

    time_steps: a static input is repeated over these.
    spike: surrogate gradient of all neurons.
    """

    graph: Graph = dataclasses.field(kw_only=True)
    spike: Surrogate = dataclasses.field(kw_only=True)

    def body(self, x: jax.Array, train: bool, run: RunLayer) -> jax.Array:
        if x.shape[2:] != self.graph.shape:
            raise ConfigError(f"x: has shape {x.shape}, but must be [B, T, {', '.join(map(str, self.graph.shape))}]")
        outputs = {self.graph.input: repeat_over_time(x, self.time_steps)}
        for name, sources, operation in self.graph.nodes:
            total = functools.reduce(operator.add, [outputs[source] for source in sources])
            outputs[name] = self._apply(name, operation, total, run)
        return outputs[self.graph.nodes[-1].name]

    def _apply(self, name: str, operation: Operation, x: jax.Array, run: RunLayer) -> jax.Array:
        match operation:
            case Synapse():
                return run(_Synapse(operation, name=name), x)
            case Spiking(decay, gain, threshold, reset):
                neuron = _scaled(LIF(decay, threshold, self.spike, reset), gain)
                return run(_Spiking(neuron, operation.feedback, name=name), x)
            case Integrator(decay, gain):
                integrator = _scaled(LIF(decay, spike=self.spike, reset="none"), gain)
                return integrator.trace(x)[2]
            case Pool(window, stride, sums):
                total: jax.Array = nn.pooling.pool(x, 0.0, lax.add, window, stride, "VALID")
                return total if sums else total / (window[0] * window[1])
            case Flatten(channels_first):
                return layers.flat(jnp.moveaxis(x, -1, 2) if channels_first else x)
            case Scale(factor):
                return x * lax.expand_dims(jnp.asarray(factor), range(x.ndim - factor.ndim))
        return x


def _scaled(neuron: LIF, gain: Array) -> LIF | Scaled:
    return neuron if (gain == 1).all() else Scaled(neuron, jnp.asarray(gain))


class _Synapse(nn.Module):
    """Synapse whose parameters begin with those of the graph."""

    synapse: Synapse

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Any, probe: Probe) -> tuple[jax.Array, Aux]:
        kernel, bias, stride, padding, dilation, groups = self.synapse
        options: dict[str, Any] = {
            "use_bias": bias is not None,
            "kernel_init": lambda *_: jnp.asarray(kernel),
            "bias_init": lambda *_: jnp.asarray(bias),
        }
        if kernel.ndim == 2:
            h = nn.Dense(kernel.shape[-1], name="dense", **options)(x)
            return h, apply_taps(str(self.name), {"dense": h}, probe)
        options |= {"strides": stride, "padding": padding, "kernel_dilation": dilation, "feature_group_count": groups}
        if padding == tuple((size // 2, size // 2) for size in kernel.shape[:2]) and dilation == (1, 1):
            options["conv_general_dilated"] = convolution
        h = nn.Conv(kernel.shape[-1], kernel.shape[:2], name="conv", **options)(x)
        return h, apply_taps(str(self.name), {"conv": h}, probe)


class _Spiking(nn.Module):
    """Neuron, recurrent if it has weights of feedback."""

    cell: Neuron
    feedback: Array | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, neuron: Any, probe: Probe) -> tuple[jax.Array, Aux]:
        cell = self.cell
        if self.feedback is not None:
            cell = Feedback(cell, self.param("feedback", lambda _: jnp.asarray(self.feedback)))
        return run_neuron(str(self.name), {"current": x}, x, cell, probe)


def variables(graph: Graph) -> dict[str, Any]:
    """Return the graph's weights as the variables of its :class:`GraphNetwork`."""
    params: dict[str, Any] = {}
    for name, _, operation in graph.nodes:
        if isinstance(operation, Synapse):
            weights = {"kernel": operation.kernel} | ({} if operation.bias is None else {"bias": operation.bias})
            params[name] = {"dense" if operation.kernel.ndim == 2 else "conv": jax.tree.map(jnp.asarray, weights)}
        elif isinstance(operation, Spiking) and operation.feedback is not None:
            params[name] = {"feedback": jnp.asarray(operation.feedback)}
    return {"params": params}
