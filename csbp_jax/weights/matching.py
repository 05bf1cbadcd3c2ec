"""Matching of a checkpoint's keys with the leaves of a network, or a one-line error that says why they do not fit."""

import difflib
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path
from numpy.typing import NDArray

from csbp_jax import config as configuration
from csbp_jax.config import ConfigError
from csbp_jax.weights import names
from csbp_jax.weights.names import LEAVES, Table

Path = str | os.PathLike[str]
Shape = tuple[int, ...]
OPTION = "--weights-table FILE, docs/weights.md"
CONNECTIONS = ("kernel", "delay", "feedback")
"""Parameters of connections, whose last axis is that of the outputs here, and that of the inputs in PyTorch."""
_COUNTER = r"(^|\.)num_batches_tracked$"


def choose(tables: Sequence[Table], keys: Collection[str]) -> Table:
    """Choose, of the published forms of a network, the one whose module names overlap most with the file's keys.

    If none overlaps more than the others, names are compared without their numbers.
    """
    return max(tables, key=lambda table: (_overlap(table, keys), _overlap(table, keys, numbers=False)))


def fit(
    file_shapes: Mapping[str, Shape],
    shapes: Any,
    config: configuration.Model,
    table: Table,
    path: Path = "checkpoint",
) -> dict[str, str]:
    """Return ``{leaf: key}``, after checking that leaves and keys correspond one to one and that all shapes agree.

    Args:
      file_shapes: shapes in the file, by key.
      shapes: the network's variables, as ``jax.eval_shape`` gives them.

    Raises:
      ConfigError: a key is missing or left over, or a shape differs.
    """
    leaves: dict[str, Shape] = {name_of(key_path): leaf.shape for key_path, leaf in tree_leaves_with_path(shapes)}
    keys = {name: _key(table.names, name, path) for name in leaves}
    read = set(keys.values())
    extra = sorted(key for key in set(file_shapes) - read if not _is_unread(table, key, file_shapes))
    # In the order of the forward pass, so that the first layer that is missing or differs is named.
    order = {module: i for i, module in enumerate(table.names)}
    ordered = sorted(keys.items(), key=lambda item: order[item[0] if item[0] in order else item[0].rpartition("/")[0]])
    missing = {key: _torch_shape(name, leaves[name]) for name, key in ordered if key not in file_shapes}
    if missing:
        remedy = _other_network(config, file_shapes) or _nearest(missing, {key: file_shapes[key] for key in extra})
        raise ConfigError(f"{path}: lacks {_first_three(list(missing))} of {config.name} ({table.source}){remedy}")
    if extra:
        remedy = _remedy_for_extra_keys(extra) or _other_network(config, file_shapes)
        remedy = remedy or f'; a table of names can leave it out, {{"{extra[0]}": null}} ({OPTION})'
        raise ConfigError(
            f"{path}: has {_first_three(extra)}, which {config.name} ({table.source}) does not have{remedy}"
        )
    for name, key in ordered:
        expected, actual = _torch_shape(name, leaves[name]), tuple(file_shapes[key])
        if _without_unit_axes(name, expected) != _without_unit_axes(name, actual, len(expected)):
            remedy = _remedy_for_shape(name, expected, actual)
            raise ConfigError(f"{path}: {key} has shape {actual}, but {name} needs {expected}{remedy}")
    return keys


def check_repeats(tensors: Mapping[str, NDArray[Any]], table: Table, path: Path) -> None:
    """Check that tensors which are registered under two keys have equal values under both.

    Raises:
      ConfigError: two of them differ, so that the file does not say which is right.
    """
    for key, array in tensors.items():
        first = table.first_key(key)
        if first == key or first not in tensors or re.search(f"{_COUNTER}|{table.unused}", key):
            continue
        if not np.array_equal(array, tensors[first], equal_nan=True):
            raise ConfigError(
                f"{path}: {key} and {first} differ, but are one tensor in {table.source}; save the weights again, or "
                f'leave one out by a table of names, {{"{key}": null}} ({OPTION})'
            )


def name_of(key_path: tuple[Any, ...]) -> str:
    """Return the path of a leaf without its collection, ``conv1/norm/scale``."""
    return keystr(key_path, simple=True, separator="/").partition("/")[2]


