"""Forward and reverse pass of the LIF neuron through time, as ``custom_vjp`` functions of checked arguments.

    forward, t upwards                    reverse, t downwards                   (_bar: the cotangent of a name)
    u[t] = decay v[t-1] + x[t]            s_bar[t] = spikes_bar[t] + v_bar[t] dv/ds, unless detached
    s[t] = H(u[t] - threshold)            u_bar[t] = s_bar[t] g(u[t] - threshold) + v_bar[t] dv/du
    v[t] = u[t] after its reset           v_bar[t-1] = decay u_bar[t]
                                          decay_bar = sum u_bar[t] v[t-1]
                                          threshold_bar = -sum (s_bar[t] g(u[t] - threshold), and v_bar[t] s[t] if soft)

    [B, T, ...]       written by          over             read by
    u                 forward             x                spikes; reverse, which recomputes s and v from it
    u_bar = x_bar     reverse             spikes_bar       what made x

u is the carry of the forward loop, its output and the only sequence kept between the passes. In its place x is kept, of
few time steps in bfloat16. "Over" is as in xla/time_loop.py.

``decay``, ``threshold`` and ``membrane`` have the membrane's dtype, and to ``x [B, T, ...]`` without time, ``membrane``
has its shape, the other two its rank; the public functions of ``lif.py`` see to that.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from csbp_jax.surrogate import Surrogate
from csbp_jax.xla.platform import by_platform
from csbp_jax.xla.time_loop import ELSEWHERE, UNROLLED, at, over_time

Residuals = tuple[jax.Array, jax.Array | None, jax.Array, jax.Array, Surrogate]
"""Kept between the passes: ``(u or x [B, T, ...], membrane, decay, threshold, spike)``."""
Carry = tuple[jax.Array, jax.Array, jax.Array]
"""``(u_bar of the time step after, sums for decay_bar and threshold_bar)``, each ``[B, ...]``."""


class Rule(NamedTuple):
    """The static part of a neuron.

    reset: "hard", "soft" or "none". detach_reset: whether the reset passes no gradient to the spike. residual: "full"
    to keep u, or "input" to keep x. at_threshold: "silent", or "fire" for a spike where u = threshold. carried: the
    dtype in which u_bar[t] passes on to t - 1; by default, the membrane's.
    """

    reset: str
    detach_reset: bool
    residual: str = "full"
    at_threshold: str = "silent"
    carried: DTypeLike | None = None

    def fires(self, u: jax.Array, threshold: ArrayLike) -> jax.Array:
        """Return where ``u`` fires."""
        return u >= threshold if self.at_threshold == "fire" else u > threshold


def after_reset(u: jax.Array, fired: jax.Array, threshold: jax.Array, reset: str) -> jax.Array:
    """Apply the reset to the membrane ``u`` where ``fired``."""
    if reset == "none":
        return u
    return jnp.where(fired, 0, u) if reset == "hard" else u - threshold * fired


def back_one(
    u: jax.Array,
    s_bar: jax.Array,
    v_bar: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(u_bar, threshold_bar)`` of one time step; equations at :func:`backward`."""
    distance = u - threshold
    fired = rule.fires(distance, 0)
    if rule.reset != "none" and not rule.detach_reset:
        s_bar = s_bar - v_bar * (u if rule.reset == "hard" else threshold)
    through_spike = s_bar * spike.derivative(distance)
    u_bar = through_spike + (jnp.where(fired, 0, v_bar) if rule.reset == "hard" else v_bar)
    return u_bar, -through_spike - (v_bar * fired if rule.reset == "soft" else 0)


