"""Interpreter of NIR graphs in NumPy, by NIR's equations and forward Euler, independent of csbp_jax."""

from typing import Any

import nir
import numpy as np


def run(graph, x, dt):
    """Return the outputs ``{node: [T, ...]}`` of all nodes for an input ``[T, ...]``.

    The input of a node is the sum of its edges; from a node that comes later in the order, the previous time step.
    """
    order = _order(graph)
    outputs: dict[str, list[Any]] = {name: [] for name in graph.nodes}
    states: dict[str, Any] = {}
    for x_t in x:
        current: dict[str, Any] = {}
        for name in order:
            node = graph.nodes[name]
            sources = [source for source, target in graph.edges if target == name]
            received = x_t if isinstance(node, nir.Input) else sum(_output(s, current, outputs, graph) for s in sources)
            current[name], states[name] = _step(node, received, states.get(name), dt)
        for name, output in current.items():
            outputs[name].append(output)
    return {name: np.stack(rows) for name, rows in outputs.items()}


def _output(source, current, outputs, graph):
    """Return the output of a node in this time step, or in the previous one if it is not computed yet."""
    if source in current:
        return current[source]
    rows = outputs[source]
    return rows[-1] if rows else np.zeros(tuple(graph.nodes[source].output_type["output"]), np.float32)


def _order(graph):
    """Sort nodes after their sources, except for edges that close a loop."""
    order = []

    def visit(name, path):
        for source, target in graph.edges:
            if target == name and source not in order and source not in path:
                visit(source, [*path, name])
        if name not in order:
            order.append(name)

    for name, node in graph.nodes.items():
        if isinstance(node, nir.Output):
            visit(name, [])
    return order


def _step(node, i, v, dt):
    """Return ``(output, state)`` of a node at one time step, from its input and its previous state."""
    v = np.float32(0) if v is None else v
    kind = type(node).__name__
    if kind in ("LIF", "LI"):
        v = v + dt / node.tau * (node.v_leak - v + node.r * i)
    elif kind in ("IF", "I"):
        v = v + dt * node.r * i
    if kind in ("LIF", "IF"):
        v = np.asarray(v, np.float32)
        s = v > node.v_threshold.astype(np.float32)
        return s.astype(np.float32), np.where(s, node.v_reset.astype(np.float32), v)
    if kind in ("LI", "I"):
        return np.asarray(v, np.float32), np.asarray(v, np.float32)
    stateless = {
        "Input": lambda: i,
        "Output": lambda: i,
        "Threshold": lambda: (i > node.threshold.astype(np.float32)).astype(np.float32),
        "Affine": lambda: node.weight @ i + node.bias,
        "Linear": lambda: node.weight @ i,
        "Scale": lambda: node.scale * i,
        "SumPool2d": lambda: _windows(i, node.kernel_size, node.stride).sum((3, 4)),
        "Flatten": lambda: i.reshape(tuple(node.output_type["output"])),
        "AvgPool2d": lambda: _windows(i, node.kernel_size, node.stride).mean((3, 4)),
        "Conv2d": lambda: _conv(node, i),
    }
    return np.asarray(stateless[kind](), np.float32), None


def _windows(x, size, stride, dilation=(1, 1)):
    """Split ``[C, H, W]`` into windows ``[C, H', W', h, w]``, which skip pixels with a dilation."""
    (rows, columns), (down, right) = (map(int, pair) for pair in (stride, dilation))
    span = tuple((int(n) - 1) * step + 1 for n, step in zip(size, (down, right), strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=(1, 2))
    return windows[:, ::rows, ::columns, ::down, ::right]


def _conv(node, x):
    padding = (0, 0) if isinstance(node.padding, str) else node.padding
    pad = [(0, 0), *((int(p), int(p)) for p in padding)]
    if isinstance(node.padding, str) and node.padding == "same":  # as PyTorch: an odd row or column is added at the end
        spans = [int(d) * (n - 1) for d, n in zip(node.dilation, node.weight.shape[2:], strict=True)]
        pad = [(0, 0), *((span // 2, span - span // 2) for span in spans)]
    windows = _windows(np.pad(x, pad), node.weight.shape[2:], node.stride, node.dilation)
    groups = zip(np.split(windows, int(node.groups)), np.split(node.weight, int(node.groups)), strict=True)
    parts = [np.einsum("chwij,ocij->ohw", part, weight, dtype=np.float64) for part, weight in groups]
    return np.concatenate(parts) + node.bias[:, None, None]
