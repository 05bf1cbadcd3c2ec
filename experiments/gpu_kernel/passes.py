"""The forward and the backward kernel of kernel.py: one pass through time each, in Pallas for Mosaic GPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from csbp_jax import surrogate
from csbp_jax.neurons import lif_scan

# Set by tests to JAX's InterpretGPUParams, which run the kernels on CPU.
INTERPRET: Any = None
THREADS = 128  # threads of a warp group, which computes a block of neurons


def forward(rule, x, membrane, decay, threshold):
    """``(spikes, membrane after the last reset, stored u)``: reads x and writes all three, once."""
    half, initial = rule.residual == "half", [] if membrane is None else [_rows(membrane, 1)]

    def body(at, put, x, decay, threshold, *refs):
        *membrane, spikes, stored, end = refs
        decay, threshold = decay[0], threshold[0]

        def write(t, u):
            put(spikes, jnp.where(u > threshold, 1.0, 0.0), t)
            put(stored, u - threshold if half else u, t)
            return u

        def step(t, u):
            u = decay * lif_scan.after_reset(u, u > threshold, threshold, rule.reset) + at(x, t).astype(jnp.float32)
            return write(t, u)

        first = at(x, 0).astype(jnp.float32)
        u = write(0, first + decay * at(*membrane) if membrane else first)
        u = lax.fori_loop(1, x.shape[1], step, u)
        put(end, lif_scan.after_reset(u, u > threshold, threshold, rule.reset))

    rows = _rows(x, 2)
    outputs = (
        (rows.shape, x.dtype),
        (rows.shape, jnp.bfloat16 if half else jnp.float32),
        (rows[:, 0].shape, jnp.float32),
    )
    spikes, stored, end = _launch(body, outputs, rows, *_numbers(decay, threshold), *initial)
    return spikes.reshape(x.shape), end.reshape(x[:, 0].shape), stored.reshape(x.shape)


def backward(rule, residuals, bars):
    """``(x_bar, membrane_bar)``: reads the stored u and the cotangent of the spikes and writes that of x, once."""
    stored, membrane, decay, threshold, spike = residuals
    spikes_bar, membrane_bar = bars

    def body(at, put, stored, spikes_bar, membrane_bar, decay, threshold, *refs):
        params, (x_bar, *first) = refs[: len(spike.params)], refs[len(spike.params) :]
        decay, threshold = decay[0], threshold[0]
        inside, last = surrogate.Surrogate(spike.formula, tuple(param[0] for param in params)), stored.shape[1] - 1

        def write(t, v_bar):
            potential = lif_scan.potential_of(at(stored, t), threshold, rule)
            s_bar = at(spikes_bar, t).astype(jnp.float32)
            row, _ = lif_scan.back_one(potential, s_bar, v_bar, threshold, inside, rule)
            put(x_bar, row, t)
            return row

        row = write(last, at(membrane_bar))
        row = lax.fori_loop(1, last + 1, lambda i, row: write(last - i, decay * row), row)
        for ref in first:
            put(ref, row)

    rows, row = _rows(stored, 2), _rows(membrane_bar, 1)
    outputs = [(rows.shape, spikes_bar.dtype), *([] if membrane is None else [(row.shape, jnp.float32)])]
    numbers = _numbers(decay, threshold, *spike.params)
    x_bar, *first = _launch(body, outputs, rows, _rows(spikes_bar, 2), row, *numbers)
    x_bar = x_bar.reshape(stored.shape)
    initial_bar = decay * first[0].reshape(membrane.shape) if first else None
    return x_bar, initial_bar


def _launch(body, outputs, *operands):
    """Run ``body(at, put, *refs)`` for each example and block of neurons; the first operand is ``[B, T, N]``.

    ``at(ref, t)`` and ``put(ref, value, t)`` are the block's row at a time step; without t, of ``[B, N]``.
    """
    from jax.experimental.pallas import Slice
    from jax.experimental.pallas import mosaic_gpu as gpu

    batch, _, neurons = operands[0].shape
    # Neighbouring neurons per thread; rows begin at multiples of it, as vector loads need.
    vector = next(n for n in (4, 2, 1) if neurons % n == 0 and neurons >= n * THREADS)
    block = vector * THREADS
    layout = gpu.Layout.WG_STRIDED((block,), vec_size=vector)

    def kernel(*refs):
        # The last block begins early enough to be full; where it overlaps the one before, both write the same values.
        start = jnp.minimum(lax.axis_index("block") * block, neurons - block)
        example, columns = lax.axis_index("example"), Slice(start, block)

        def at(ref, *t):
            row = ref[example, *t, columns]
            return row if INTERPRET is not None else gpu.layout_cast(row, layout)

        def put(ref, row, *t):
            ref[example, *t, columns] = row.astype(ref.dtype)

        body(at, put, *refs)

    return gpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct(*output) for output in outputs],
        grid=(batch, -(-neurons // block)),
        grid_names=("example", "block"),
        interpret=INTERPRET,
    )(*operands)


def _rows(array, before):
    """Flatten all axes after the first ``before``."""
    return array.reshape(*array.shape[:before], -1)


def _numbers(*values):
    return [jnp.asarray(value, jnp.float32).reshape(1) for value in values]