def _key(table: Mapping[str, str], name: str, path: Path) -> str:
    module, _, leaf = name.rpartition("/")
    if name in table:
        return table[name]
    if module in table and leaf in LEAVES:
        return f"{table[module]}.{LEAVES[leaf]}"
    own = f"{name}, which needs its own, as PyTorch has no name for it"
    entry = f"{module}, a module of the network" if leaf in LEAVES else own
    raise ConfigError(f"{path}: the table of names has no entry {entry}")


def _is_unread(table: Table, key: str, keys: Collection[str]) -> bool:
    """Return whether the forward pass does not read a key, or reads it under another that the file has, too."""
    first = table.first_key(key)
    return bool(re.search(f"{_COUNTER}|{table.unused}", key)) or (first != key and first in keys)


def _modules(table: Table, keys: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the table's modules and those that the file has in their place, repeats once."""
    expected = [name.rpartition(".")[0] if leaf.endswith("/p") else name for leaf, name in table.names.items()]
    actual = {key.rpartition(".")[0] for key in keys if not _is_unread(table, key, keys)}
    return list(dict.fromkeys(expected)), sorted(actual)


def _overlap(table: Table, keys: Collection[str], numbers: bool = True) -> float:
    """Return the Jaccard index of the table's and the file's modules, by their names with or without numbers."""
    expected, actual = (
        Counter(name if numbers else re.sub(r"\d+", "", name) for name in names) for names in _modules(table, keys)
    )
    return (expected & actual).total() / (expected | actual).total()


def _torch_shape(name: str, shape: Shape) -> Shape:
    """Return the shape that PyTorch gives a Flax leaf."""
    if name.rpartition("/")[2] not in CONNECTIONS:
        return tuple(shape)
    return tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else tuple(reversed(shape))


def _without_unit_axes(name: str, shape: Shape, rank: int | None = None) -> Shape:
    """Drop axes of size 1 that only PyTorch has: those of a neuron's w and TEBN's p, and of 1x1 convolutions.

    rank: that of a dense kernel, for which PyTorch may have a convolution.
    """
    if name.rpartition("/")[2] in ("p", "w"):
        return tuple(n for n in shape if n != 1)
    return shape[:2] if rank == 2 and set(shape[2:]) == {1} else shape


def _first_three(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}"


def _nearest(missing: Mapping[str, Shape], extra: Mapping[str, Shape]) -> str:
    """Name, for the first missing keys, the nearest that are left over: of their shape, if any is."""
    nearest: list[str] = []
    for key, shape in list(missing.items())[:3]:
        remaining = [other for other in extra if other not in nearest]
        same_shape = [other for other in remaining if tuple(extra[other]) == shape]
        nearest += difflib.get_close_matches(key, same_shape or remaining, n=1, cutoff=0.0 if same_shape else 0.6)
    return (
        f"; nearest in the file: {', '.join(nearest)}; a table of names can assign them ({OPTION})" if nearest else ""
    )


def _other_network(config: configuration.Model, keys: Collection[str]) -> str:
    """Name another network that the file fits almost completely."""
    overlap = {network: max(_overlap(table, keys) for table in tables) for network, tables in names.TABLES.items()}
    best = max(overlap, key=lambda network: overlap[network])
    return f"; it looks like --model.name {best}" if best != config.name and overlap[best] > 0.9 else ""


def _remedy_for_extra_keys(extra: Sequence[str]) -> str:
    remedies = {"w": "; its neurons are PLIF: --model.neuron.learn layer", "p": "; its norm is TEBN: --model.norm tebn"}
    leaves = {key.rpartition(".")[2] for key in extra}
    return remedies.get(leaves.pop(), "") if len(leaves) == 1 else ""


def _remedy_for_shape(name: str, expected: Shape, actual: Shape) -> str:
    layer, _, leaf = name.rpartition("/")
    differ = [n for n, (a, b) in enumerate(itertools.zip_longest(expected, actual)) if a != b]
    remedies = {
        f"; --model.time-steps {max(actual, default=0)}": leaf == "p",
        "; --model.neuron.learn layer": leaf == "w",
        "; --model.classes must be the file's": layer == "readout/dense" and differ == [0],
        "; --model.input-shape (or --model.width) must be the file's": len(expected) == 2 and 0 not in differ,
        "; --model.input-shape must have the file's channels": len(expected) == 4 and 1 in differ and 0 not in differ,
        "; perhaps --model.width is not the file's": True,
    }
    return next(remedy for remedy, fits in remedies.items() if fits)
