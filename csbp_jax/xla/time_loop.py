"""A loop over time, in the form of the device for which a program is lowered.

    sequence  [B, T, ...]   each row is read once, by step(row, t, carry), in the order of ``times``
    carry     [B, ...]      passes from one time step to the next: the states of a neuron, or their cotangents
    stored    [B, T, ...]   store(carry) of each time step, written in place, batch first: no transpose and no copy

    a chain   few steps without a loop: steps t0, t1, t2 ..., and their rows are stacked
    a loop    t0 and what fills no whole pass, as a chain; then passes, each
                  on a GPU or TPU: a chain of 16 steps; their rows are written
                  on a CPU: row t - 1 is written, over that of the sequence, which nobody reads any more; then step t

The chain, the pass of a GPU or TPU and that of a CPU have the same numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax.xla.platform import by_platform

Carry = TypeVar("Carry")


class Form(NamedTuple):
    """How many time steps at most are a chain without a loop, and how many a pass of the loop has beyond that."""

    unrolled_up_to: int
    per_pass: int


# XLA on CPU has no multi-output fusion: unrolled, each time step recomputes the chain from x, O(T**2) in all; up to 4
# steps that is cheaper than the loop. On a GPU a pass is about four kernels that read and write all they share, while
# 16 unrolled steps are two (docs/checks/bench/h100.md); with more, compilation takes minutes. On a TPU, 10
# unrolled steps move a quarter less than a loop in CNN7 and VGGSNN, and store a third less.
UNROLLED = {"gpu": Form(16, 16), "tpu": Form(16, 16)}
ELSEWHERE = Form(4, 1)  # on CPUs, and where the platform is unknown


def at(sequence: jax.Array, t: ArrayLike) -> jax.Array:
    """Return row t of ``[B, T, ...]``."""
    return lax.dynamic_index_in_dim(sequence, t, axis=1, keepdims=False)


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

    in_form = functools.partial(_in_form, step, store, sequence, like, times, reread)
    elsewhere = ELSEWHERE if unroll else Form(1, 1)
    forms = UNROLLED if len(times) > elsewhere.unrolled_up_to else {}  # else a chain everywhere
    loops = {platform: functools.partial(in_form, form) for platform, form in forms.items()}
    return by_platform(carry, default=functools.partial(in_form, elsewhere), **loops)


def _in_form(
    step: Callable[[jax.Array, Any, Carry], Carry],
    store: Callable[[Carry], Any],
    sequence: jax.Array,
    like: Any,
    times: range,
    reread: Callable[[Carry, Any], Carry] | None,
    form: Form,
    carry: Carry,
) -> tuple[Carry, Any]:
    def chain(carry: Carry, rows: list[Any], steps: Sequence[Any]) -> tuple[Carry, Any]:
        for t in steps:
            carry = step(at(sequence, t), t, carry)
            rows = [*rows, store(carry)]
        return carry, _stacked(like, rows[:: times.step])

    over_sequence = form.per_pass == 1 and jax.tree.leaves(like)[0].dtype == sequence.dtype
    begun = len(times) if len(times) <= form.unrolled_up_to else 1 + (len(times) - 1) % form.per_pass
    last, rows = chain(carry, [store(carry)], times[1:begun])
    if begun == len(times):
        return last, rows
    buffers = jax.tree.map(lambda like: lax.full_like(like, 0), like)
    if over_sequence:
        # XLA on CPU fills a buffer of zeros before the loop, which takes as long as writing it. The sequence needs
        # none: its row t is read before row t is written, and XLA copies it only if something else reads it later,
        # which in a network nothing does. So each row is written a pass late, and the last one after the loop: with a
        # write before the loop, the row that is read there would be a second reader.
        leaves, structure = jax.tree.flatten(buffers)
        buffers = jax.tree.unflatten(structure, [sequence, *leaves[1:]])
    else:
        buffers = _written(buffers, rows, min(times[0], times[begun - 1]))

    def one_pass(i: jax.Array, loop_carry: tuple[Carry, Any]) -> tuple[Carry, Any]:
        carry, buffers = loop_carry
        if not over_sequence:
            steps = [times[begun] + times.step * (form.per_pass * i + j) for j in range(form.per_pass)]
            carry, rows = chain(carry, [], steps)
            return carry, _written(buffers, rows, steps[:: times.step][0])
        t = times[1] + times.step * i
        buffers = _written(buffers, _stacked(like, [store(carry)]), t - times.step)
        if reread is not None:
            carry = reread(carry, jax.tree.map(lambda buffer: at(buffer, t - times.step), buffers))
        return step(at(jax.tree.leaves(buffers)[0], t), t, carry), buffers

    last, buffers = lax.fori_loop(0, (len(times) - begun) // form.per_pass, one_pass, (last, buffers))
    return last, _written(buffers, _stacked(like, [store(last)]), times[-1]) if over_sequence else buffers


def _stacked(like: Any, rows: list[Any]) -> Any:
    return jax.tree.map(lambda like, *rows: jnp.stack(rows, axis=1).astype(like.dtype), like, *rows)


def _written(buffers: Any, rows: Any, t: ArrayLike) -> Any:
    return jax.tree.map(functools.partial(lax.dynamic_update_slice_in_dim, start_index=t, axis=1), buffers, rows)