def forward(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Residuals]:
    """Compute ``((spikes, membrane after the last reset, residual), residuals)``.

    ``residual [B, T, ...]`` is the only sequence that is kept: u, or x if the rule's residual is ``"input"``.
    """
    # The first step is peeled: a membrane passed in is already reset and must not be reset again.
    first = x[:, 0].astype(decay.dtype)
    if membrane is not None:
        first = first + decay * membrane

    def step(x_t: jax.Array, t: ArrayLike, u: jax.Array) -> jax.Array:
        s = rule.fires(u, threshold)
        v = after_reset(u, s, threshold, rule.reset)
        return decay * v + x_t

    def run(store: Callable[[jax.Array], jax.Array], dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
        return over_time(step, first, store, x, jax.ShapeDtypeStruct(x.shape, dtype), range(x.shape[1]))

    if rule.residual == "input":
        residual = x
        last, spikes = run(lambda u: rule.fires(u, threshold), x.dtype)
    else:
        last, residual = run(lambda u: u, decay.dtype)
        spikes = rule.fires(residual, jnp.expand_dims(threshold, 1)).astype(x.dtype)
    end = after_reset(last, rule.fires(last, threshold), threshold, rule.reset)
    return (spikes, end, residual), (residual, membrane, decay, threshold, spike)


def backward(
    rule: Rule,
    residuals: Residuals,
    spikes_bar: jax.Array,
    membrane_bar: jax.Array,
    trace_bar: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array, Surrogate]:
    """Compute the cotangents of x, membrane, decay, threshold and spike (zeros).

    With the equations at the top of this module, where, for a hard, a soft and no reset,

        dv/ds = -u | -threshold | 0        dv/du = 1 - s | 1 | 1

    ``trace_bar`` is the cotangent of u as an output of :func:`lif_trace`, which adds to u_bar.
    """
    stored, membrane, decay, threshold, spike = residuals

    def cotangents_at(t: ArrayLike, s_bar: jax.Array, v_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        u_bar, threshold_bar = back_one(at(stored, t), s_bar.astype(decay.dtype), v_bar, threshold, spike, rule)
        u_bar = u_bar if trace_bar is None else u_bar + at(trace_bar, t)
        return u_bar.astype(rule.carried or decay.dtype), threshold_bar

    def step(s_bar: jax.Array, t: ArrayLike, carry: Carry) -> Carry:
        # Closes time step t + 1, whose part of decay_bar needs v[t], and opens t.
        later_u_bar, decay_sum, threshold_sum = carry[0].astype(decay.dtype), *carry[1:]
        u = at(stored, t)
        decay_sum = decay_sum + later_u_bar * after_reset(u, rule.fires(u - threshold, 0), threshold, rule.reset)
        u_bar, threshold_bar = cotangents_at(t, s_bar, decay * later_u_bar)
        return u_bar, decay_sum, threshold_sum + threshold_bar

    times = range(stored.shape[1] - 1, -1, -1)
    last_u_bar, threshold_bar = cotangents_at(times[0], at(spikes_bar, times[0]), membrane_bar)
    carry = last_u_bar, jnp.zeros_like(threshold_bar), threshold_bar
    carry, x_bar = over_time(step, carry, lambda carry: carry[0], sequence=spikes_bar, like=spikes_bar, times=times)
    first_u_bar, decay_sum, threshold_sum = carry[0].astype(decay.dtype), *carry[1:]
    if membrane is not None:
        decay_sum = decay_sum + first_u_bar * membrane
    return (
        x_bar,
        None if membrane is None else decay * first_u_bar,
        sum_to(decay_sum, decay.shape),
        sum_to(threshold_sum, threshold.shape),
        jax.tree.map(jnp.zeros_like, spike),
    )


def sum_to(cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which an operand of ``shape`` (same rank) was broadcast."""
    return cotangent.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def lif(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(spikes, membrane after the last reset)``."""
    rules = {"default": rule}
    if rule.residual == "full" and x.dtype == jnp.bfloat16:
        # Where no loop is needed, x of half the size is kept in place of u: the same numbers, of half the memory. XLA
        # fuses the chain with what made x and with the reverse pass, and writes no membrane at all.
        if x.shape[1] <= ELSEWHERE.unrolled_up_to:
            rules |= {"gpu": rule, "default": rule._replace(residual="input")}  # its effect on GPUs is not measured
        # u_bar[t] is rounded to the dtype of x on its way out. Rounded on its way to t - 1 too, it is one array, and
        # XLA on TPU computes the gradients of all time steps in one kernel; else it writes a float32 u_bar between two.
        if x.shape[1] <= UNROLLED["tpu"].unrolled_up_to:
            rules["tpu"] = rule._replace(residual="input", carried=x.dtype)
    forms = {platform: functools.partial(_lif, rule=rule) for platform, rule in rules.items()}
    return by_platform(x, membrane, decay, threshold, spike, **forms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _lif(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array]:
    # Undifferentiated: nothing is kept, so that the form without conversions serves.
    return forward(x, membrane, decay, threshold, spike, rule._replace(residual="full"))[0][:2]


def _lif_forward(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    (spikes, end, _), residuals = forward(x, membrane, decay, threshold, spike, rule)
    return (spikes, end), residuals


def _lif_backward(
    rule: Rule, residuals: Residuals, bars: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array, Surrogate]:
    if rule.residual == "input":
        # x was kept in place of u: the residuals are forward's own arguments.
        _, residuals = forward(*residuals, rule._replace(residual="full"))
    return backward(rule, residuals, *bars)


_lif.defvjp(_lif_forward, _lif_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def lif_trace(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute ``(spikes, membrane after the last reset, u [B, T, ...])``; the rule's residual must be ``"full"``."""
    return forward(x, membrane, decay, threshold, spike, rule)[0]


lif_trace.defvjp(forward, lambda rule, residuals, bars: backward(rule, residuals, *bars))


@jax.custom_vjp
def leaky_sum(x: jax.Array, start: jax.Array, decay: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute ``I[t] = decay I[t-1] + x[t]``, a membrane without spikes: ``(I [B, T, ...], its last row)``.

    start: ``I[-1]``, ``[B, ...]``. It and ``decay`` have the membrane's dtype, ``decay`` the rank of x without time.
    """
    return _leaky_sum_forward(x, start, decay)[0]


def _leaky_sum_forward(x: jax.Array, start: jax.Array, decay: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Any]:
    first = x[:, 0].astype(decay.dtype) + decay * start
    last, sums = over_time(
        lambda row, _, last: decay * last + row,
        first,
        lambda last: last,
        sequence=x,
        like=jax.ShapeDtypeStruct(x.shape, decay.dtype),
        times=range(x.shape[1]),
    )
    return (sums, last), (sums, start, decay, jnp.zeros((), x.dtype))  # residuals are arrays: a zero tells x's dtype


def _leaky_sum_backward(residuals: Any, bars: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    sums, start, decay, zero_of_x = residuals
    sums_bar, last_bar = bars

    def step(bar: jax.Array, t: ArrayLike, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        row, decay_bar = carry
        return decay * row + bar, decay_bar + row * at(sums, t)

    times = range(sums.shape[1] - 1, -1, -1)
    carry = (last_bar + at(sums_bar, times[0]), jnp.zeros_like(last_bar))
    like = jax.ShapeDtypeStruct(sums.shape, zero_of_x.dtype)
    (row, decay_bar), x_bar = over_time(step, carry, lambda carry: carry[0], sums_bar, like, times)
    return x_bar, decay * row, sum_to(decay_bar + row * start, decay.shape)


leaky_sum.defvjp(_leaky_sum_forward, _leaky_sum_backward)
