"""Convolution, layout and what is kept for the reverse pass, in forms that XLA compiles to lean programs on TPU.

Elsewhere, nothing is changed.

XLA on TPU lays a sequence out as ``[T, H, W, B, C]`` where it may: a time step is then contiguous, and a convolution
reads and writes what neuron and norm write and read. It cannot where time is folded into the batch, and copies every
activation between two layouts (counted in docs/results/bench/tpu.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AbstractMesh, PartitionSpec

_TIME_SPACE_BATCH_CHANNELS = Layout((1, 2, 3, 0, 4))
SAVED = jax.checkpoint_policies.save_only_these_names("saved")
"""What a layer keeps for its reverse pass beside its input; norm and neuron are recomputed from it.

Left alone, XLA keeps the output of the synapse, the current, the spikes twice and a membrane.
"""
_Convolution = Callable[[jax.Array, jax.Array], jax.Array]
_DIMENSIONS = lax.ConvDimensionNumbers((0, 4, 1, 2, 3), (4, 3, 0, 1, 2), (0, 4, 1, 2, 3))


def on_tpu() -> bool:
    """Return whether programs are for TPUs."""
    return jax.default_backend() == "tpu"


def save(h: jax.Array) -> jax.Array:
    """Mark the output of a synapse, without its bias, or a mean of a norm: ``SAVED`` keeps it. Return it unchanged."""
    marked: jax.Array = checkpoint_name(h, "saved")
    return marked


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    time_steps: int,
    **options: Any,
) -> jax.Array:
    """Convolve ``[B T, H, W, C]`` with ``[h, w, C, features]``, as ``[B, T, H, W, C]`` with a kernel of duration 1.

    The options are those that Flax's ``Conv`` passes to ``lax.conv_general_dilated``.
    """
    options = options | {name: (1, *options[name]) for name in ("lhs_dilation", "rhs_dilation")}
    options["dimension_numbers"] = _DIMENSIONS
    sequence = x.reshape(-1, time_steps, *x.shape[1:])

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (1, *strides), [(0, 0), *padding], **options)

    mesh = _mesh_of_slices(sequence)
    ordered = convolve if mesh is None else _kernel_gradient_first(convolve, mesh)
    # Saved before time is folded into the batch again, which would copy it into another layout.
    y = save(ordered(sequence, kernel[None]))
    return y.reshape(-1, *y.shape[2:])


def _kernel_gradient_first(convolve: _Convolution, mesh: AbstractMesh) -> _Convolution:
    """Convolve, with the gradient of the kernel before that of the input in the reverse pass.

    Left alone, XLA computes the kernels' gradients last where their sums pass between slices, and until then holds the
    cotangents of all layers. Each device waits for its own share of the gradient only, not for the sum.

    Reverse mode, or forward over reverse; the kernel's gradient is computed even where it is not wanted.
    """
    rows, replicated = PartitionSpec(mesh.axis_names), PartitionSpec()

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return convolve(x, kernel), (x, kernel)

    def backward(residuals: tuple[jax.Array, jax.Array], bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = residuals
        kernel = lax.pcast(kernel, mesh.axis_names, to="varying")
        (kernel_bar,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(bar)
        kernel, kernel_bar = lax.optimization_barrier((kernel, kernel_bar))
        (x_bar,) = jax.linear_transpose(lambda x: convolve(x, kernel), x)(bar)
        return x_bar, lax.psum(kernel_bar, mesh.axis_names)

    specs = (rows, replicated)
    ordered = jax.custom_vjp(convolve)
    ordered.defvjp(forward, jax.shard_map(backward, mesh=mesh, in_specs=(specs, rows), out_specs=specs))
    return ordered


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the means of x ``[B, ..., C]`` and of its square over all axes but the last, which are kept with length 1.

    Over several slices the two pass between them together; left alone, XLA reads x twice and sends one after the other.
    """

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        return x.mean(axes, keepdims=True), jnp.square(x).mean(axes, keepdims=True)

    mesh = _mesh_of_slices(x)
    if mesh is None:
        return both(x)

    def over_devices(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, square = lax.pmean(jnp.stack(both(x)), mesh.axis_names)
        return mean, square

    rows, replicated = PartitionSpec(mesh.axis_names), PartitionSpec()
    means: tuple[jax.Array, jax.Array] = jax.shard_map(
        over_devices, mesh=mesh, in_specs=rows, out_specs=(replicated, replicated)
    )(x)
    return means


def _mesh_of_slices(x: jax.Array) -> AbstractMesh | None:
    """Return the mesh of a step over several slices; None over one, or where its devices do not divide x's batch."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if "slice" in mesh.axis_names and x.shape[0] % mesh.size == 0 else None


def time_outermost(x: jax.Array) -> jax.Array:
    """Fix the layout of a sequence of images ``[B, T, H, W, C]`` on TPU; return anything else unchanged.

    Left alone, XLA may choose the stem's layout or a tap's for a whole stage, and then copies at each convolution. It
    is fixed only in a step that runs over a mesh (``jax.sharding.use_abstract_mesh``), for each device by itself: XLA
    would gather an array whose layout is fixed as a whole. In a sweep, where a device has members of its own and their
    batches are not split over all axes of the mesh, layouts are left to XLA.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not on_tpu() or x.ndim != 5 or mesh.empty or mesh.manual_axes or x.shape[0] % mesh.size:
        return x
    rows = PartitionSpec(mesh.axis_names)

    def fix(x: jax.Array) -> jax.Array:
        laid_out: jax.Array = with_layout_constraint(x, _TIME_SPACE_BATCH_CHANNELS)
        return laid_out

    return jax.shard_map(fix, mesh=mesh, in_specs=rows, out_specs=rows)(x)
