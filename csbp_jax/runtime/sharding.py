"""Layouts of a run over devices: batches are split along the data axis, the state by a rule.

    ============  ===================  ===================  ====================================
    layout        parameters           optimiser state      communication of a step
    ============  ===================  ===================  ====================================
    ``data``      replicated           replicated           all-reduce of gradients
    ``zero1``     replicated           split                and all-gather of updates
    ``fsdp``      split                split                and all-gather of parameters
    ============  ===================  ===================  ====================================

A split array is divided equally along its longest axis that is divisible by the number of devices; an array without
such an axis is replicated. Everything else (statistics, counters, keys, hyperparameters) is replicated.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any
"""A nested structure of arrays, as JAX defines it."""


def data_parallel(count: int | None = None) -> Mesh:
    """Return a mesh with one axis, ``data``, of the first ``count`` devices, by default of all."""
    return data_mesh(jax.devices()[:count])


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Return a mesh with one axis, ``data``, of these devices, slice by slice if they belong to several TPU slices.

    Neighbours in the mesh are then neighbours in a slice. For such an axis, XLA reduces gradients within each slice
    before it does so between them, over the slower network.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1:
        ordered = mesh_utils.create_hybrid_device_mesh((len(devices) // slices,), (slices,), devices)
        return Mesh(ordered, ("data",), axis_types=(AxisType.Auto,))
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, split along axis 0. Time is axis 1, so folding it in needs no communication."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array with a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def partition_rule(layout: str, path: Sequence[Any], leaf: Any, mesh: Mesh) -> PartitionSpec:
    """Return the partition of a leaf of a state, from the layout and the field of the state (in ``path``)."""
    split = {"data": (), "zero1": ("opt_state",), "fsdp": ("params", "opt_state")}[layout]
    count = mesh.shape["data"]
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or not axes or not any(getattr(key, "name", None) in split for key in path[:1]):
        return PartitionSpec()
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*[None] * longest, "data")


def shardings(layout: str, state: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of each leaf of a state; the leaves may be shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_rule(layout, path, leaf, mesh)), state
    )


def shard_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Move a batch from the host to the devices, split along the data axis; each process passes its own rows."""
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(batch_sharding(mesh), rows), batch)
