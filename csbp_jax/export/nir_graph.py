"""A run's network as a graph of NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024).

NIR's neurons are differential equations, ours steps; with forward Euler at a step of dt they are the same,

    tau dv/dt = -v + r i   ->   u[t] = (1 - dt/tau) v[t-1] + (r dt/tau) i[t]     tau = dt / (1 - decay)
                                                                                r = gain / (1 - decay)

where gain is 1, or PLIF's 1 - decay. dt is 1e-4, which is also what snnTorch takes; a graph of neurons that do not leak
(IF, ``dv/dt = r i``) has dt = 1, and r = gain. NIR, too, fires strictly above the threshold and resets to 0. A neuron
without reset is a leaky integrator (LI, I) and a threshold.

The graph is channels first, ``[C, H, W]``, one time step at a time; norms are folded into weights and biases, with the
statistics of evaluation. A sum of layers is several edges into one node, spikes that are fed back arrive a step later.
"""

import math
import pathlib
from typing import Any

import nir
import numpy as np

from csbp_jax.config import Config
from csbp_jax.evaluation.restore import RestoredRun
from csbp_jax.export import nir_nodes
from csbp_jax.export.nir_links import INPUT, OUTPUT, Call, Link, trace
from csbp_jax.models import layers

_NOTES = (
    "Not in the graph, since they are of training: the chaos term and its strength, surrogates, detached resets, "
    "dropout. A still picture is the input of every time step. Weights and currents are float32."
)
Edges = list[tuple[str, str]]


def build(run: RestoredRun, about: dict[str, str]) -> nir.NIRGraph:
    """The graph of a run's network in evaluation.

    Each spiking layer is a node of its own name, its synapse one named ``LAYER_conv`` or ``LAYER_dense``; other layers
    have their names. Metadata: ``about``, ``dt`` in seconds, ``time_steps``, and in ``notes`` what it leaves out.

    Raises:
      ConfigError: something that the network does cannot be said in NIR: soft reset, norms whose factors change with
        time (TEBN's, BNTT), maximum pooling, AND and IAND, neurons or layers of another kind. Says what and where.
    """
    shape = run.config.model.input_shape
    calls, out = trace(run.apply, run.variables, (run.config.model.time_steps, *shape))
    shapes = {INPUT: shape}
    edges: Edges = []
    made: dict[str, nir.NIRNode] = {INPUT: nir.Input(np.array(nir_nodes.first(shape)))}
    for call in calls:
        arrays = [run.variables.get(kind, {}).get(call.name, {}) for kind in ("params", "batch_stats")]
        _add(made, edges, call, shapes, *arrays)
        shapes[call.name] = call.shape
    ends, heard = _arrive(made, edges, OUTPUT, out, shapes)
    if out.way == "vote":
        made["vote"] = nir_nodes.vote(heard[0], run.config.model.classes)
        edges += [(end, "vote") for end in ends]
        ends, heard = ("vote",), (run.config.model.classes,)
    made[OUTPUT] = nir.Output(np.array(nir_nodes.first(heard)))
    edges += [(end, OUTPUT) for end in ends]
    leaks = any(isinstance(node, nir.LIF | nir.LI) for node in made.values())
    return nir.NIRGraph(made, edges, about | _described(run.config) | {"dt": str(nir_nodes.DT if leaks else 1.0)})


def write(run: RestoredRun, about: dict[str, str], file: pathlib.Path) -> None:
    """As HDF5, by ``nir.write``."""
    nir.write(str(file), build(run, about))


def _described(config: Config) -> dict[str, str]:
    told = "" if config.model.precision == "float32" else f" The run had {config.model.precision} products and spikes."
    return {"time_steps": str(config.model.time_steps), "notes": _NOTES + told}


def _add(made, edges: Edges, call: Call, shapes, params: Any, stats: Any) -> None:
    """The nodes of a layer, one after the other, and the edges to them; the last has the layer's name."""
    ends, heard = _arrive(made, edges, call.name, call.link, shapes)
    chain = nir_nodes.neuron(call, params)
    into = chain[0] if chain else None
    if not isinstance(call.module, layers.Spike):
        picture = shapes[call.link.sources[0]] if call.link.way == "flat" else ()
        if call.link.way == "pool flat":
            picture = _halved(shapes[call.link.sources[0]])
        chain = [nir_nodes.synapse(call, heard, picture, params, stats), *chain]
    suffixes = {nir.Conv2d: "_conv", nir.Affine: "_dense", nir.LI: "_membrane", nir.I: "_membrane"}
    for node in chain:
        name = call.name if node is chain[-1] else call.name + suffixes[type(node)]
        made[name] = node
        edges += [(end, name) for end in ends]
        ends = (name,)
        if node is into and isinstance(call.module, layers.Recurrent):
            made[f"{call.name}_feedback"] = nir.Linear(np.asarray(params["feedback"]).T)
            edges += [(call.name, f"{call.name}_feedback"), (f"{call.name}_feedback", name)]


def _arrive(made, edges: Edges, at: str, link: Link, shapes) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Where the edges to a layer begin, and the shape that it hears; makes the pooling and flattening on the way."""
    ends, shape = link.sources, shapes[link.sources[0]]

    def through(name, node):
        nonlocal ends
        made[name] = node
        edges.extend((end, name) for end in ends)
        ends = (name,)

    if "pool" in link.way or link.way == "mean":
        window = shape[:2] if link.way == "mean" else (2, 2)
        through(f"{at}_pool", nir_nodes.pool(window))
        shape = (*(size // part for size, part in zip(shape, window, strict=False)), shape[2])
    if "flat" in link.way or link.way == "mean":
        through(f"{at}_flatten", nir_nodes.flatten(shape))
        shape = (math.prod(shape),)
    return ends, shape


def _halved(shape):
    return (shape[0] // 2, shape[1] // 2, shape[2])
