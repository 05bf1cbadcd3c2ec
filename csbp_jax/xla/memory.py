"""The memory of a program: arrays written as they are, their layout, and those kept for the reverse pass."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import AbstractMesh, PartitionSpec

from csbp_jax.xla.platform import by_platform

SAVED = jax.checkpoint_policies.save_only_these_names("saved")
"""What a layer keeps for its reverse pass beside its input, on TPUs and with ``model.remat_neurons``.

Norm and neuron are recomputed from it. Left alone, XLA keeps the output of the synapse, the current, the spikes twice
and a membrane.
"""
_TIME_SPACE_BATCH_CHANNELS = Layout((1, 2, 3, 0, 4))


def save(h: jax.Array) -> jax.Array:
    """Mark the output of a synapse, without its bias, or a mean of a norm: ``SAVED`` keeps it. Return it unchanged."""
    return checkpoint_name(h, "saved")


def unfused(x: jax.Array) -> jax.Array:
    """Return x, written to memory as it is: XLA on CPU does not fuse across a call that is not inlined.

    Left alone, it computes x again within each operation that reads it.
    """
    with set_xla_metadata(inlineable="false"):
        return _identity(x)


@jax.jit
def _identity(x: jax.Array) -> jax.Array:
    return x


def unfused_vjp(
    convolve: Callable[..., jax.Array], backward: Any, static: tuple[int, ...] = ()
) -> jax.custom_vjp[jax.Array]:
    """Return ``convolve(x, kernel, ...)`` with a reverse pass, for which x, written to memory, and the kernel are kept.

    backward: as for ``jax.custom_vjp``. static: numbers of the arguments that are no arrays.
    """

    def forward(x: jax.Array, kernel: jax.Array, *geometry: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        x = unfused(x)
        return convolve(x, kernel, *geometry), (x, kernel)

    differentiable = jax.custom_vjp(convolve, nondiff_argnums=static)
    differentiable.defvjp(forward, backward)
    return differentiable


def time_outermost(x: jax.Array) -> jax.Array:
    """Fix the layout of a sequence of images ``[B, T, H, W, C]`` on TPU; return anything else unchanged.

    XLA on TPU lays a sequence out as ``[T, H, W, B, C]`` where it may: a time step is then contiguous, and a
    convolution reads and writes what neuron and norm write and read. Left alone, it may choose the stem's layout or a
    tap's for a whole stage, and then copies at each convolution (counted in docs/checks/bench/tpu.md). It is fixed
    only in a step that runs over a mesh (``jax.sharding.use_abstract_mesh``), for each device by itself: XLA would
    gather an array whose layout is fixed as a whole. In a sweep, where a device has members of its own and their
    batches are not split over all axes of the mesh, layouts are left to XLA.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if x.ndim != 5 or mesh.empty or mesh.manual_axes or x.shape[0] % mesh.size:
        return x
    rows = PartitionSpec(mesh.axis_names)

    fix = jax.shard_map(
        lambda x: with_layout_constraint(x, _TIME_SPACE_BATCH_CHANNELS), mesh=mesh, in_specs=rows, out_specs=rows
    )
    return by_platform(x, tpu=fix, default=lambda x: x)


def mesh_of_slices(x: jax.Array) -> AbstractMesh | None:
    """Return the mesh of a step over several slices; None over one, or where its devices do not divide x's batch."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if "slice" in mesh.axis_names and x.shape[0] % mesh.size == 0 else None
