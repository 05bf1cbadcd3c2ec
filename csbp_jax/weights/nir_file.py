"""Networks from graphs of NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024).

Neurons are forward Euler steps of NIR's equations, the reverse of :mod:`csbp_jax.export.nir_graph`:

    LIF, LI   decay = 1 - dt/tau, gain = r dt/tau        IF, I   decay = 1, gain = r dt

A neuron fires strictly above its threshold, and is reset to 0. Loops other than a neuron's own spikes through a matrix,
which arrive one time step later, are refused.
"""

# ruff: noqa: E402
import graphlib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.config import ConfigError, extras

extras.need("nir", "csbp_jax.weights.nir_file")  # before what imports it

import nir

from csbp_jax.models import graph as spec
from csbp_jax.runtime import files
from csbp_jax.surrogate import Surrogate, triangle
from csbp_jax.weights import nir_nodes
from csbp_jax.weights.nir_nodes import Shape, Unreset


def load(
    file: str | os.PathLike[str], dt: float | None = None, spike: Surrogate = triangle()
) -> tuple[spec.GraphNetwork, dict[str, Any]]:
    """Read a file of NIR as ``(network, variables)``: ``network.apply(variables, x)`` returns ``(logits, aux)``.

    x is ``[B, T, ...]`` with channels last, as are the logits; layers and taps are named after the nodes.

    Args:
      file: HDF5, as ``nir.write`` writes it.
      dt: seconds per time step; by default, that of the file's metadata.
      spike: surrogate gradient of all neurons.

    Raises:
      ConfigError: the file cannot be read, or its graph cannot be expressed; names the node.
    """
    with files.hdf5(pathlib.Path(file), "nir"):  # nir.read follows every link
        pass
    with files.readable(file, "export it again", Exception, "cannot be read as a graph of NIR"):
        graph = nir.read(file, type_check=False)
    try:
        return from_graph(graph, dt, spike)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def from_graph(
    graph: nir.NIRGraph, dt: float | None = None, spike: Surrogate = triangle()
) -> tuple[spec.GraphNetwork, dict[str, Any]]:
    """Convert a graph in memory; arguments, result and errors as of :func:`load`."""
    step = _number(graph, "dt") if dt is None else dt
    if step is None:
        raise ConfigError("no time step in its metadata; pass dt, in seconds, as its neurons were trained with")
    if not (np.isfinite(step) and step > 0):
        raise ConfigError(f"dt: {step} is not possible; it is a time in seconds, above 0")
    wiring = _merged(_wiring(graph))
    feedbacks = _take_feedbacks(wiring)
    first, last = wiring.only(nir.Input), wiring.only(nir.Output)
    shapes = {first: nir_nodes.input_shape(first, wiring.nodes[first])}

    images: dict[str, Shape] = {}
    layers = []
    for name in wiring.order(last):
        if name == first:
            continue
        node, sources = wiring.nodes[name], wiring.sources[name]
        received = sorted({shapes[source] for source in sources})
        if len(received) > 1:
            raise ConfigError(f"{name}: its sources have different shapes: {', '.join(map(str, received))}")
        (shape,) = received
        if isinstance(node, nir.Flatten):
            # Channels stay last if only matrices follow, whose rows can be reordered.
            reordered = all(
                isinstance(wiring.nodes[target], nir.Affine | nir.Linear) and wiring.sources[target] == [name]
                for target in wiring.targets(name)
            )
            operation, shapes[name] = nir_nodes.flatten(name, node, shape, channels_first=not reordered)
            if reordered and len(shape) == 3:
                images[name] = nir_nodes.channels_last(shape)
        else:
            operation, shapes[name] = nir_nodes.operation(name, node, shape, images.get(sources[0], ()), step)
        if name in feedbacks:
            assert isinstance(operation, spec.Spiking)
            weights, _ = nir_nodes.operation(feedbacks[name], wiring.nodes[feedbacks[name]], shape, (), step)
            assert isinstance(weights, spec.Synapse)
            operation = operation._replace(feedback=weights.kernel)
        layers.append(spec.Node(name, tuple(sources), operation))

    described = spec.Graph(first, nir_nodes.channels_last(shapes[first]), tuple(layers))
    steps = _number(graph, "time_steps") or 1
    if not (steps >= 1 and float(steps).is_integer()):
        raise ConfigError(f"time_steps: {steps:g} in its metadata is not possible; it is a whole number from 1")
    network = spec.GraphNetwork(classes=shapes[last][0], time_steps=int(steps), graph=described, spike=spike)
    return network, spec.variables(described)


