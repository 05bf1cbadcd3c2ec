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

from csbp_jax import recurrence, surrogate

ON = os.environ.get("CSBP_GPU_KERNEL") == "1"
# The tests' way to run on CPU what is written for a GPU: JAX's InterpretGPUParams.
INTERPRET = None
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
_THREADS = 128  # a warp group


def fits(x, decay, threshold, spike):
    """Whether the kernels can do it: float32 membranes, at least 128 neurons an example, one decay and one threshold.

    And one device: the partitioner could not split a kernel.
    """
    neurons = x.size // (x.shape[0] * x.shape[1])
    numbers = (decay, threshold, *spike.params)
    return (
        decay.dtype == jnp.float32
        and neurons >= _THREADS
        and x.shape[0] < 2**16
        and x.size < 2**31
        and spike.formula in _FORMULAS
        and all(jnp.size(number) == 1 for number in numbers)
        and (jax.device_count() == 1 or INTERPRET is not None)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def lif(x, membrane, decay, threshold, spike, reset, detach_reset, residual):
    """As :func:`csbp_jax.recurrence.lif`, of arguments that fit. Without a gradient it is that one."""
    return recurrence.forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual)[0][:2]


def _lif_forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual):
    spikes, end, kept = _forward(x, membrane, decay, threshold, reset, residual)
    return (spikes, end), (kept, membrane, decay, threshold, spike)


def _lif_backward(reset, detach_reset, residual, residuals, bars):
    return *_backward(residuals, bars, reset, detach_reset), jax.tree.map(jnp.zeros_like, residuals[-1])


lif.defvjp(_lif_forward, _lif_backward)


# No kernel has a derivative. The one that a tangent map of a training step asks for is the twin's.
@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _forward(x, membrane, decay, threshold, reset, residual):
    fast, plain = (functools.partial(f, reset, residual) for f in (_forward_kernel, _forward_plain))
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
    if INTERPRET is not None:
        return fast(*operands)
    return lax.platform_dependent(*operands, cuda=fast, default=plain)


def _forward_plain(reset, residual, x, membrane, decay, threshold):
    return recurrence.forward(x, membrane, decay, threshold, None, reset, None, residual)[0]


def _backward_plain(reset, detach_reset, residuals, bars):
    return recurrence.backward(reset, detach_reset, residuals, *bars)[:4]


def _forward_kernel(reset, residual, x, membrane, decay, threshold):
    half, given = residual == "half", [] if membrane is None else [_rows(membrane, 1)]

    def body(at, put, x, decay, threshold, *refs):
        *membrane, spikes, kept, end = refs
        decay, threshold = decay[0], threshold[0]

        def write(t, u):
            put(spikes, jnp.where(u > threshold, 1.0, 0.0), t)
            put(kept, u - threshold if half else u, t)
            return u

        def step(t, u):
            u = decay * recurrence.after_reset(u, u > threshold, threshold, reset) + at(x, t).astype(jnp.float32)
            return write(t, u)

        first = at(x, 0).astype(jnp.float32)
        u = write(0, first + decay * at(*membrane) if membrane else first)
        u = lax.fori_loop(1, x.shape[1], step, u)
        put(end, recurrence.after_reset(u, u > threshold, threshold, reset))

    rows = _rows(x, 2)
    outputs = (
        (rows.shape, x.dtype),
        (rows.shape, jnp.bfloat16 if half else jnp.float32),
        (rows[:, 0].shape, jnp.float32),
    )
    spikes, kept, end = _launch(body, outputs, rows, *_numbers(decay, threshold), *given)
    return spikes.reshape(x.shape), end.reshape(x[:, 0].shape), kept.reshape(x.shape)


