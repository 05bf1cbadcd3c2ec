"""How a run lies over its devices: batches split along a data axis, the state by a rule.

    ============  ========================  ===================  ====================================
    layout        parameters                optimiser state      what a step sends
    ============  ========================  ===================  ====================================
    ``data``      a copy on each device     a copy               all-reduce of gradients
    ``zero1``     a copy                    split                and all-gather of updates
    ``fsdp``      split                     split                and all-gather of parameters
    ============  ========================  ===================  ====================================

A split array lies in equal parts along its longest axis that the number of devices divides; one with no such axis is
copied. All else (statistics, counters, keys, hyperparameters) is copied.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_parallel() -> Mesh:
    """A mesh of all devices with one axis, ``data``."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 (the batch) is split. Time is axis 1, so folding it into the batch needs no collective."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def partition_rule(layout: str, path: Sequence[Any], leaf: Any, mesh: Mesh) -> PartitionSpec:
    """How a leaf of a state lies, by the layout and by the field (``path``) that it is in."""
    split = {"data": (), "zero1": ("opt_state",), "fsdp": ("params", "opt_state")}[layout]
    count = mesh.shape["data"]
    axes = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or not axes or not any(getattr(key, "name", None) in split for key in path[:1]):
        return PartitionSpec()
    longest = max(axes, key=lambda axis: leaf.shape[axis])
    return PartitionSpec(*[None] * longest, "data")


def shardings(layout: str, state: Any, mesh: Mesh) -> Any:
    """Of each leaf of a state; its shapes suffice."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_rule(layout, path, leaf, mesh)), state
    )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A batch on the host to a batch split over the data axis; each process gives its own rows, in order."""
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(batch_sharding(mesh), rows), batch)
