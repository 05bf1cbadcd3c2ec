"""The arrays of a checkpoint by name, and their forms (dtype and shape), which its manifest lists."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

PyTree = Any
"""A nested structure of arrays, as JAX defines it."""

FORMAT = 2
"""Of what is written, the names of the arrays and their meanings; raised where a name gets another meaning.

Those of format 1, which no manifest names, are a subset.
"""


def forms(tree: PyTree) -> dict[str, str]:
    """Return dtype and shape of each array by its name, such as ``{"params/kernel": "float32[3, 4]"}``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _form(leaf) for path, leaf in leaves}


def without_parts(stored: Mapping[str, str], parts: Iterable[str]) -> dict[str, str]:
    """Return the forms of the arrays that are in none of some parts."""
    left_out = set(parts)
    return {name: form for name, form in stored.items() if name.partition("/")[0] not in left_out}


def held(stored: Mapping[str, str], part: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arrays of a part, a nested dictionary, that are stored with the same dtype and shape."""
    return unflatten_dict({
        path: leaf for path, leaf in flatten_dict(like).items() if stored.get("/".join([part, *path])) == _form(leaf)
    })  # fmt: skip


def part(stored: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return arrays without content for all that is stored of a part, as nested dictionaries."""
    of_part = {path: form for path, form in stored.items() if path.startswith(f"{name}/")}
    return unflatten_dict({tuple(path.split("/")[1:]): _like(form) for path, form in of_part.items()})


def without_empty(tree: PyTree) -> PyTree:
    """Return a tree with None in place of its arrays without elements, which Orbax refuses."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def with_empty_of(like: PyTree, tree: PyTree) -> PyTree:
    """Return the tree again whose arrays without elements :func:`without_empty` has taken out."""
    leaves = iter(jax.tree.leaves(tree))
    return jax.tree.map(lambda leaf: next(leaves) if leaf.size else np.zeros(leaf.shape, leaf.dtype), like)


def _form(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _like(form: str) -> jax.ShapeDtypeStruct:
    dtype, bracket, shape = form.partition("[")
    return jax.ShapeDtypeStruct(json.loads(bracket + shape), dtype)  # without a sharding: it becomes a NumPy array
