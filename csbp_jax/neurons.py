"""The leaky integrate-and-fire neuron through time, as one pure function.

    u[t] = decay v[t-1] + x[t]          membrane before reset;  v[-1] = the given membrane, else 0
    s[t] = H(u[t] - threshold)          strict: H(0) = 0
    v[t] = (1 - s[t]) u[t]    hard   |   u[t] - threshold s[t]    soft   |   u[t]    none

Time is axis 1: ``[B, T, ...]``. The whole sequence is one ``custom_vjp``: its only residual is the membrane before
reset, ``[B, T, ...]`` in float32 (besides an initial membrane, if one is given); spikes and resets are recomputed
from it in the reverse pass. Nothing is kept between calls: no hidden state, no ``reset()``.
"""

import dataclasses
import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax.surrogate import Surrogate, triangle

Reset = Literal["hard", "soft", "none"]

# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all.
# Up to here the recomputation is cheaper than the loop.
_UNROLL = 4


def lif(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Leaky integrate-and-fire over a sequence (equations at the head of this file).

    Args:
      x: input current, ``[B, T, ...]``, floating, in units of the threshold. Not float16 where a chaos term is taken
        from the membrane: the membrane is float32, but the term's gradient would underflow in x.
      decay: share of the membrane that stays from one step to the next (``tau`` of the CSBP code: 0.25 in its deep
        nets, 0.2 in its demonstration); 1 is the integrate-and-fire neuron. Broadcasts, from the right, against x
        without its time axis; may be traced and may need a gradient.
      threshold: fires strictly above it. Broadcasts and differentiates as ``decay`` does.
      spike: surrogate whose ``derivative(u - threshold)`` stands for ``ds/du`` in the reverse pass.
      reset: ``"hard"`` to 0, ``"soft"`` by subtraction of the threshold, or ``"none"``.
      detach_reset: no gradient flows through the spike in the reset (not so in the authors' code).
      membrane: ``v[-1]``, ``[B, ...]``; zeros by default. Pass the returned membrane back in to go on.

    Returns:
      ``(spikes, membrane)``: spikes ``[B, T, ...]`` in x's dtype, 0 or 1; membrane ``[B, ...]`` after the last
      reset, float32 (float64 for float64 x) whatever x's dtype is.

    Raises:
      ValueError: x has no time step, ``reset`` is unknown, or a shape does not broadcast.
      TypeError: x is not floating.

    >>> spikes, membrane = lif(jnp.array([[0.8, 0.8, 0.8]]), decay=0.5)
    >>> spikes.tolist(), round(float(membrane[0]), 2)
    ([[0.0, 1.0, 0.0]], 0.8)
    """
    return _lif(*_arguments(x, membrane, decay, threshold, reset), spike, reset, detach_reset)


def lif_trace(
    x: jax.Array,
    decay: ArrayLike = 0.5,
    threshold: ArrayLike = 1.0,
    *,
    spike: Surrogate = triangle(),
    reset: Reset = "hard",
    detach_reset: bool = False,
    membrane: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As :func:`lif`, and also returns ``u``, the membrane before reset at every step, ``[B, T, ...]``.

    ``u`` is what the reverse pass keeps anyway; asking for it costs its cotangent.
    """
    return _lif_trace(*_arguments(x, membrane, decay, threshold, reset), spike, reset, detach_reset)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["decay", "threshold", "spike"],
    meta_fields=["reset", "detach_reset"],
)
@dataclasses.dataclass(frozen=True)
class LIF:
    """The arguments of :func:`lif` as a pytree, called as ``neuron(x, membrane=None)`` by the layers.

    Its leaves (decay, threshold, the surrogate's width) may be traced, so a sweep can vary them.
    """

    decay: ArrayLike = 0.5
    threshold: ArrayLike = 1.0
    spike: Surrogate = triangle()
    reset: Reset = "hard"
    detach_reset: bool = False

    def __call__(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return lif(x, **vars(self), membrane=membrane)

    def trace(self, x: jax.Array, membrane: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        return lif_trace(x, **vars(self), membrane=membrane)


def _arguments(x, membrane, decay, threshold, reset):
    """Checks, and brings all arrays to the membrane's dtype and to the rank of x without its time axis."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"lif: x is {x.dtype}, but must be floating; cast it, e.g. x.astype(jnp.float32)")
    if x.ndim < 2 or x.shape[1] == 0:
        raise ValueError(f"lif: x has shape {x.shape}, but must be [B, T, ...] with T >= 1 (time is axis 1)")
    if reset not in get_args(Reset):
        raise ValueError(f"lif: reset is {reset!r}, but must be one of {', '.join(get_args(Reset))}")
    shape, dtype = (x.shape[0], *x.shape[2:]), jnp.promote_types(x.dtype, jnp.float32)

    def expand(name, value):
        value = jnp.asarray(value, dtype)
        sizes = zip(reversed(value.shape), reversed(shape), strict=False)
        if value.ndim > len(shape) or any(n not in (1, size) for n, size in sizes):
            raise ValueError(f"lif: {name} of shape {value.shape} does not broadcast to {shape}, x without time")
        return lax.expand_dims(value, range(len(shape) - value.ndim))

    if membrane is not None:
        membrane = jnp.broadcast_to(expand("membrane", membrane), shape)
    return x, membrane, expand("decay", decay), expand("threshold", threshold)


def _at(sequence, t):
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


def _after_reset(u, threshold, reset):
    if reset == "none":
        return u
    fired = u > threshold
    return jnp.where(fired, 0, u) if reset == "hard" else u - threshold * fired


def _over_time(step, row, sums, like, times):
    """Rows ``[B, T, ...]`` of ``row, sums = step(t, row, sums)``, from the given row at ``times[0]`` on.

    ``times`` goes once through 0..T-1, up or down. The carry is the row itself, and rows are written in place,
    batch first: no transpose and no copy.
    """
    if len(times) <= _UNROLL:
        rows = {times[0]: row}
        for t in times[1:]:
            row, sums = step(t, row, sums)
            rows[t] = row
        return row, sums, jnp.stack([rows[t].astype(like.dtype) for t in sorted(rows)], axis=1)

    def body(i, loop):
        row, sums, buffer = loop
        t = times[1] + times.step * i
        row, sums = step(t, row, sums)
        return row, sums, lax.dynamic_update_index_in_dim(buffer, row.astype(like.dtype), t, axis=1)

    buffer = lax.dynamic_update_index_in_dim(lax.full_like(like, 0), row.astype(like.dtype), times[0], axis=1)
    return lax.fori_loop(0, len(times) - 1, body, (row, sums, buffer))


def _forward(x, membrane, decay, threshold, spike, reset, detach_reset):
    """``((spikes, membrane after the last reset, u), residuals)``; the residual u is the only sequence kept."""
    # The first step is peeled: a given membrane is already reset and must not be reset again.
    first = x[:, 0].astype(decay.dtype)
    if membrane is not None:
        first = first + decay * membrane

    def step(t, u, sums):
        return decay * _after_reset(u, threshold, reset) + _at(x, t), sums

    like = jax.ShapeDtypeStruct(x.shape, decay.dtype)
    last, _, u = _over_time(step, first, (), like, range(x.shape[1]))
    spikes = (u > jnp.expand_dims(threshold, 1)).astype(x.dtype)
    return (spikes, _after_reset(last, threshold, reset), u), (u, membrane, decay, threshold, spike)


def _backward(reset, detach_reset, residuals, spikes_bar, membrane_bar, u_bar=None):
    """Reverse pass. A name with ``_bar`` is the cotangent of the name before it.

    s_bar[t] = spikes_bar[t] + (v_bar[t] dv/ds, unless detached)     dv/ds = -u | -threshold | 0
    u_bar[t] = s_bar[t] g(u[t] - threshold) + v_bar[t] dv/du         dv/du = 1 - s | 1 | 1
    v_bar[t-1] = decay u_bar[t]
    """
    u, membrane, decay, threshold, spike = residuals

    def local(t, v_bar):
        u_t = _at(u, t)
        fired = u_t > threshold
        s_bar = _at(spikes_bar, t).astype(u.dtype)
        if reset != "none" and not detach_reset:
            s_bar = s_bar - v_bar * (u_t if reset == "hard" else threshold)
        through_spike = s_bar * spike.derivative(u_t - threshold)
        row = through_spike + (jnp.where(fired, 0, v_bar) if reset == "hard" else v_bar)
        if u_bar is not None:
            row = row + _at(u_bar, t)
        threshold_bar = -through_spike - (v_bar * fired if reset == "soft" else 0)
        return row, threshold_bar

    def step(t, row, sums):
        decay_bar, threshold_bar = sums
        decay_bar = decay_bar + row * _after_reset(_at(u, t), threshold, reset)
        row, threshold_bar_t = local(t, decay * row)
        return row, (decay_bar, threshold_bar + threshold_bar_t)

    times = range(u.shape[1] - 1, -1, -1)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _lif(x, membrane, decay, threshold, spike, reset, detach_reset):
    return _forward(x, membrane, decay, threshold, spike, reset, detach_reset)[0][:2]


def _lif_forward(*arguments):
    (spikes, membrane, _), residuals = _forward(*arguments)
    return (spikes, membrane), residuals


_lif.defvjp(_lif_forward, lambda reset, detach, residuals, bars: _backward(reset, detach, residuals, *bars))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _lif_trace(x, membrane, decay, threshold, spike, reset, detach_reset):
    return _forward(x, membrane, decay, threshold, spike, reset, detach_reset)[0]


_lif_trace.defvjp(_forward, lambda reset, detach, residuals, bars: _backward(reset, detach, residuals, *bars))
