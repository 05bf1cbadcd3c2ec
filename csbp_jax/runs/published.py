"""Published networks: folders with the weights of one epoch in place of a run's checkpoints.

    config.json          that of the run, with ``weights_of``, ``epoch`` and ``producer``
    model.safetensors    parameters and running statistics, ``params/conv1/conv/kernel``, ...
    experiment.py        the user's code, if the run has any

``csbp_jax push`` (export/hub.py) writes them, and :meth:`csbp_jax.Experiment.run` for its runs; whatever takes a run's
folder also takes such a folder.
"""

import pathlib
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from csbp_jax.config import ConfigError, one_line
from csbp_jax.runs.run import WeightsOf
from csbp_jax.runtime import files

WEIGHTS_LABELS = {
    "last": "weights of the last epoch",
    "chosen": "weights of the chosen epoch",
    "ema": "moving average of the weights at the last epoch",
}
"""Labels in tables."""

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def published_weights(run: str, content: dict[str, Any], weights_of: WeightsOf) -> tuple[WeightsOf, int]:
    """Return which weights a published network has, and their epoch.

    Args:
      run: its folder or address, for messages.
      content: its ``config.json``.
      weights_of: the weights asked for; "last", the default everywhere, takes those that are there.

    Raises:
      ConfigError: it has others, or its ``config.json`` does not say which.
    """
    stored: Any = content.get("weights_of")
    epoch = content.get("epoch")
    if stored not in get_args(WeightsOf) or not isinstance(epoch, int):
        raise ConfigError(f"{run}: {CONFIG} does not say which weights {WEIGHTS} has (weights_of, epoch)")
    if weights_of not in ("last", stored):
        raise ConfigError(f"{run}: has only the {WEIGHTS_LABELS[stored]}, not those of {weights_of!r}")
    return stored, epoch


def write_variables(variables: dict[str, Any], metadata: dict[str, str], file: pathlib.Path) -> None:
    """Write the variables of a network as safetensors, with the metadata in the header of the file."""
    from safetensors.numpy import save

    # ascontiguousarray would give an array without axes one.
    arrays = {_name(path): np.asarray(leaf, order="C") for path, leaf in tree_leaves_with_path(variables)}
    # Not save_file, whose files only their owner may read.
    file.write_bytes(save(arrays, metadata))


def read_variables(folder: pathlib.Path, shapes: dict[str, Any]) -> dict[str, Any]:
    """Read the weights of a published folder, after checking that they are those of its network.

    Args:
      shapes: the network's variables, ``{"params": ..., "batch_stats": ...}``, as ``jax.eval_shape`` gives them.

    Raises:
      ConfigError: the file is damaged, or an array is missing, left over, of another shape or not floating-point.
    """
    from safetensors import SafetensorError, safe_open

    file = folder / WEIGHTS
    expected = {_name(path): leaf for path, leaf in tree_leaves_with_path(shapes)}
    files.check(file)
    try:
        with safe_open(file, "numpy") as opened:
            names = set(opened.keys())
            # Checked before any array is read, so that the network bounds the memory.
            if differing := sorted(names ^ set(expected)):
                verb = "has" if differing[0] in names else "lacks"
                raise ConfigError(f"{file}: {verb} {differing[0]}, and is not of the network in {CONFIG}")
            for name, leaf in expected.items():
                described = opened.get_slice(name)
                shape = tuple(described.get_shape())
                if shape != leaf.shape or described.get_dtype() not in ("F32", "F64"):
                    raise ConfigError(
                        f"{file}: {name} is {described.get_dtype()} {shape}, but the network in {CONFIG} needs "
                        f"F32 {leaf.shape}"
                    )
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which restore refuses
                return tree_map_with_path(
                    lambda path, leaf: jnp.asarray(opened.get_tensor(_name(path)), leaf.dtype), shapes
                )
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file}: cannot be read ({one_line(error)}); fetch it again") from None


def _name(path: tuple[Any, ...]) -> str:
    return keystr(path, simple=True, separator="/")
