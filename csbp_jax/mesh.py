"""How a run lies over its devices: batches split along a data axis, the state on every device."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_parallel() -> Mesh:
    """A mesh of all devices with one axis, ``data``."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def over_data(mesh: Mesh) -> NamedSharding:
    """Axis 0 (the batch) is split. Time is axis 1, so folding it into the batch needs no collective."""
    return NamedSharding(mesh, PartitionSpec("data"))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def place(batch: Any, mesh: Mesh) -> Any:
    """A batch on the host to a batch split over the data axis; each process gives its own rows, in order."""
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(over_data(mesh), rows), batch)
