"""Export of a run's variables as flat arrays: ``params/conv1/conv/kernel``, ``batch_stats/conv1/norm/mean``, ...

Kernels of convolutions are ``[height, width, in, out]``, those of dense layers ``[in, out]``, as in Flax.
"""

import pathlib
from typing import Any

import numpy as np
from flax import traverse_util
from numpy.typing import NDArray

from csbp_jax.runs import published
from csbp_jax.runs.restore import RestoredRun

_ABOUT = "about/"
"""Of the names of metadata in an npz file."""


def flat(variables: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return a run's variables on the host by their path with slashes; inverse of :func:`nested`."""
    return {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}


def nested(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the variables that ``apply`` takes, from flat arrays; those of an npz file without its metadata.

    A network without norms has no ``batch_stats``.
    """
    leaves = {name: leaf for name, leaf in arrays.items() if not name.startswith(_ABOUT)}
    return {"params": {}, "batch_stats": {}, **traverse_util.unflatten_dict(leaves, sep="/")}


def safetensors(run: RestoredRun, metadata: dict[str, str], file: pathlib.Path) -> None:
    """Write the arrays as safetensors, with the metadata in its header."""
    published.write_variables(run.variables, metadata, file)


def npz(run: RestoredRun, metadata: dict[str, str], file: pathlib.Path) -> None:
    """Write the arrays as NumPy's npz, uncompressed; the metadata as arrays of one string each, named ``about/...``."""
    texts: dict[str, Any] = {_ABOUT + key: np.array(text) for key, text in metadata.items()}
    with open(file, "wb") as out:  # savez appends .npz to a name
        np.savez(out, **(texts | flat(run.variables)))
