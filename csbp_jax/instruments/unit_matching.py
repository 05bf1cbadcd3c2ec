"""Matching of hidden units: the permutation of one network's units that brings its weights closest to another's.

The units of a hidden layer can be permuted, together with the weights that lead to and from them, without any change of
the network's function. Two networks that are equal up to such a permutation are far apart in their parameters, so units
are matched before parameters of two networks are compared or averaged.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from csbp_jax.config import ConfigError, Model

PREFIXES = {"dense": "fc", "small_conv": "conv"}
"""Networks whose units can be matched, chains of hidden layers, and how their layers are named."""

_SHARED = {"p"}
"""Parameters of a norm that are no unit's own: TEBN's scale of each time step."""

_OF_NEURONS = {"w"}
"""Parameters of a neuron that are a unit's own: PLIF's decay of each channel. All channels share those of a PSN."""

_SWEEPS = 100
"""The largest number of passes over the layers; each raises the agreement, so that few are needed."""

Permutations = list[NDArray[np.int64]]
"""For each hidden layer, which unit of the second network is put where, ``[units]``."""


def match_units(model: Model, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Permute the hidden units of a second network to match those of a first.

    The permutations maximise the inner product of both networks' parameters, by coordinate descent over the layers,
    where each step is a linear assignment (weight matching: Ainsworth, Hayase & Srinivasa, ICLR 2023). It begins from
    the units as they are, and from a pass through the layers that compares incoming weights alone; the better end is
    taken. It may be a local optimum, except for a permuted copy of the first network, whose permutation it finds.

    Args:
      model: of both networks.
      first, second: ``{"params", "batch_stats"}`` (``learner.weights_of``; or the variables of ``csbp_jax.load``).

    Returns:
      The second network with permuted units: the same function with other parameters.

    Raises:
      ConfigError: the network is not a chain of hidden layers (``dense``, ``small_conv``), its parameters
        are not those of the model, or the two differ in shape.
    """
    if model.name not in PREFIXES:
        raise ConfigError(
            f"model.name: hidden units of {model.name} cannot be matched; possible for {', '.join(PREFIXES)}"
        )
    ours, other = (jax.tree.map(np.asarray, {"params": {}, "batch_stats": {}} | dict(v)) for v in (first, second))
    shapes = [jax.tree.map(np.shape, variables["params"]) for variables in (ours, other)]
    if shapes[0] != shapes[1]:
        raise ConfigError("match_units: the two networks differ in their layers; pass two networks of the same config")
    count = sum(name.startswith(PREFIXES[model.name]) for name in ours["params"])
    layers = [f"{PREFIXES[model.name]}{i}" for i in range(1, count + 1)]
    if not layers or set(ours["params"]) != {*layers, "readout"}:
        raise ConfigError(f"match_units: the layers {', '.join(ours['params'])} are not those of {model.name}")
    unchanged = [np.arange(_kernel(ours, layer).shape[-1]) for layer in layers]
    from_incoming = list(unchanged)
    for n in range(len(layers)):
        from_incoming[n] = _assign(ours, other, layers, from_incoming, n, outgoing=False)
    candidates = [
        _permuted(other, layers, _descend(ours, other, layers, start)) for start in (unchanged, from_incoming)
    ]
    return max(candidates, key=lambda candidate: _agreement(ours, candidate))


def _descend(ours: Any, other: Any, layers: Sequence[str], permutations: Permutations) -> Permutations:
    """Choose the best permutation of one layer after another until none changes."""
    permutations = list(permutations)
    for _ in range(_SWEEPS):
        before = list(permutations)
        for n in range(len(layers)):
            permutations[n] = _assign(ours, other, layers, permutations, n, outgoing=True)
        if all(np.array_equal(a, b) for a, b in zip(before, permutations, strict=True)):
            break
    return permutations


def _assign(
    ours: Any, other: Any, layers: Sequence[str], permutations: Permutations, n: int, outgoing: bool
) -> NDArray[np.int64]:
    """Return the best permutation of layer n, with the other layers permuted as they are."""
    units = np.arange(len(permutations[n]))
    moved = _permuted(other, layers, [*permutations[:n], units, *permutations[n + 1 :]])
    similarity = _by_unit(ours, layers, n, outgoing) @ _by_unit(moved, layers, n, outgoing).T
    return np.asarray(linear_sum_assignment(similarity, maximize=True)[1])


def _by_unit(variables: Any, layers: Sequence[str], n: int, outgoing: bool) -> NDArray[Any]:
    """Return the parameters of each unit of layer n as a vector, ``[units, numbers]``."""
    units = _kernel(variables, layers[n]).shape[-1]
    per_unit = [
        leaf.reshape(-1, units).T
        for path, leaf in jax.tree.leaves_with_path(variables["params"][layers[n]])
        if _is_per_unit(path, leaf)
    ]
    if outgoing:
        following = variables["params"][layers[n + 1] if n + 1 < len(layers) else "readout"]
        for leaf in following.get(_synapse(following), following).values():
            if leaf.ndim > 1:
                # The readout's input is flattened with channels last.
                per_unit.append(leaf.reshape(-1, units, leaf.shape[-1]).swapaxes(0, 1).reshape(units, -1))
    return np.concatenate(per_unit, axis=1).astype(np.float64)


def _permuted(variables: Any, layers: Sequence[str], permutations: Permutations) -> dict[str, Any]:
    """Return a network with permuted units: its parameters and its running statistics."""
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    for n, (layer, permutation) in enumerate(zip(layers, permutations, strict=True)):
        permute = functools.partial(_permute_last, permutation)
        params[layer] = jax.tree.map_with_path(permute, params[layer])
        if layer in stats:
            stats[layer] = jax.tree.map_with_path(permute, stats[layer])
        following = layers[n + 1] if n + 1 < len(layers) else "readout"
        params[following] = _permute_input(params[following], permutation)
    return {"params": params, "batch_stats": stats}


def _permute_last(permutation: NDArray[np.int64], path: Any, leaf: NDArray[Any]) -> NDArray[Any]:
    return leaf[..., permutation] if _is_per_unit(path, leaf) else leaf


def _permute_input(layer: Mapping[str, Any], permutation: NDArray[np.int64]) -> dict[str, Any]:
    """Permute the inputs of the readout, or of the synapse within a layer: of weights and of delays."""
    if "kernel" not in layer:
        synapse = _synapse(layer)
        return {**layer, synapse: _permute_input(layer[synapse], permutation)}

    def permuted(leaf: NDArray[Any]) -> NDArray[Any]:
        split = leaf.reshape(-1, len(permutation), leaf.shape[-1])
        return split[:, permutation].reshape(leaf.shape)

    return {name: permuted(leaf) if leaf.ndim > 1 else leaf for name, leaf in layer.items()}


def _synapse(layer: Mapping[str, Any]) -> str:
    return "dense" if "dense" in layer else "conv"


def _is_per_unit(path: Any, leaf: NDArray[Any]) -> bool:
    names = [entry.key for entry in path]
    own = names[-1] in _OF_NEURONS if "neuron" in names else names[-1] not in _SHARED
    return leaf.ndim > 0 and own


def _kernel(variables: Any, layer: str) -> NDArray[Any]:
    params = variables["params"][layer]
    return params[_synapse(params)]["kernel"]


def _agreement(ours: Any, other: Any) -> float:
    """Return the inner product of the parameters of two networks."""
    products = jax.tree.map(lambda a, b: float(np.vdot(a, b)), ours["params"], other["params"])
    return float(sum(jax.tree.leaves(products)))
