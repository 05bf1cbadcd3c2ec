"""Convolution of images, in the form of the device for which a program is lowered."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AbstractMesh, PartitionSpec

from csbp_jax.xla import cpu_convolution, gpu_convolution
from csbp_jax.xla.memory import mesh_of_slices, save
from csbp_jax.xla.platform import by_platform

_Convolution = Callable[[jax.Array, jax.Array], jax.Array]
_DIMENSIONS = lax.ConvDimensionNumbers((0, 4, 1, 2, 3), (4, 3, 0, 1, 2), (0, 4, 1, 2, 3))


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    time_steps: int = 1,
    **options: Any,
) -> jax.Array:
    """Compute ``lax.conv_general_dilated`` of ``[N, H, W, C]`` with padding ``kernel // 2``; for Flax's ``Conv``.

    Args:
      x: images.
      kernel: ``[h, w, C / groups, features]``.
      strides: of rows and columns.
      padding: of rows and columns.
      time_steps: how many of them are folded into N, within an example.
      options: those that Flax passes; there is no dilation.
    """
    forms: dict[str, _Convolution] = {}
    if options.get("feature_group_count", 1) == 1:
        forms["cpu"] = functools.partial(
            cpu_convolution.convolution, strides=strides, padding=padding, precision=options.get("precision")
        )
    if gpu_convolution.each_member_alone.value:
        forms["gpu"] = lambda x, kernel: save(gpu_convolution.convolution(x, kernel, strides, padding, **options))
    if time_steps > 1:
        forms["tpu"] = functools.partial(over_time, strides=strides, padding=padding, time_steps=time_steps, **options)
    return by_platform(
        x,
        kernel,
        default=lambda x, kernel: save(lax.conv_general_dilated(x, kernel, strides, padding, **options)),
        **forms,
    )


def over_time(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    time_steps: int,
    **options: Any,
) -> jax.Array:
    """Convolve ``[B T, H, W, C]`` as ``[B, T, H, W, C]`` with a kernel of duration 1, for TPUs.

    Where time is folded into the batch, XLA cannot lay it out first (memory.py), and copies every activation between
    two layouts.
    """
    options = options | {name: (1, *options[name]) for name in ("lhs_dilation", "rhs_dilation")}
    options["dimension_numbers"] = _DIMENSIONS
    sequence = x.reshape(-1, time_steps, *x.shape[1:])

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (1, *strides), [(0, 0), *padding], **options)

    mesh = mesh_of_slices(sequence)
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

    def backward(residuals: tuple[jax.Array, jax.Array], bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = residuals
        axes, jax_0_7 = mesh.axis_names, not hasattr(lax, "pcast")
        kernel = lax.pvary(kernel, axes) if jax_0_7 else lax.pcast(kernel, axes, to="varying")  # type: ignore[attr-defined]
        (kernel_bar,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(bar)
        kernel, kernel_bar = lax.optimization_barrier((kernel, kernel_bar))
        (x_bar,) = jax.linear_transpose(lambda x: convolve(x, kernel), x)(bar)
        return x_bar, lax.psum(kernel_bar, mesh.axis_names)

    specs = (rows, replicated)
    ordered = jax.custom_vjp(convolve)
    ordered.defvjp(
        lambda x, kernel: (convolve(x, kernel), (x, kernel)),
        jax.shard_map(backward, mesh=mesh, in_specs=(specs, rows), out_specs=specs),
    )
    return ordered
