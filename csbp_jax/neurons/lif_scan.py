"""The recurrence of neurons.py through time, and its reverse pass: ``custom_vjp``s of checked arguments.

``decay``, ``threshold`` and ``membrane`` have the membrane's dtype and the rank of ``x [B, T, ...]`` without time.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

# (time steps up to which there is no loop, time steps a pass of the loop beyond that), by back end.
# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all; up to 4
# steps that is cheaper than the loop. On a GPU a pass is some four kernels that read and write all they share, while 16
# unrolled steps are two (docs/results/bench/h100.md); with more, compilation takes minutes. What is best on TPU is not
# known.
_UNROLLED = {"gpu": (16, 16)}
_UNROLLED_ELSEWHERE = (4, 1)


def _at(sequence, t):
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def after_reset(u, fired, threshold, reset):
    if reset == "none":
        return u
    return jnp.where(fired, 0, u) if reset == "hard" else u - threshold * fired


def back_one(u, distance, s_bar, v_bar, threshold, spike, reset, detach_reset):
    """``(u_bar, threshold_bar)`` of one time step; ``distance`` is u - threshold, equations at :func:`backward`."""
    fired = distance > 0
    if reset != "none" and not detach_reset:
        s_bar = s_bar - v_bar * (u if reset == "hard" else threshold)
    through_spike = s_bar * spike.derivative(distance)
    u_bar = through_spike + (jnp.where(fired, 0, v_bar) if reset == "hard" else v_bar)
    return u_bar, -through_spike - (v_bar * fired if reset == "soft" else 0)


def above(kept, threshold, dtype):
    """u and u - threshold, of what was kept of u."""
    if kept.dtype == jnp.bfloat16:  # never the membrane's own dtype
        distance = kept.astype(dtype)
        return distance + threshold, distance
    return kept, kept - threshold


def _over_time(step, row, sums, like, times, kept=lambda row: row):
    """Rows ``[B, T, ...]`` of ``row, sums = step(t, row, sums)``, from the given row at ``times[0]`` on, as ``kept``.

    ``times`` goes once through 0..T-1, up or down. The carry is the row itself, and rows are written in place,
    batch first: no transpose and no copy.
    """
    unrolled, a_pass = _UNROLLED.get(jax.default_backend(), _UNROLLED_ELSEWHERE)
    peeled = len(times) if len(times) <= unrolled else 1 + (len(times) - 1) % a_pass

    def rows(row, sums, steps, found):
        """Goes through ``steps``; all that is kept by then, in the order of time."""
        for t in steps:
            row, sums = step(t, row, sums)
            found = [*found, kept(row)]
        return row, sums, jnp.stack(found[:: times.step], axis=1).astype(like.dtype)

    def body(i, loop):
        row, sums, buffer = loop
        steps = [times[peeled] + times.step * (a_pass * i + j) for j in range(a_pass)]
        row, sums, found = rows(row, sums, steps, [])
        return row, sums, lax.dynamic_update_slice_in_dim(buffer, found, steps[:: times.step][0], axis=1)

    row, sums, found = rows(row, sums, times[1:peeled], [kept(row)])
    if peeled == len(times):
        return row, sums, found
    buffer = lax.dynamic_update_slice_in_dim(lax.full_like(like, 0), found, min(times[0], times[peeled - 1]), axis=1)
    return lax.fori_loop(0, (len(times) - peeled) // a_pass, body, (row, sums, buffer))


def forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual="full"):
    """``((spikes, membrane after the last reset, residual), residuals)``; the residual is the only sequence kept.

    It is u, or u - threshold rounded to bfloat16, whose range of exponents is that of float32: the sign survives.
    """
    # The first step is peeled: a given membrane is already reset and must not be reset again.
    first = x[:, 0].astype(decay.dtype)
    if membrane is not None:
        first = first + decay * membrane

    def step(t, u, sums):
        return decay * after_reset(u, u > threshold, threshold, reset) + _at(x, t), sums

    half = residual == "half"
    like = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16 if half else decay.dtype)
    keep = (lambda u: u - threshold) if half else (lambda u: u)
    last, _, kept = _over_time(step, first, (), like, range(x.shape[1]), keep)
    spikes = (kept > (0 if half else jnp.expand_dims(threshold, 1))).astype(x.dtype)
    end = after_reset(last, last > threshold, threshold, reset)
    return (spikes, end, kept), (kept, membrane, decay, threshold, spike)


def backward(reset, detach_reset, residuals, spikes_bar, membrane_bar, u_bar=None):
    """Reverse pass. A name with ``_bar`` is the cotangent of the name before it.

    s_bar[t] = spikes_bar[t] + (v_bar[t] dv/ds, unless detached)     dv/ds = -u | -threshold | 0
    u_bar[t] = s_bar[t] g(u[t] - threshold) + v_bar[t] dv/du         dv/du = 1 - s | 1 | 1
    v_bar[t-1] = decay u_bar[t]
    """
    kept, membrane, decay, threshold, spike = residuals

    def local(t, v_bar):
        u, distance = above(_at(kept, t), threshold, decay.dtype)
        s_bar = _at(spikes_bar, t).astype(decay.dtype)
        row, threshold_bar = back_one(u, distance, s_bar, v_bar, threshold, spike, reset, detach_reset)
        return (row if u_bar is None else row + _at(u_bar, t)), threshold_bar

    def step(t, row, sums):
        decay_bar, threshold_bar = sums
        u, distance = above(_at(kept, t), threshold, decay.dtype)
        decay_bar = decay_bar + row * after_reset(u, distance > 0, threshold, reset)
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
    return forward(x, membrane, decay, threshold, spike, reset, detach_reset, residual)[0][:2]


def _lif_forward(*arguments):
    (spikes, membrane, _), residuals = forward(*arguments)
    return (spikes, membrane), residuals


lif.defvjp(_lif_forward, lambda reset, detach, _, residuals, bars: backward(reset, detach, residuals, *bars))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def lif_trace(x, membrane, decay, threshold, spike, reset, detach_reset):
    """The same, and u."""
    return forward(x, membrane, decay, threshold, spike, reset, detach_reset)[0]


lif_trace.defvjp(forward, lambda reset, detach, residuals, bars: backward(reset, detach, residuals, *bars))
