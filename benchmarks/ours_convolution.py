"""A convolution by XLA for benchmarks.worker: forward, its gradient in the input, its gradient in the kernel."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Program, drawn
from csbp_jax.runtime.hardware import compiler_options


def convolution(x: Sequence[int], kernel: Sequence[int], stride: int, pad: int, default: bool = False) -> Program:
    """A convolution of spikes, compiled with the options of a training step or, with ``default``, with XLA's."""
    options = None if default else compiler_options()
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    spikes, weights = jnp.asarray((drawn(x) > 1).astype(np.float32)), jnp.asarray(drawn(kernel, 1))
    bars = jnp.asarray(drawn(jax.eval_shape(convolve, spikes, weights).shape, 2))
    programs: dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]] = {
        "forward": (convolve, (spikes, weights)),
        "input": (lambda bars, weights: _transposed(lambda x: convolve(x, weights), spikes, bars), (bars, weights)),
        "kernel": (lambda spikes, bars: _transposed(lambda k: convolve(spikes, k), weights, bars), (spikes, bars)),
    }
    results: dict[str, jax.Array] = {}

    def stage(name, compiled, operands):
        results[name] = jax.block_until_ready(compiled(*operands))

    stages = [
        functools.partial(stage, name, jax.jit(function, compiler_options=options), operands)
        for name, (function, operands) in programs.items()
    ]
    return Program(stages, lambda: {name: np.asarray(value) for name, value in results.items()})


def _transposed(function: Callable[[jax.Array], jax.Array], like: jax.Array, bars: jax.Array) -> jax.Array:
    (gradient,) = jax.linear_transpose(function, like)(bars)
    return gradient


PROGRAMS = {"convolution": convolution}