def _backward_kernel(reset, detach_reset, residuals, bars):
    kept, membrane, decay, threshold, spike = residuals
    spikes_bar, membrane_bar = bars

    def body(at, put, kept, spikes_bar, membrane_bar, decay, threshold, *refs):
        params, (x_bar, *first) = refs[: len(spike.params)], refs[len(spike.params) :]
        decay, threshold = decay[0], threshold[0]
        inside, last = surrogate.Surrogate(spike.formula, tuple(one[0] for one in params)), kept.shape[1] - 1

        def write(t, v_bar):
            u, distance = recurrence.above(at(kept, t), threshold, jnp.float32)
            s_bar = at(spikes_bar, t).astype(jnp.float32)
            row, _ = recurrence.back_one(u, distance, s_bar, v_bar, threshold, inside, reset, detach_reset)
            put(x_bar, row, t)
            return row

        row = write(last, at(membrane_bar))
        row = lax.fori_loop(1, last + 1, lambda i, row: write(last - i, decay * row), row)
        for ref in first:
            put(ref, row)

    rows, row = _rows(kept, 2), _rows(membrane_bar, 1)
    outputs = [(rows.shape, spikes_bar.dtype), *([] if membrane is None else [(row.shape, jnp.float32)])]
    numbers = _numbers(decay, threshold, *spike.params)
    x_bar, *first = _launch(body, outputs, rows, _rows(spikes_bar, 2), row, *numbers)
    x_bar = x_bar.reshape(kept.shape)
    given_bar = decay * first[0].reshape(membrane.shape) if first else None
    return x_bar, given_bar, *_sums(reset, detach_reset, residuals, bars, x_bar)


def _sums(reset, detach_reset, residuals, bars, x_bar):
    """The cotangents of decay and threshold: of sequences that are there, so nothing where nobody asks for them."""
    kept, membrane, decay, threshold, spike = residuals
    spikes_bar, membrane_bar = bars
    u, distance = recurrence.above(kept, threshold.reshape(()), jnp.float32)
    row, over = x_bar.astype(jnp.float32), threshold.reshape(())
    v_bar = jnp.concatenate([decay.reshape(()) * row[:, 1:], membrane_bar[:, None]], axis=1)
    s_bar = spikes_bar.astype(jnp.float32)
    _, threshold_bar = recurrence.back_one(u, distance, s_bar, v_bar, over, spike, reset, detach_reset)
    before = recurrence.after_reset(u, distance > 0, over, reset)[:, :-1]
    decay_bar = (row[:, 1:] * before).sum()
    if membrane is not None:
        decay_bar = decay_bar + (row[:, 0] * membrane).sum()
    return decay_bar.reshape(decay.shape), threshold_bar.sum().reshape(threshold.shape)


def _launch(body, outputs, *operands):
    """Runs ``body(at, put, *refs)`` for each example and block of neurons; the first operand is ``[B, T, N]``.

    ``at(ref, t)`` and ``put(ref, value, t)`` are the block's row at a time step; without t, of ``[B, N]``.
    """
    from jax.experimental.pallas import Slice
    from jax.experimental.pallas import mosaic_gpu as gpu

    batch, _, neurons = operands[0].shape
    # Neurons a thread, next to each other; rows begin at multiples of it, as loads of more than one number need.
    vector = next(n for n in (4, 2, 1) if neurons % n == 0 and neurons >= n * _THREADS)
    block = vector * _THREADS
    layout = gpu.Layout.WG_STRIDED((block,), vec_size=vector)

    def kernel(*refs):
        # The last block begins early enough to be whole: what it has in common with the one before, both write alike.
        start = jnp.minimum(lax.axis_index("block") * block, neurons - block)
        here = lax.axis_index("example"), Slice(start, block)

        def at(ref, *t):
            row = ref[here[0], *t, here[1]]
            return row if INTERPRET is not None else gpu.layout_cast(row, layout)

        def put(ref, row, *t):
            ref[here[0], *t, here[1]] = row.astype(ref.dtype)

        body(at, put, *refs)

    return gpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct(*output) for output in outputs],
        grid=(batch, -(-neurons // block)),
        grid_names=("example", "block"),
        interpret=INTERPRET,
    )(*operands)


def _rows(array, before):
    """``[..., N]``: all axes after the first ``before`` as one."""
    return array.reshape(*array.shape[:before], -1)


def _numbers(*values):
    return [jnp.asarray(value, jnp.float32).reshape(1) for value in values]
