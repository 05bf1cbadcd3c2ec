"""Convolution of the members of a sweep on GPUs: cuDNN is called once for each member."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

each_member_alone: Any = jax.make_user_context(False)
"""Within ``with each_member_alone(True):``, what is traced for GPUs calls cuDNN once for each member.

Only functions that are mapped over members are traced so: :func:`convolution` has no forward-mode derivative.
"""


LEAST = 2**20
"""Numbers of a member's input and output, 4 MB in float32, from which on it has a call of its own.

With fewer, an H100 would take longer to start the calls than to move the numbers, at its published bandwidth.
"""


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], **options: Any
) -> jax.Array:
    """Compute :func:`csbp_jax.xla.convolution.convolution`; under ``vmap``, of one example of the map after the other.

    JAX maps a convolution over images and kernels into one with groups. Of the gradient of the kernels it makes a
    forward convolution in groups whose windows have the size of an image, which cuDNN was not written for, and it
    transposes all images for each of them. The rest of a network stays mapped.

    Small convolutions (``LEAST``) are left to JAX. Reverse mode, or forward over reverse.
    """

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    if x.size + jax.eval_shape(convolve, x, kernel).size < LEAST:
        return convolve(x, kernel)
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, kernel)]

    def gradient_of_images(kernel: jax.Array, bar: jax.Array) -> jax.Array:
        (gradient,) = jax.linear_transpose(lambda x: convolve(x, kernel), shapes[0])(bar)
        return gradient

    def gradient_of_kernel(x: jax.Array, bar: jax.Array) -> jax.Array:
        (gradient,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), shapes[1])(bar)
        return gradient

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return _one_by_one(convolve)(x, kernel), (x, kernel)

    def backward(residuals: tuple[jax.Array, jax.Array], bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = residuals
        return _one_by_one(gradient_of_images)(kernel, bar), _one_by_one(gradient_of_kernel)(x, bar)

    differentiable = jax.custom_vjp(_one_by_one(convolve))
    differentiable.defvjp(forward, backward)
    return differentiable(x, kernel)


def _one_by_one(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Return a function of two arrays that ``vmap`` calls once for each example, if it maps both arrays.

    If it maps one of them, JAX's rule makes one convolution without groups of all examples.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def rule(size: int, is_mapped: list[bool], *arrays: jax.Array) -> tuple[jax.Array, bool]:
        if not all(is_mapped):
            axes = [0 if with_examples else None for with_examples in is_mapped]
            return jax.vmap(function, in_axes=axes)(*arrays), True
        return jnp.stack([function(*(array[i] for array in arrays)) for i in range(size)]), True

    return mapped
