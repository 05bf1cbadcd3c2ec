"""Weights of PyTorch checkpoints as variables of the networks of this package.

torch_file and torch_pickle read the file, names holds the module names of published code, user_table those of a user's
own, and matching pairs the file's keys with the leaves of a network.
nir_file reads graphs of NIR, as networks of their own.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves_with_path, tree_map_with_path
from numpy.typing import NDArray

from csbp_jax import config as configuration
from csbp_jax import models
from csbp_jax.config import ConfigError
from csbp_jax.weights import names, torch_file, user_table
from csbp_jax.weights.matching import CONNECTIONS, OPTION, check_repeats, choose, fit, name_of
from csbp_jax.weights.names import Table
from csbp_jax.weights.user_table import UserTable

Variables = dict[str, Any]
"""Collections of a Flax module: ``{"params": ..., "batch_stats": ...}``, each a nested dictionary of arrays."""


def load(
    path: str | os.PathLike[str],
    config: configuration.Model,
    table: UserTable | None = None,
    show: Callable[[str], None] | None = None,
) -> Variables:
    """Load a checkpoint as the variables of a network, ``{"params": ..., "batch_stats": ...}``, in float32 or wider.

        convolution   [out, in, height, width]    to  [height, width, in, out]
        dense         [out, in]                   to  [in, out]; after a flattening, of an image too, in = (channels,
                                                  height, width) in PyTorch and (height, width, channels) in Flax
        TEBN's p      [T, 1, 1, 1, 1]             to  [T]

    Delays and feedback are laid out as dense weights are, and all else as in PyTorch.

    Args:
      path: a file written by ``torch.save``.
      config: the network. The constants of its neuron are not in the file; give those of the original.
      table: ``{"conv1/conv": "features.0", ..., "aux_head": None}``, module names used in place of those in names.py,
        and modules of the file that are not read. A network without a table in names.py needs all of its modules.
      show: called with one line that says what was read and which table of names fitted.

    Raises:
      ConfigError: the file cannot be read (torch_file.read), or it does not fit: names the layer and what to change.
    """
    return apply(_read(path, table), config, show)


class Plan(NamedTuple):
    """A file that has been read: its tensors, and the entry of the file that they were.

    fitted: the table of names that fits a network, and the key of each of its leaves; None where the shapes of the
    network are not known yet.
    """

    path: str | os.PathLike[str]
    table: UserTable | None
    tensors: Mapping[str, NDArray[Any]]
    entry: str
    fitted: tuple[Table, dict[str, str]] | None


def plan(config: configuration.Config) -> Plan:
    """Read the checkpoint that a config names, ``weights``, before its data are.

    Whether it fits is checked at once only if the config states the input shape and the number of classes.

    Raises:
      ConfigError: as :func:`load`, or the table of names, ``weights_table``, cannot be read.
    """
    read = _read(config.weights, user_table.read(config.weights_table) if config.weights_table else None)
    return matched(read, config.model) if config.model.input_shape and config.model.classes else read


def _read(path: str | os.PathLike[str], table: UserTable | None) -> Plan:
    return Plan(path, table, *torch_file.read(path), None)


def matched(plan: Plan, config: configuration.Model) -> Plan:
    """Return the plan with its file matched with a network whose shapes are known.

    Raises:
      ConfigError: it does not fit.
    """
    return plan._replace(fitted=plan.fitted or _fitted(plan, config))


def _fitted(plan: Plan, config: configuration.Model) -> tuple[Table, dict[str, str]]:
    path, table, tables, shapes = plan.path, plan.table, names.of(config.name), shapes_of(config)
    if table is not None:
        table = table if tables else _in_order(table, config)
        tables = tuple(user_table.merged(published, table, shapes) for published in tables or (None,))
    if not tables:
        raise ConfigError(
            f"{path}: the names of {config.name} in PyTorch are not known; those of these networks are: "
            f"{', '.join(names.TABLES)}; for others, write a table of names ({OPTION})"
        )
    chosen = choose(tables, plan.tensors)
    keys = fit({key: array.shape for key, array in plan.tensors.items()}, shapes, config, chosen, path)
    check_repeats(plan.tensors, chosen, path)
    return chosen, keys


def apply(plan: Plan, config: configuration.Model, show: Callable[[str], None] | None = None) -> Variables:
    """Return the variables of a network, as :func:`load`, from a file that has been read."""
    path, tensors, shapes = plan.path, plan.tensors, shapes_of(config)
    chosen, keys = plan.fitted or _fitted(plan, config)
    channels = _flattened_channels(chosen.names, shapes, config.input_shape)
    if show:
        source = f"{plan.entry!r} of {path}" if plan.entry else path
        show(f"weights: {len(keys)} tensors from {source}, named as in {chosen.source}")

    def leaf(tree_path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
        name = name_of(tree_path)
        module, _, last = name.rpartition("/")
        array = tensors[keys[name]]
        # Not np.issubdtype, to which bfloat16 is no floating type.
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ConfigError(f"{path}: {keys[name]} has dtype {array.dtype}, but weights are floating-point")
        with np.errstate(over="ignore"):  # values that the network's type cannot hold are not finite
            is_finite = jnp.isfinite(array).all()
        if not is_finite or (last == "var" and (array < 0).any()):
            raise ConfigError(f"{path}: {keys[name]} is not finite, or has variances below 0; give another file")
        # float64 stays where JAX has it enabled.
        dtype = jnp.result_type(float) if array.dtype == np.float64 else shape.dtype
        values = _flax_layout(array, channels.get(module)) if last in CONNECTIONS else array
        return jnp.asarray(values.reshape(shape.shape), dtype)

    return tree_map_with_path(leaf, shapes)


def _in_order(table: UserTable, config: configuration.Model) -> UserTable:
    """Return a table in the order of the forward pass; a read-out without taps comes last."""
    layers = models.layer_names(models.build(config), config.input_shape)
    position = {layer: number for number, layer in enumerate(layers)}
    return dict(sorted(table.items(), key=lambda entry: position.get(entry[0].partition("/")[0], len(layers))))


def shapes_of(config: configuration.Model) -> Any:
    """Return the variables of a network as ``jax.ShapeDtypeStruct``."""
    model = models.build(config)
    frame = jax.ShapeDtypeStruct((1, 1, *config.input_shape), jnp.result_type(float))
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), frame)


def _flattened_channels(table: Mapping[str, str], shapes: Any, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Return ``{module: channels}`` of the first dense synapse: channels of the feature map or image that it reads.

    If it reads means over space, or tokens, it has as many inputs as these channels, whose order then stays.

    table: in the order of the forward pass.
    """
    kernels = {name_of(path): leaf.shape for path, leaf in tree_leaves_with_path(shapes)}
    channels = input_shape[-1] if len(input_shape) == 3 else 1
    for module in (entry.removesuffix("/kernel") for entry in table):
        shape = kernels.get(f"{module}/kernel", ())
        # Told by its shape, not by its name: a read-out may be the dense layer itself, without a synapse below it.
        if len(shape) == 2:
            return {module: channels}
        channels = shape[-1] if shape else channels
    return {}


def _flax_layout(array: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Permute the axes of a PyTorch weight to Flax's order.

    channels: those of the flattened feature map that a dense kernel reads; None if it reads none.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 3:  # a 1x1 convolution of tokens
        array = array[..., 0]
    if array.ndim == 2 and channels:
        array = array.reshape(len(array), channels, -1).swapaxes(1, 2).reshape(len(array), -1)
    return array.T if array.ndim == 2 else np.asarray(array)
