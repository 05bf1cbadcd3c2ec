"""Export of a run's network as a graph of NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024).

NIR's neurons are differential equations and those of this package are difference equations. With forward Euler at a
step of dt they are the same:

    tau dv/dt = -v + r i   ->   u[t] = (1 - dt/tau) v[t-1] + (r dt/tau) i[t]     tau = dt / (1 - decay)
                                                                                r = gain / (1 - decay)

where gain is 1, or 1 - decay of PLIF and of a scaled input. dt is 1e-4, which is also what snnTorch takes. Neurons that
do not leak (IF, ``dv/dt = r i``) have r = gain / dt; a graph of such neurons alone has dt = 1. NIR, too, fires strictly
above the threshold and resets to 0. A neuron without reset is a leaky integrator (LI, I) and a threshold.

The graph is channels first, ``[C, H, W]``, one time step at a time; norms are folded into weights and biases, with the
running statistics. A sum of layers is several edges into one node; recurrent spikes arrive one step later.
"""

import dataclasses
import math
import pathlib
from typing import Any

import nir
import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.export import nir_nodes
from csbp_jax.export.nir_links import INPUT, OUTPUT, Call, Link, name_taken, trace
from csbp_jax.models import layers
from csbp_jax.runs.restore import RestoredRun

_NOTES = (
    "Not in the graph, since they concern training: the chaos term and its strength, surrogates, detached resets, "
    "dropout. A still input is the input of every time step. Weights and currents are float32."
)
Shape = tuple[int, ...]


@dataclasses.dataclass
class _Graph:
    """A graph under construction; ``shapes`` are those of the layers' outputs, channels last."""

    shapes: dict[str, Shape]
    nodes: dict[str, nir.NIRNode] = dataclasses.field(default_factory=dict)
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def append(self, sources: tuple[str, ...], name: str, node: nir.NIRNode) -> tuple[str, ...]:
        """Add a node and the edges to it, and return it as the source of the next ones.

        Raises:
          ConfigError: there is a node of this name.
        """
        if name in self.nodes:
            raise name_taken(name)
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return (name,)


def build(run: RestoredRun, metadata: dict[str, str]) -> nir.NIRGraph:
    """Return the graph of a run's network in evaluation mode.

    Each spiking layer is a node of its own name, its synapse one named ``LAYER_conv`` or ``LAYER_dense``; other layers
    have their names. Metadata: ``metadata``, ``dt`` in seconds, ``time_steps``, and in ``notes`` what it leaves out.

    Raises:
      ConfigError: the network does something that NIR cannot express: soft reset, norms whose factors change with time
        (TEBN's, BNTT), a read-out over time, maximum pooling, AND and IAND, delays of connections, a recurrent layer on
        an image, neurons or layers of another kind, a layer called twice, one with the name of another node. Says what
        and where.
    """
    model = run.config.model
    if model.read_out != "mean" or model.read_out_decay:
        raise ConfigError(
            "model.read_out: NIR has no read-outs over time but the mean, without a leak; export it as stablehlo"
        )
    shape = run.config.model.input_shape
    calls, logits = trace(run.apply, run.variables, (run.config.model.time_steps, *shape))
    graph = _Graph({INPUT: shape})
    graph.append((), INPUT, nir.Input(np.array(nir_nodes.channels_first(shape))))
    for call in calls:
        params, stats = (run.variables.get(kind, {}).get(call.name, {}) for kind in ("params", "batch_stats"))
        _add_layer(graph, call, params, stats)
        graph.shapes[call.name] = call.shape
    sources, shape = _add_transform(graph, OUTPUT, logits)
    if logits.transform == "vote":
        classes = run.config.model.classes
        sources, shape = graph.append(sources, "vote", nir_nodes.vote(shape[0], classes)), (classes,)
    graph.append(sources, OUTPUT, nir.Output(np.array(nir_nodes.channels_first(shape))))
    leaks = any(isinstance(node, nir.LIF | nir.LI) for node in graph.nodes.values())
    if leaks:
        for node in graph.nodes.values():
            if isinstance(node, nir.IF | nir.I):
                node.r = node.r / nir_nodes.DT
    precision = run.config.model.precision
    mixed = "" if precision == "float32" else f" The run had {precision} products and spikes."
    texts = {
        "dt": str(nir_nodes.DT if leaks else 1.0),
        "time_steps": str(run.config.model.time_steps),
        "notes": _NOTES + mixed,
    }
    return nir.NIRGraph(graph.nodes, graph.edges, metadata | texts)


def write(run: RestoredRun, metadata: dict[str, str], file: pathlib.Path) -> None:
    """Write the graph as HDF5, with ``nir.write``."""
    nir.write(str(file), build(run, metadata))


def _add_layer(graph: _Graph, call: Call, params: Any, stats: Any) -> None:
    """Add the nodes of a layer as a chain, the last of which has the layer's name."""
    sources, shape = _add_transform(graph, call.name, call.link)
    chain = nir_nodes.neuron(call, params)
    membrane = chain[0] if chain else None
    if not isinstance(call.module, layers.Spike):
        flattened: Shape = ()
        if "flat" in call.link.transform:
            flattened = graph.shapes[call.link.sources[0]]
            if call.link.transform == "pool flat":
                flattened = (flattened[0] // 2, flattened[1] // 2, flattened[2])
        chain = [nir_nodes.synapse(call, shape, flattened, params, stats), *chain]
    suffixes = {nir.Conv2d: "_conv", nir.Affine: "_dense", nir.LI: "_membrane", nir.I: "_membrane"}
    for node in chain:
        name = call.name if node is chain[-1] else call.name + suffixes[type(node)]
        sources = graph.append(sources, name, node)
        if node is membrane and isinstance(call.module, layers.Recurrent):
            graph.append((call.name,), f"{call.name}_feedback", nir.Linear(np.asarray(params["feedback"]).T))
            graph.edges.append((f"{call.name}_feedback", name))


def _add_transform(graph: _Graph, target: str, link: Link) -> tuple[tuple[str, ...], Shape]:
    """Add the pooling and flattening before a layer; return the sources of its input and its shape."""
    sources, shape = link.sources, graph.shapes[link.sources[0]]
    if "pool" in link.transform or link.transform == "mean":
        window = (shape[0], shape[1]) if link.transform == "mean" else (2, 2)
        sources = graph.append(sources, f"{target}_pool", nir_nodes.pool(window))
        shape = (shape[0] // window[0], shape[1] // window[1], shape[2])
    if "flat" in link.transform or link.transform == "mean":
        sources = graph.append(sources, f"{target}_flatten", nir_nodes.flatten(shape))
        shape = (math.prod(shape),)
    return sources, shape
