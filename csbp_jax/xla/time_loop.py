"""A loop over time, in the form of the device for which a program is lowered."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax.xla.platform import by_platform

Carry = TypeVar("Carry")

# (largest number of time steps that is unrolled completely, time steps per pass of the loop beyond that), by platform.
# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all; up to 4
# steps that is cheaper than the loop. On a GPU a pass is about four kernels that read and write all they share, while
# 16 unrolled steps are two (docs/results/bench/h100.md); with more, compilation takes minutes. On a TPU, 10
# unrolled steps move a quarter less than a loop in CNN7 and VGGSNN, and store a third less.
UNROLLED = {"gpu": (16, 16), "tpu": (16, 16)}
ELSEWHERE = (4, 1)


def at(sequence: jax.Array, t: ArrayLike) -> jax.Array:
    row: jax.Array = lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)
    return row


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

    def loop(form: tuple[int, int]) -> Callable[[Carry, jax.Array], tuple[Carry, Any]]:
        return lambda carry, sequence: _in_form(form, step, carry, store, sequence, like, times, reread)

    elsewhere = ELSEWHERE if unroll else (1, 1)
    if len(times) <= elsewhere[0]:  # a chain everywhere
        return loop(elsewhere)(carry, sequence)
    forms = {platform: loop(form) for platform, form in UNROLLED.items()}
    result: tuple[Carry, Any] = by_platform(carry, sequence, **forms, default=loop(elsewhere))
    return result


def _in_form(
    form: tuple[int, int],
    step: Callable[[jax.Array, Any, Carry], Carry],
    carry: Carry,
    store: Callable[[Carry], Any],
    sequence: jax.Array,
    like: Any,
    times: range,
    reread: Callable[[Carry, Any], Carry] | None,
) -> tuple[Carry, Any]:
    unrolled, per_pass = form
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
