"""Trained networks that ship with the package, by name; ``trained/README.md`` describes them.

A network is a directory ``trained/NAME`` with the ``config.json`` of its run, ``weights.safetensors``, and its measured
accuracy in ``accuracy.json``. ``tools/make_shipped.py`` trains and writes them.
"""

import json
import os
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_map_with_path

_TRAINED = resources.files("csbp_jax.weights").joinpath("trained")

NAMES = tuple(sorted(path.name for path in _TRAINED.iterdir() if path.is_dir()))


def find(run: str | os.PathLike[str]) -> str | None:
    """Return the name of the shipped network that ``run`` names, or None.

    A run's directory of that path (one with a ``config.json``) takes precedence.
    """
    name = os.fspath(run)
    return name if name in NAMES and not _is_run(name) else None


def notice(run: str | os.PathLike[str]) -> str | None:
    """Return a line that says which network is used, where ``run`` is the name of one that ships; None elsewhere."""
    name = os.fspath(run)
    if name not in NAMES:
        return None
    if _is_run(name):
        return f"{name}: the run in this directory, not the network that ships with csbp_jax"
    return f"{name}: the network that ships with csbp_jax (there is no run ./{name})"


def _is_run(path: str) -> bool:
    return os.path.exists(os.path.join(path, "config.json"))


def folder(name: str) -> Traversable:
    """Return the directory of a shipped network, for reading."""
    return _TRAINED.joinpath(name)


def read_json(name: str, file: str) -> dict[str, Any]:
    """Read ``config.json`` or ``accuracy.json`` of a shipped network."""
    content: dict[str, Any] = json.loads(folder(name).joinpath(file).read_bytes())
    return content


def load(name: str, like: Any) -> Any:
    """Load the weights of a shipped network.

    Args:
      name: one of ``NAMES``.
      like: its variables ``{"params": ..., "batch_stats": ...}`` as ``jax.ShapeDtypeStruct``.
    """
    from safetensors.numpy import load as parse

    arrays = parse(folder(name).joinpath("weights.safetensors").read_bytes())

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        array = arrays[keystr(path, simple=True, separator="/")]
        assert array.shape == shape.shape, path
        return jnp.asarray(array, shape.dtype)

    return tree_map_with_path(leaf, like)
