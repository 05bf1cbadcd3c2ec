"""Weights from PyTorch checkpoints into the networks here: the file (torch_file), the names (names), the arrays."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_map_with_path

from csbp_jax import config as configuration
from csbp_jax import models
from csbp_jax.config import ConfigError
from csbp_jax.weights import torch_file
from csbp_jax.weights.matching import choose, fit, name_of
from csbp_jax.weights.names import Table


def load(
    path: str | os.PathLike[str],
    config: configuration.Model,
    table: Mapping[str, str] | None = None,
    show: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """A checkpoint as the variables of a network, ``{"params": ..., "batch_stats": ...}``, in float32 or wider.

        convolution   [out, in, height, width]    to  [height, width, in, out]
        dense         [out, in]                   to  [in, out]; after a flattening, in = (channels, height, width)
                                                  there and (height, width, channels) here
        TEBN's p      [T, 1, 1, 1, 1]             to  [T]

    Args:
      path: what ``torch.save`` wrote.
      config: the network. Its neuron's constants are not in the file; give those of the original.
      table: ``{"conv1/conv": "features.0", ...}``, names of one's own in place of those in names.py.
      show: told, in one line, what was read and whose names fitted.

    Raises:
      ConfigError: the file cannot be read (torch_file.read), or it does not fit: names the layer and what to change.
    """
    tensors, where = torch_file.read(path)
    shapes = shapes_of(config)
    chosen = choose(path, config, tensors) if table is None else Table("the given table", dict(table))
    keys = fit({key: array.shape for key, array in tensors.items()}, shapes, config, chosen, path)
    channels = _flattened(chosen.names, shapes)
    if show:
        place = f"{where!r} of {path}" if where else path
        show(f"weights: {len(keys)} tensors from {place}, named as in {chosen.source}")

    def leaf(tree_path, shape):
        name = name_of(tree_path)
        array = tensors[keys[name]]
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ConfigError(f"{path}: {keys[name]} is of {array.dtype}, which is no weight")
        # float64 stays, where JAX has it
        dtype = jnp.result_type(float) if array.dtype == np.float64 else shape.dtype
        return jnp.asarray(_ours(array, channels.get(name)).reshape(shape.shape), dtype)

    return tree_map_with_path(leaf, shapes)


def shapes_of(config: configuration.Model) -> Any:
    """A network's variables, as ``jax.ShapeDtypeStruct``."""
    model = models.build(config)
    frame = jax.ShapeDtypeStruct((1, 1, *config.input_shape), jnp.result_type(float))
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), frame)


def _flattened(table, shapes):
    """``{leaf: channels}`` of the dense kernel that reads a flattened picture: those of the convolution before it."""
    modules = list(table)
    dense = next((i for i, module in enumerate(modules) if module.endswith("/dense")), 0)
    convs = [module for module in modules[:dense] if module.endswith("/conv")]
    if not convs:
        return {}
    layer, synapse = convs[-1].split("/")
    return {f"{modules[dense]}/kernel": shapes["params"][layer][synapse]["kernel"].shape[-1]}


def _ours(array, channels):
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and channels:
        array = array.reshape(len(array), channels, -1).swapaxes(1, 2).reshape(len(array), -1)
    return array.T if array.ndim == 2 else np.asarray(array)
