"""Weights of PyTorch checkpoints as variables of the networks of this package.

torch_file and torch_pickle read the file, names holds the module names of published code, and matching pairs the file's
keys with the leaves of a network.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_map_with_path
from numpy.typing import NDArray

from csbp_jax import config as configuration
from csbp_jax import models
from csbp_jax.config import ConfigError
from csbp_jax.weights import torch_file
from csbp_jax.weights.matching import choose, fit, name_of
from csbp_jax.weights.names import Table

Variables = dict[str, Any]
"""Collections of a Flax module: ``{"params": ..., "batch_stats": ...}``, each a nested dictionary of arrays."""


def load(
    path: str | os.PathLike[str],
    config: configuration.Model,
    table: Mapping[str, str] | None = None,
    show: Callable[[str], None] | None = None,
) -> Variables:
    """Load a checkpoint as the variables of a network, ``{"params": ..., "batch_stats": ...}``, in float32 or wider.

        convolution   [out, in, height, width]    to  [height, width, in, out]
        dense         [out, in]                   to  [in, out]; after a flattening, in = (channels, height, width)
                                                  in PyTorch and (height, width, channels) in Flax
        TEBN's p      [T, 1, 1, 1, 1]             to  [T]

    Args:
      path: a file written by ``torch.save``.
      config: the network. The constants of its neuron are not in the file; give those of the original.
      table: ``{"conv1/conv": "features.0", ...}``, module names used in place of those in names.py.
      show: called with one line that says what was read and which table of names fitted.

    Raises:
      ConfigError: the file cannot be read (torch_file.read), or it does not fit: names the layer and what to change.
    """
    tensors, entry = torch_file.read(path)
    shapes = shapes_of(config)
    chosen = choose(path, config, tensors) if table is None else Table("the given table", dict(table))
    keys = fit(_shapes(tensors), shapes, config, chosen, path)
    channels = _flattened_channels(chosen.names, shapes)
    if show:
        source = f"{entry!r} of {path}" if entry else path
        show(f"weights: {len(keys)} tensors from {source}, named as in {chosen.source}")

    def leaf(tree_path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        name = name_of(tree_path)
        array = tensors[keys[name]]
        # Not np.issubdtype, to which bfloat16 is no floating type.
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ConfigError(f"{path}: {keys[name]} has dtype {array.dtype}, but weights are floating-point")
        # float64 stays where JAX has it enabled.
        dtype = jnp.result_type(float) if array.dtype == np.float64 else shape.dtype
        return jnp.asarray(_flax_layout(array, channels.get(name)).reshape(shape.shape), dtype)

    variables: Variables = tree_map_with_path(leaf, shapes)
    return variables


def verify(path: str | os.PathLike[str], config: configuration.Model) -> None:
    """Check that a checkpoint can be loaded, before the data are.

    Whether it fits is checked only if the config states the input shape and the number of classes.

    Raises:
      ConfigError: as :func:`load`.
    """
    tensors, _ = torch_file.read(path)
    if config.input_shape and config.classes:
        fit(_shapes(tensors), shapes_of(config), config, choose(path, config, tensors), path)


def _shapes(tensors: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {key: array.shape for key, array in tensors.items()}


def shapes_of(config: configuration.Model) -> Any:
    """Return the variables of a network as ``jax.ShapeDtypeStruct``."""
    model = models.build(config)
    frame = jax.ShapeDtypeStruct((1, 1, *config.input_shape), jnp.result_type(float))
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), frame)


def _flattened_channels(table: Mapping[str, str], shapes: Any) -> dict[str, int]:
    """Return ``{leaf: channels}`` of the dense kernel after a flattening: channels of the convolution before it."""
    modules = list(table)
    dense = next((i for i, module in enumerate(modules) if module.endswith("/dense")), 0)
    convs = [module for module in modules[:dense] if module.endswith("/conv")]
    if not convs:
        return {}
    layer, synapse = convs[-1].split("/")
    return {f"{modules[dense]}/kernel": shapes["params"][layer][synapse]["kernel"].shape[-1]}


def _flax_layout(array: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Permute the axes of a PyTorch weight to Flax's order.

    channels: those of the flattened feature map that a dense kernel reads; None if it reads none.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and channels:
        array = array.reshape(len(array), channels, -1).swapaxes(1, 2).reshape(len(array), -1)
    return array.T if array.ndim == 2 else np.asarray(array)
