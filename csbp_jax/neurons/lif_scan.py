"""Forward and reverse pass of the LIF recurrence through time, as ``custom_vjp`` functions of checked arguments.

``decay``, ``threshold`` and ``membrane`` have the membrane's dtype and the rank of ``x [B, T, ...]`` without time; the
public functions of ``lif.py`` see to that.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from csbp_jax.surrogate import Surrogate

Residuals = tuple[jax.Array, jax.Array | None, jax.Array, jax.Array, Surrogate]
"""Kept between the passes: ``(u, u - threshold or x [B, T, ...], membrane, decay, threshold, spike)``."""


Carry = TypeVar("Carry")


class Rule(NamedTuple):
    """The static part of a neuron.

    reset: "hard", "soft" or "none". detach_reset: whether the reset passes no gradient to the spike. residual: "full",
    or "half" to keep u - threshold in bfloat16. at_threshold: "silent", or "fire" for a spike where u = threshold.
    """

    reset: str
    detach_reset: bool
    residual: str = "full"
    at_threshold: str = "silent"

    def fires(self, u: jax.Array, threshold: ArrayLike) -> jax.Array:
        """Return where ``u`` fires."""
        return u >= threshold if self.at_threshold == "fire" else u > threshold


# (largest number of time steps that is unrolled completely, time steps per pass of the loop beyond that), by back end.
# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all; up to 4
# steps that is cheaper than the loop. On a GPU a pass is about four kernels that read and write all they share, while
# 16 unrolled steps are two (docs/results/bench/h100.md); with more, compilation takes minutes. On a TPU, 10
# unrolled steps move a quarter less than a loop in CNN7 and VGGSNN, and store a third less.
_UNROLLED = {"gpu": (16, 16), "tpu": (16, 16)}
_UNROLLED_ELSEWHERE = (4, 1)


def _unrolled() -> tuple[int, int]:
    return _UNROLLED.get(jax.default_backend(), _UNROLLED_ELSEWHERE)


def keeps_input(x: jax.Array, rule: Rule) -> bool:
    """Return whether the reverse pass recomputes u from x instead of keeping it.

    x of half the size is kept in place of u, where no loop is needed: the same numbers, of half the memory. XLA fuses
    the chain with what made x and with the reverse pass, and writes no membrane at all. Its effect on GPUs is unknown.
    """
    short = x.shape[1] <= _unrolled()[0]
    return rule.residual == "full" and x.dtype == jnp.bfloat16 and short and jax.default_backend() != "gpu"


def at(sequence: jax.Array, t: ArrayLike) -> jax.Array:
    row: jax.Array = lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)
    return row


def after_reset(u: jax.Array, fired: jax.Array, threshold: jax.Array, reset: str) -> jax.Array:
    """Apply the reset to the membrane ``u`` where ``fired``."""
    if reset == "none":
        return u
    return jnp.where(fired, 0, u) if reset == "hard" else u - threshold * fired


def back_one(
    potential: tuple[jax.Array, jax.Array],
    s_bar: jax.Array,
    v_bar: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(u_bar, threshold_bar)`` of one time step; equations at :func:`backward`.

    ``potential`` is ``(u, u - threshold)``.
    """
    reset, detach_reset = rule.reset, rule.detach_reset
    u, distance = potential
    fired = rule.fires(distance, 0)
    if reset != "none" and not detach_reset:
        s_bar = s_bar - v_bar * (u if reset == "hard" else threshold)
    through_spike = s_bar * spike.derivative(distance)
    u_bar = through_spike + (jnp.where(fired, 0, v_bar) if reset == "hard" else v_bar)
    return u_bar, -through_spike - (v_bar * fired if reset == "soft" else 0)


