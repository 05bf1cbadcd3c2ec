"""Layouts of a run over devices: batches are split over all devices, the state by a rule.

    ============  ===================  ===================  ====================================
    layout        parameters           optimiser state      communication of a step
    ============  ===================  ===================  ====================================
    ``data``      replicated           replicated           all-reduce of gradients
    ``zero1``     replicated           split                and all-gather of updates
    ``fsdp``      split                split                and all-gather of parameters
    ============  ===================  ===================  ====================================

A split array is divided equally along its longest axis that is divisible by the number of devices; an array without
such an axis is replicated. Averages of the parameters are laid out as these. Everything else (statistics, counters,
keys, hyperparameters) is replicated.

Devices of several TPU slices form a mesh with a further axis, ``slice``. Each slice then holds the whole state, divided
over its own devices: gathers stay within a slice, and only sums (gradients, statistics of a norm) pass between slices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from csbp_jax.config import ConfigError

PyTree = Any
"""A nested structure of arrays, as JAX defines it."""


def data_parallel(count: int | None = None) -> Mesh:
    """Return a mesh with one axis, ``data``, of the first ``count`` devices, by default of all."""
    return data_mesh(jax.devices()[:count])


def data_mesh(devices: Sequence[jax.Device], slices: Sequence[int] | None = None) -> Mesh:
    """Return a mesh with the axis ``data``, of these devices; of several slices: ``[slice, data]``, a row per slice.

    Args:
      devices: in any order.
      slices: number of the slice of each device, by default :func:`slices_of`.

    Raises:
      ConfigError: the slices have different numbers of devices.
    """
    if slices is None:
        slices = slices_of(devices)
    members = [[d for d, number in zip(devices, slices, strict=True) if number == s] for s in sorted(set(slices))]
    if len({len(row) for row in members}) > 1:
        counts = ", ".join(str(len(row)) for row in members)
        raise ConfigError(f"the TPU slices have {counts} devices; start the run on slices of equal size")
    # Neighbours in a row are neighbours in the slice's network.
    rows = [jax.make_mesh((len(row),), ("data",), devices=row, axis_types=(AxisType.Auto,)) for row in members]
    if len(rows) == 1:
        return rows[0]
    return Mesh(np.stack([row.devices for row in rows]), ("slice", "data"), axis_types=(AxisType.Auto,) * 2)


def slices_of(devices: Sequence[jax.Device]) -> list[int]:
    """Return the number of each TPU's slice, and 0 for other devices: the ``slice_index`` of a GPU is its host's."""
    return [getattr(device, "slice_index", 0) if device.platform == "tpu" else 0 for device in devices]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, split along axis 0. Time is axis 1, so folding it in needs no communication."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def rows_of(devices: Sequence[jax.Device], mesh: Mesh, size: int) -> NDArray[np.intp]:
    """Return which rows of a batch some devices of a mesh hold, in ascending order.

    In this order JAX takes them from a process for its devices, which need not be neighbours in the mesh: it follows
    the network of a TPU slice, not the numbers of processes.

    Raises:
      ValueError: the mesh does not divide the batch.
    """
    held = batch_sharding(mesh).devices_indices_map((size,))
    return np.sort(np.concatenate([np.arange(size)[held[device]] for device in devices]))


def rounded_up(batch_size: int, devices: int) -> int:
    """Return the smallest batch size, from the one wanted on, that the number of devices divides."""
    return -(-batch_size // devices) * devices


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array with a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def partition_rule(layout: str, path: Sequence[Any], leaf: Any, mesh: Mesh) -> PartitionSpec:
    """Return the partition of a leaf of a state, from the layout and the fields in ``path``."""
    split = {"data": (), "zero1": ("opt_state",), "fsdp": ("params", "opt_state")}[layout]
    names = [getattr(key, "name", getattr(key, "key", None)) for key in path[:2]]
    field = names[1] if names[0] == "ema" else names[0]  # averages are laid out as what they average
    count = mesh.shape["data"]
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or not axes or field not in split:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*[None] * longest, "data")


def shardings(layout: str, state: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of each leaf of a state; the leaves may be shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_rule(layout, path, leaf, mesh)), state
    )


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Move a batch from the host to the devices, split over all of them; each process passes its :func:`rows_of`."""
    over_devices = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, over_devices)  # all arrays at once: two thirds of the work of the host
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(over_devices, rows), batch)