class _Wiring(NamedTuple):
    """Nodes, and the sources of each of them in the order of the edges."""

    nodes: dict[str, nir.NIRNode | Unreset]
    sources: dict[str, list[str]]

    def targets(self, name: str) -> list[str]:
        return [target for target, sources in self.sources.items() if name in sources]

    def only(self, kind: type[nir.NIRNode]) -> str:
        """Return the name of the only node of a kind."""
        names = [name for name, node in self.nodes.items() if isinstance(node, kind)]
        if len(names) != 1:
            raise ConfigError(f"{len(names)} nodes of the kind {kind.__name__}, but there must be exactly one")
        return names[0]

    def order(self, last: str) -> list[str]:
        """Sort the nodes that the last one depends on, each behind its sources."""
        sorter = graphlib.TopologicalSorter[str]()
        pending, reached = [last], {last}
        while pending:
            name = pending.pop()
            sources = self.sources[name]
            if not sources and not isinstance(self.nodes[name], nir.Input):
                raise ConfigError(f"{name}: it has no source")
            sorter.add(name, *sources)
            pending += set(sources) - reached
            reached |= set(sources)
        try:
            return list(sorter.static_order())
        except graphlib.CycleError as error:
            loop = error.args[1]
            raise ConfigError(
                f"{loop[0]}: a loop, {' -> '.join(loop)}; only a neuron's own spikes through one Linear node are read"
            ) from None


def _wiring(graph: nir.NIRGraph) -> _Wiring:
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        for name in (source, target):
            if name not in sources:
                raise ConfigError(f"an edge names the node {name!r}, which does not exist")
        sources[target].append(source)
    return _Wiring(dict(graph.nodes), sources)


def _merged(wiring: _Wiring) -> _Wiring:
    """Join each integrator and the threshold on it, if it goes nowhere else, to one neuron of the threshold's name."""
    nodes, sources = dict(wiring.nodes), {name: list(sources) for name, sources in wiring.sources.items()}
    for name, node in wiring.nodes.items():
        integrator = wiring.sources[name][0] if len(wiring.sources[name]) == 1 else name
        before = wiring.nodes[integrator]
        alone = isinstance(before, nir.LI | nir.I) and wiring.targets(integrator) == [name]
        if isinstance(node, nir.Threshold) and alone:
            nodes[name], sources[name] = Unreset(before, node), sources.pop(integrator)
            del nodes[integrator]
    return _Wiring(nodes, sources)


def _take_feedbacks(wiring: _Wiring) -> dict[str, str]:
    """Remove the edge that closes each loop of a neuron and a matrix; return ``{neuron: matrix}``."""
    feedbacks = {}
    for name, node in wiring.nodes.items():
        for source in wiring.sources[name]:
            looped = isinstance(wiring.nodes[source], nir.Linear) and wiring.sources[source] == [name]
            if looped and wiring.targets(source) == [name] and isinstance(node, nir.LIF | nir.IF | Unreset):
                feedbacks[name] = source
        if name in feedbacks:
            wiring.sources[name].remove(feedbacks[name])
    return feedbacks


def _number(graph: nir.NIRGraph, name: str) -> float | None:
    """Return a number of a graph's metadata, which hold texts in the files of this package."""
    value = (graph.metadata or {}).get(name)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        shown = value if isinstance(value, str) else type(value).__name__
        raise ConfigError(f"{name}: {shown!r} in its metadata is no number") from None
