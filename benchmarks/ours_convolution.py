"""A convolution by XLA for benchmarks.worker: forward, its gradient in the input, its gradient in the kernel."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import Program, drawn
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.xla import convolution as ours


def convolution(x: Sequence[int], kernel: Sequence[int], stride: int, pad: int, default: bool = False) -> Program:
    """A convolution of spikes in the form, and compiled with the options, of a training step; or XLA's own."""
    options = None if default else compiler_options()

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        form = jax.lax.conv_general_dilated if default else ours.convolution
        pads = [(pad, pad), (pad, pad)]
        return form(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    spikes, weights = jnp.asarray((drawn(x) > 1).astype(np.float32)), jnp.asarray(drawn(kernel, 1))
    bars = jnp.asarray(drawn(jax.eval_shape(convolve, spikes, weights).shape, 2))
    programs: dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]] = {
        "forward": (convolve, (spikes, weights)),
        "input": (lambda bars, weights: jax.vjp(lambda x: convolve(x, weights), spikes)[1](bars)[0], (bars, weights)),
        "kernel": (lambda spikes, bars: jax.vjp(lambda k: convolve(spikes, k), weights)[1](bars)[0], (spikes, bars)),
    }
    results: dict[str, jax.Array] = {}

    def stage(name, compiled, operands):
        results[name] = jax.block_until_ready(compiled(*operands))

    stages = [
        functools.partial(stage, name, jax.jit(function, compiler_options=options), operands)
        for name, (function, operands) in programs.items()
    ]
    return Program(stages, lambda: {name: np.asarray(value) for name, value in results.items()})


PROGRAMS = {"convolution": convolution}
