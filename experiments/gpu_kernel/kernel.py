"""The neuron of recurrence.py as two GPU kernels, one each way; off unless CSBP_GPU_KERNEL=1 is in the environment.

Each goes through time with the membrane in registers, so that inputs are read and outputs written once: the least that
memory allows, where XLA's programs move more (docs/results/bench/h100.md). In Pallas for Mosaic GPU, an interface that
JAX calls unstable: Hopper and later. Compiled for an H100 and run in JAX's interpreter, but never on a GPU, which is
why it has to be asked for. Where it does not apply, and for derivatives of the gradient, recurrence.py computes.
"""

import functools
import os

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax import surrogate
from csbp_jax.neurons import lif_scan
from experiments.gpu_kernel import passes

ON = os.environ.get("CSBP_GPU_KERNEL") == "1"
# Those that compile: Mosaic GPU has no square root, as erf's has. A user's own are not known to.
SPIKES = (
    surrogate.triangle,
    surrogate.rectangle,
    surrogate.sigmoid,
    surrogate.arctan,
    surrogate.fast_sigmoid,
    surrogate.piecewise_exp,
)
_FORMULAS = {make().formula for make in SPIKES}


def fits(x, decay, threshold, spike):
    """Whether the kernels can do it: float32 membranes, at least 128 neurons an example, one decay and one threshold.

    And one device: the partitioner could not split a kernel.
    """
    neurons = x.size // (x.shape[0] * x.shape[1])
    numbers = (decay, threshold, *spike.params)
    return (
        decay.dtype == jnp.float32
        and neurons >= passes.THREADS
        and x.shape[0] < 2**16
        and x.size < 2**31
        and spike.formula in _FORMULAS
        and all(jnp.size(number) == 1 for number in numbers)
        and (jax.device_count() == 1 or passes.INTERPRET is not None)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def lif(x, membrane, decay, threshold, spike, reset, detach_reset, residual):
    """As :func:`csbp_jax.neurons.lif_scan.lif`, of arguments that fit. Without a gradient it is that one."""
    return lif_scan.forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual)[0][:2]


def _lif_forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual):
    spikes, end, kept = _forward(x, membrane, decay, threshold, reset, residual)
    return (spikes, end), (kept, membrane, decay, threshold, spike)


def _lif_backward(reset, detach_reset, residual, residuals, bars):
    return *_backward(residuals, bars, reset, detach_reset), jax.tree.map(jnp.zeros_like, residuals[-1])


lif.defvjp(_lif_forward, _lif_backward)


# No kernel has a derivative. The one that a tangent map of a training step asks for is the twin's.
@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _forward(x, membrane, decay, threshold, reset, residual):
    fast, plain = (functools.partial(f, reset, residual) for f in (passes.forward, _forward_plain))
    return _on_gpu(fast, plain, x, membrane, decay, threshold)


@_forward.defjvp
def _(reset, residual, primals, tangents):
    return jax.jvp(functools.partial(_forward_plain, reset, residual), primals, tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _backward(residuals, bars, reset, detach_reset):
    fast, plain = (functools.partial(f, reset, detach_reset) for f in (_backward_kernel, _backward_plain))
    return _on_gpu(fast, plain, residuals, bars)


@_backward.defjvp
def _(reset, detach_reset, primals, tangents):
    return jax.jvp(functools.partial(_backward_plain, reset, detach_reset), primals, tangents)


def _on_gpu(fast, plain, *operands):
    if passes.INTERPRET is not None:
        return fast(*operands)
    return lax.platform_dependent(*operands, cuda=fast, default=plain)


def _forward_plain(reset, residual, x, membrane, decay, threshold):
    return lif_scan.forward(x, membrane, decay, threshold, None, reset, None, residual)[0]


def _backward_plain(reset, detach_reset, residuals, bars):
    return lif_scan.backward(reset, detach_reset, residuals, *bars)[:4]


def _backward_kernel(reset, detach_reset, residuals, bars):
    x_bar, membrane_bar = passes.backward(reset, detach_reset, residuals, bars)
    return x_bar, membrane_bar, *_sums(reset, detach_reset, residuals, bars, x_bar)


def _sums(reset, detach_reset, residuals, bars, x_bar):
    """The cotangents of decay and threshold: of sequences that are there, so nothing where nobody asks for them."""
    kept, membrane, decay, threshold, spike = residuals
    spikes_bar, membrane_bar = bars
    u, distance = lif_scan.above(kept, threshold.reshape(()), jnp.float32)
    row, over = x_bar.astype(jnp.float32), threshold.reshape(())
    v_bar = jnp.concatenate([decay.reshape(()) * row[:, 1:], membrane_bar[:, None]], axis=1)
    s_bar = spikes_bar.astype(jnp.float32)
    _, threshold_bar = lif_scan.back_one(u, distance, s_bar, v_bar, over, spike, reset, detach_reset)
    before = lif_scan.after_reset(u, distance > 0, over, reset)[:, :-1]
    decay_bar = (row[:, 1:] * before).sum()
    if membrane is not None:
        decay_bar = decay_bar + (row[:, 0] * membrane).sum()
    return decay_bar.reshape(decay.shape), threshold_bar.sum().reshape(threshold.shape)