def potential_of(stored: jax.Array, threshold: jax.Array, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Recover ``(u, u - threshold)`` from what the forward pass stored of u."""
    # bfloat16 marks the half-size residual, u - threshold; a membrane itself is never bfloat16.
    if stored.dtype == jnp.bfloat16:
        distance = stored.astype(dtype)
        return distance + threshold, distance
    return stored, stored - threshold


def over_time(
    step: Callable[[jax.Array, Any, Carry], Carry],
    carry: Carry,
    store: Callable[[Carry], Any],
    sequence: jax.Array,
    like: Any,
    times: range,
    unroll: bool = True,
    reread: Callable[[Carry, Any], Carry] | None = None,
) -> tuple[Carry, Any]:
    """Iterate ``carry = step(sequence[:, t], t, carry)`` over time and stack ``store(carry)`` to ``[B, T, ...]``.

    Args:
      step: one time step.
      carry: pytree of arrays ``[B, ...]``, that of ``times[0]``.
      store: from the carry to the rows that are stacked, an array or a pytree of arrays.
      sequence: ``[B, T, ...]``; best one that nothing else reads.
      like: arrays or shapes, whose shapes and dtypes the stacked rows have.
      times: 0..T-1 once, upwards or downwards.
      unroll: whether few time steps become a chain without a loop; else a loop wherever it is cheaper for the chain of
        an expensive step.
      reread: from a carry and its stored rows to the same carry, made of these rows. Where a carry holds several
        arrays, a loop on CPU then need not copy them before they are updated.

    Returns:
      ``(last carry, stacked rows in the order of time)``.
    """
    unrolled, per_pass = _unrolled() if unroll or jax.default_backend() in _UNROLLED else (1, 1)
    if len(times) > unrolled and per_pass == 1 and jax.tree.leaves(like)[0].dtype == sequence.dtype:
        return _written_over(step, carry, store, sequence, like, times, reread)
    # The rows are part of the carry and are written in place, batch first: no transpose and no copy.
    peeled = len(times) if len(times) <= unrolled else 1 + (len(times) - 1) % per_pass

    def advance(carry: Carry, steps: Sequence[Any], stored: list[Any]) -> tuple[Carry, Any]:
        for t in steps:
            carry = step(at(sequence, t), t, carry)
            stored = [*stored, store(carry)]
        return carry, jax.tree.map(_stack, like, *stored[:: times.step])

    def body(i: jax.Array, loop_carry: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, buffers = loop_carry
        steps = [times[peeled] + times.step * (per_pass * i + j) for j in range(per_pass)]
        carry, stacked = advance(carry, steps, [])
        return carry, _write(buffers, stacked, steps[:: times.step][0])

    carry, stacked = advance(carry, times[1:peeled], [store(carry)])
    if peeled == len(times):
        return carry, stacked
    empty = jax.tree.map(lambda sequence: lax.full_like(sequence, 0), like)
    buffers = _write(empty, stacked, min(times[0], times[peeled - 1]))
    result: tuple[Carry, Any] = lax.fori_loop(0, (len(times) - peeled) // per_pass, body, (carry, buffers))
    return result


def _written_over(
    step: Callable[[jax.Array, Any, Carry], Carry],
    carry: Carry,
    store: Callable[[Carry], Any],
    sequence: jax.Array,
    like: Any,
    times: range,
    reread: Callable[[Carry, Any], Carry] | None,
) -> tuple[Carry, Any]:
    """Compute :func:`over_time` in a loop that writes the first of the stacked sequences over ``sequence``."""
    # XLA on CPU fills a loop's buffer before the loop writes to it, which takes as long as writing it. Here the buffer
    # is the sequence, whose row t is read before row t is written; XLA copies it only if something else reads it
    # later, which in a network nothing does. Each row is written in the next pass, and the last one after the loop:
    # with a write before the loop, the row that is read there would be a second reader.
    leaves, structure = jax.tree.flatten(like)
    buffers = jax.tree.unflatten(structure, [sequence, *(lax.full_like(leaf, 0) for leaf in leaves[1:])])

    def write(carry: Carry, buffers: Any, t: ArrayLike) -> Any:
        return _write(buffers, jax.tree.map(_stack, like, store(carry)), t)

    def body(i: jax.Array, loop_carry: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, buffers = loop_carry
        t = times[1] + times.step * i
        buffers = write(carry, buffers, t - times.step)
        if reread is not None:
            carry = reread(carry, jax.tree.map(lambda buffer: at(buffer, t - times.step), buffers))
        return step(at(jax.tree.leaves(buffers)[0], t), t, carry), buffers

    carry, buffers = lax.fori_loop(0, len(times) - 1, body, (carry, buffers))
    return carry, write(carry, buffers, times[-1])


def _stack(like: Any, *rows: jax.Array) -> jax.Array:
    return jnp.stack(rows, axis=1).astype(like.dtype)


def _write(buffers: Any, stacked: Any, t: ArrayLike) -> Any:
    def write(buffer: jax.Array, rows: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice_in_dim(buffer, rows, t, axis=1)

    return jax.tree.map(write, buffers, stacked)


def _first_and_step(
    x: jax.Array, membrane: jax.Array | None, decay: jax.Array, threshold: jax.Array, rule: Rule
) -> tuple[jax.Array, Callable[[jax.Array, ArrayLike, jax.Array], jax.Array]]:
    """Return u of the first time step, and ``step(x[t], t, u[t - 1]) -> u[t]``."""
    # The first step is peeled: a membrane passed in is already reset and must not be reset again.
    first = x[:, 0].astype(decay.dtype)
    if membrane is not None:
        first = first + decay * membrane

    def step(row: jax.Array, t: ArrayLike, u: jax.Array) -> jax.Array:
        return decay * after_reset(u, rule.fires(u, threshold), threshold, rule.reset) + row

    return first, step


def forward(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Residuals]:
    """Compute ``((spikes, membrane after the last reset, stored), residuals)``.

    ``stored [B, T, ...]`` is the only sequence that is kept: u, or, for the residual ``"half"``, u - threshold rounded
    to bfloat16, whose range of exponents is that of float32, so that the sign survives.
    """
    half = rule.residual == "half"
    first, step = _first_and_step(x, membrane, decay, threshold, rule)
    like = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16 if half else decay.dtype)
    store: Callable[[jax.Array], jax.Array] = (lambda u: u - threshold) if half else (lambda u: u)
    last, stored = over_time(step, first, store, x, like, range(x.shape[1]))
    spikes = rule.fires(stored, 0 if half else jnp.expand_dims(threshold, 1)).astype(x.dtype)
    end = after_reset(last, rule.fires(last, threshold), threshold, rule.reset)
    return (spikes, end, stored), (stored, membrane, decay, threshold, spike)


def _forward_from_input(
    x: jax.Array, membrane: jax.Array | None, decay: jax.Array, threshold: jax.Array, spike: Surrogate, rule: Rule
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    """Compute ``((spikes, membrane after the last reset), residuals)``, with x in place of u."""
    first, step = _first_and_step(x, membrane, decay, threshold, rule)
    last, spikes = over_time(step, first, lambda u: rule.fires(u, threshold), x, x, range(x.shape[1]))
    end = after_reset(last, rule.fires(last, threshold), threshold, rule.reset)
    return (spikes, end), (x, membrane, decay, threshold, spike)


def backward(
    rule: Rule,
    residuals: Residuals,
    spikes_bar: jax.Array,
    membrane_bar: jax.Array,
    u_bar: jax.Array | None = None,
    carried: DTypeLike | None = None,
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array, Surrogate]:
    """Compute the cotangents of x, membrane, decay, threshold and spike (zeros).

    ``carried`` is the dtype in which u_bar[t] passes on to t - 1; by default, the membrane's.

    A name with ``_bar`` is the cotangent of the name before it:

        s_bar[t] = spikes_bar[t] + (v_bar[t] dv/ds, unless detached)     dv/ds = -u | -threshold | 0
        u_bar[t] = s_bar[t] g(u[t] - threshold) + v_bar[t] dv/du         dv/du = 1 - s | 1 | 1
        v_bar[t-1] = decay u_bar[t]
    """
    stored, membrane, decay, threshold, spike = residuals

    def local(s_bar: jax.Array, t: ArrayLike, v_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
        potential = potential_of(at(stored, t), threshold, decay.dtype)
        s_bar = s_bar.astype(decay.dtype)
        row, threshold_bar = back_one(potential, s_bar, v_bar, threshold, spike, rule)
        return (row if u_bar is None else row + at(u_bar, t)).astype(carried or decay.dtype), threshold_bar

    def step(
        s_bar: jax.Array, t: ArrayLike, carry: tuple[jax.Array, tuple[jax.Array, jax.Array]]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        row, (decay_bar, threshold_bar) = carry[0].astype(decay.dtype), carry[1]
        u, distance = potential_of(at(stored, t), threshold, decay.dtype)
        decay_bar = decay_bar + row * after_reset(u, rule.fires(distance, 0), threshold, rule.reset)
        row, threshold_bar_t = local(s_bar, t, decay * row)
        return row, (decay_bar, threshold_bar + threshold_bar_t)

    times = range(stored.shape[1] - 1, -1, -1)
    row, threshold_bar = local(at(spikes_bar, times[0]), times[0], membrane_bar)
    sums = (jnp.zeros_like(threshold_bar), threshold_bar)
    carry, x_bar = over_time(step, (row, sums), lambda carry: carry[0], spikes_bar, spikes_bar, times)
    row, (decay_bar, threshold_bar) = carry[0].astype(decay.dtype), carry[1]
    if membrane is not None:
        decay_bar = decay_bar + row * membrane
    return (
        x_bar,
        None if membrane is None else decay * row,
        sum_to(decay_bar, decay.shape),
        sum_to(threshold_bar, threshold.shape),
        jax.tree.map(jnp.zeros_like, spike),
    )


def sum_to(cotangent: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum over the axes along which an operand of ``shape`` (same rank) was broadcast."""
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    return cotangent.sum(axes, keepdims=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def lif(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(spikes, membrane after the last reset)``."""
    return forward(x, membrane, decay, threshold, spike, rule)[0][:2]


def _lif_forward(*arguments: Any) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    if keeps_input(arguments[0], arguments[-1]):
        return _forward_from_input(*arguments)
    (spikes, membrane, _), residuals = forward(*arguments)
    return (spikes, membrane), residuals


def _lif_backward(rule: Rule, residuals: Residuals, bars: tuple[jax.Array, jax.Array]) -> Any:
    if not keeps_input(residuals[0], rule):
        return backward(rule, residuals, *bars)
    x = residuals[0]
    _, residuals = forward(*residuals, rule)
    # u_bar[t] is rounded to the dtype of x on its way out. Rounded on its way to t - 1 too, it is one array, and XLA on
    # TPU computes the gradients of all time steps in one kernel; otherwise it writes a float32 u_bar between two.
    carried = x.dtype if jax.default_backend() == "tpu" else None
    return backward(rule, residuals, *bars, carried=carried)


lif.defvjp(_lif_forward, _lif_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def lif_trace(
    x: jax.Array,
    membrane: jax.Array | None,
    decay: jax.Array,
    threshold: jax.Array,
    spike: Surrogate,
    rule: Rule,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute ``(spikes, membrane after the last reset, u [B, T, ...])``."""
    return forward(x, membrane, decay, threshold, spike, rule)[0]


lif_trace.defvjp(forward, lambda rule, residuals, bars: backward(rule, residuals, *bars))


@jax.custom_vjp
def leaky_sum(x: jax.Array, start: jax.Array, decay: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute ``I[t] = decay I[t-1] + x[t]``, a membrane without spikes: ``(I [B, T, ...], its last row)``.

    start: ``I[-1]``, ``[B, ...]``. It and ``decay`` have the membrane's dtype, ``decay`` the rank of x without time.
    """
    return _leaky_sum_forward(x, start, decay)[0]


def _leaky_sum_forward(x: jax.Array, start: jax.Array, decay: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Any]:
    like = jax.ShapeDtypeStruct(x.shape, decay.dtype)
    first = x[:, 0].astype(decay.dtype) + decay * start
    last, sums = over_time(
        lambda row, _, last: decay * last + row, first, lambda last: last, x, like, range(x.shape[1])
    )
    return (sums, last), (sums, start, decay, jnp.zeros((), x.dtype))  # the zero tells the dtype of x


def _leaky_sum_backward(residuals: Any, bars: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    sums, start, decay, zero = residuals
    sums_bar, last_bar = bars

    def step(bar: jax.Array, t: ArrayLike, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        row, decay_bar = carry
        return decay * row + bar, decay_bar + row * at(sums, t)

    times = range(sums.shape[1] - 1, -1, -1)
    carry = (last_bar + at(sums_bar, times[0]), jnp.zeros_like(last_bar))
    like = jax.ShapeDtypeStruct(sums.shape, zero.dtype)
    (row, decay_bar), x_bar = over_time(step, carry, lambda carry: carry[0], sums_bar, like, times)
    return x_bar, decay * row, sum_to(decay_bar + row * start, decay.shape)


leaky_sum.defvjp(_leaky_sum_forward, _leaky_sum_backward)
