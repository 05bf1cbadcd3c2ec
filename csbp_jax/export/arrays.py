"""A run's arrays, flat: ``params/conv1/conv/kernel``, ``batch_stats/conv1/norm/mean``, ...

Kernels of convolutions are ``[height, width, in, out]``, those of dense layers ``[in, out]``, as Flax has them.
"""

import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from csbp_jax.evaluation.restore import RestoredRun


def flat(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """A run's variables on the host, by their path with slashes; ``nested`` undoes it."""
    return {name: np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()}


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of flat arrays the variables that ``apply`` takes; a network without norms has no ``batch_stats``."""
    return {"params": {}, "batch_stats": {}} | traverse_util.unflatten_dict(arrays, sep="/")


def safetensors(run: RestoredRun, about: dict[str, str], file: pathlib.Path) -> None:
    """As safetensors, ``about`` in its metadata."""
    from safetensors.numpy import save

    # Not save_file, whose files only their owner may read.
    file.write_bytes(save({name: np.ascontiguousarray(leaf) for name, leaf in flat(run.variables).items()}, about))


def npz(run: RestoredRun, about: dict[str, str], file: pathlib.Path) -> None:
    """As NumPy's npz, uncompressed; ``about`` as arrays of one string each, named ``about/...``."""
    texts: dict[str, Any] = {f"about/{key}": np.array(text) for key, text in about.items()}
    with open(file, "wb") as out:  # savez appends .npz to a name
        np.savez(out, **(texts | flat(run.variables)))
