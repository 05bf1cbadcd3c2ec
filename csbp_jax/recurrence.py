"""The recurrence of neurons.py through time, and its reverse pass: ``custom_vjp``s of checked arguments.

``decay``, ``threshold`` and ``membrane`` have the membrane's dtype and the rank of ``x [B, T, ...]`` without time.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all.
# Up to here the recomputation is cheaper than the loop.
_UNROLL = 4


def _at(sequence, t):
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def _after_reset(u, fired, threshold, reset):
    if reset == "none":
        return u
    return jnp.where(fired, 0, u) if reset == "hard" else u - threshold * fired


def _over_time(step, row, sums, like, times, kept=lambda row: row):
    """Rows ``[B, T, ...]`` of ``row, sums = step(t, row, sums)``, from the given row at ``times[0]`` on, as ``kept``.

    ``times`` goes once through 0..T-1, up or down. The carry is the row itself, and rows are written in place,
    batch first: no transpose and no copy.
    """
    if len(times) <= _UNROLL:
        rows = {times[0]: row}
        for t in times[1:]:
            row, sums = step(t, row, sums)
            rows[t] = row
        return row, sums, jnp.stack([kept(rows[t]).astype(like.dtype) for t in sorted(rows)], axis=1)

    def body(i, loop):
        row, sums, buffer = loop
        t = times[1] + times.step * i
        row, sums = step(t, row, sums)
        return row, sums, lax.dynamic_update_index_in_dim(buffer, kept(row).astype(like.dtype), t, axis=1)

    buffer = lax.dynamic_update_index_in_dim(lax.full_like(like, 0), kept(row).astype(like.dtype), times[0], axis=1)
    return lax.fori_loop(0, len(times) - 1, body, (row, sums, buffer))


def _forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual="full"):
    """``((spikes, membrane after the last reset, residual), residuals)``; the residual is the only sequence kept.

    It is u, or u - threshold rounded to bfloat16, whose range of exponents is that of float32: the sign survives.
    """
    # The first step is peeled: a given membrane is already reset and must not be reset again.
    first = x[:, 0].astype(decay.dtype)
    if membrane is not None:
        first = first + decay * membrane

    def step(t, u, sums):
        return decay * _after_reset(u, u > threshold, threshold, reset) + _at(x, t), sums

    half = residual == "half"
    like = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16 if half else decay.dtype)
    keep = (lambda u: u - threshold) if half else (lambda u: u)
    last, _, kept = _over_time(step, first, (), like, range(x.shape[1]), keep)
    spikes = (kept > (0 if half else jnp.expand_dims(threshold, 1))).astype(x.dtype)
    end = _after_reset(last, last > threshold, threshold, reset)
    return (spikes, end, kept), (kept, membrane, decay, threshold, spike)


def _backward(reset, detach_reset, residuals, spikes_bar, membrane_bar, u_bar=None):
    """Reverse pass. A name with ``_bar`` is the cotangent of the name before it.

    s_bar[t] = spikes_bar[t] + (v_bar[t] dv/ds, unless detached)     dv/ds = -u | -threshold | 0
    u_bar[t] = s_bar[t] g(u[t] - threshold) + v_bar[t] dv/du         dv/du = 1 - s | 1 | 1
    v_bar[t-1] = decay u_bar[t]
    """
    kept, membrane, decay, threshold, spike = residuals

    def above(t):
        """u[t], and u[t] - threshold."""
        if kept.dtype == jnp.bfloat16:  # never the membrane's own dtype
            distance = _at(kept, t).astype(decay.dtype)
            return distance + threshold, distance
        u = _at(kept, t)
        return u, u - threshold

    def local(t, v_bar):
        u_t, distance = above(t)
        fired = distance > 0
        s_bar = _at(spikes_bar, t).astype(decay.dtype)
        if reset != "none" and not detach_reset:
            s_bar = s_bar - v_bar * (u_t if reset == "hard" else threshold)
        through_spike = s_bar * spike.derivative(distance)
        row = through_spike + (jnp.where(fired, 0, v_bar) if reset == "hard" else v_bar)
        if u_bar is not None:
            row = row + _at(u_bar, t)
        threshold_bar = -through_spike - (v_bar * fired if reset == "soft" else 0)
        return row, threshold_bar

    def step(t, row, sums):
        decay_bar, threshold_bar = sums
        u_t, distance = above(t)
        decay_bar = decay_bar + row * _after_reset(u_t, distance > 0, threshold, reset)
        row, threshold_bar_t = local(t, decay * row)
        return row, (decay_bar, threshold_bar + threshold_bar_t)

    times = range(kept.shape[1] - 1, -1, -1)
    row, threshold_bar = local(times[0], membrane_bar)
    sums = (jnp.zeros_like(row), threshold_bar)
    row, (decay_bar, threshold_bar), x_bar = _over_time(step, row, sums, spikes_bar, times)
    if membrane is not None:
        decay_bar = decay_bar + row * membrane
    return (
        x_bar,
        None if membrane is None else decay * row,
        _sum_to(decay_bar, decay.shape),
        _sum_to(threshold_bar, threshold.shape),
        jax.tree.map(jnp.zeros_like, spike),
    )


def _sum_to(cotangent, shape):
    """Sums over the axes along which an operand of ``shape`` (same rank) was broadcast."""
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return cotangent.sum(axes, keepdims=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def lif(x, membrane, decay, threshold, spike, reset, detach_reset, residual):
    """``(spikes, membrane after the last reset)``."""
    return _forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual)[0][:2]


def _lif_forward(*arguments):
    (spikes, membrane, _), residuals = _forward(*arguments)
    return (spikes, membrane), residuals


lif.defvjp(_lif_forward, lambda reset, detach, _, residuals, bars: _backward(reset, detach, residuals, *bars))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def lif_trace(x, membrane, decay, threshold, spike, reset, detach_reset):
    """The same, and u."""
    return _forward(x, membrane, decay, threshold, spike, reset, detach_reset)[0]


lif_trace.defvjp(_forward, lambda reset, detach, residuals, bars: _backward(reset, detach, residuals, *bars))
