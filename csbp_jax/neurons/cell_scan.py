"""Forward and reverse pass through time of any neuron, from its equations of one time step.

A :class:`Cell` maps the membrane before the spike, u, and the other states h to the spikes and to the states after
them, v and h'; a leak and the input follow:

    s[t], v[t], h[t+1] = cell(u[t], h[t])           u[t] = decay v[t-1] + x[t]

Its gradient is that of autodiff, one time step at a time: only u and h are stored between the passes, ``[B, T, ...]``
in float32, and the reverse pass recomputes the rest. The LIF neuron has its own, in lif_scan.py.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax.neurons.arguments import AtThreshold
from csbp_jax.neurons.lif_scan import sum_to
from csbp_jax.xla.time_loop import at, over_time

Fire = Callable[[jax.Array], jax.Array]
"""From ``u - threshold`` to spikes of the same dtype."""

Hidden = tuple[jax.Array, ...]
"""The states other than the membrane, each ``[B, ...]``."""

Constants = tuple[jax.Array, ...]

State = tuple[jax.Array, Hidden]
"""``(membrane, other states)``."""


HEAVISIDE: dict[AtThreshold, Fire] = {
    "silent": lambda distance: (distance > 0).astype(distance.dtype),
    "fire": lambda distance: (distance >= 0).astype(distance.dtype),
}
"""``H(u - threshold)``, 0 or 1, with H(0) = 0 or 1."""


def with_gradient_of(spike: Fire, fire: Fire, distance: jax.Array) -> jax.Array:
    """Evaluate ``fire(distance)``, with the gradient of ``spike(distance)``."""
    surrogate = spike(distance)
    return fire(distance) + (surrogate - lax.stop_gradient(surrogate))


def after_reset(u: jax.Array, spikes: jax.Array, amount: jax.Array, reset: str, detach_reset: bool) -> jax.Array:
    """Reset the membrane where it fired: to 0 ("hard"), by an amount ("soft"), or not at all ("none").

    detach_reset: whether to stop the gradient through the spikes.
    """
    if reset == "none":
        return u
    spikes = lax.stop_gradient(spikes) if detach_reset else spikes
    return u * (1 - spikes) if reset == "hard" else u - amount * spikes


class Cell(NamedTuple):
    """The static part of a neuron.

    equations: ``(options, fire, constants, u, h) -> (spikes, v, h')``, elementwise: all arrays have the shape of u, or
      broadcast to it.
    options: passed on to ``equations``.
    fire: from ``u - threshold`` to spikes, without a gradient of its own; a ``custom_vjp`` in a forward pass would
      prevent derivatives of the gradient.
    expensive: whether a time step is too expensive for XLA to compute parts of it twice.
    """

    equations: Callable[..., tuple[jax.Array, jax.Array, Hidden]]
    options: tuple[Any, ...]
    fire: Fire
    expensive: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(
    cell: Cell, x: jax.Array, state: State, decay: jax.Array, constants: Constants, spike: Any
) -> tuple[jax.Array, State, jax.Array]:
    """Compute ``(spikes [B, T, ...], (v, h) after the last time step, u [B, T, ...])``.

    Args:
      cell: see :class:`Cell`.
      x: ``[B, T, ...]``.
      state: v and h before the first time step, ``[B, ...]``, in the membrane's dtype.
      decay: of v; it and the constants have the membrane's dtype and the rank of x without time.
      constants: of the cell.
      spike: pytree that is called as ``cell.fire``, for its gradient.
    """
    return _forward(cell, x, state, decay, constants, spike)[0]


def _forward(
    cell: Cell, x: jax.Array, state: State, decay: jax.Array, constants: Constants, spike: Any
) -> tuple[tuple[jax.Array, State, jax.Array], Any]:
    equations = functools.partial(cell.equations, cell.options, cell.fire)
    membrane, hidden = state

    def step(row: jax.Array, t: jax.Array, rows: State) -> State:
        _, v, hidden = equations(constants, *rows)
        return decay * v + row, hidden

    like = jax.tree.map(lambda row: jax.ShapeDtypeStruct(x.shape, row.dtype), state)
    first = (decay * membrane + x[:, 0], hidden)
    reread = (lambda _, rows: rows) if hidden else None
    last, stored = over_time(step, first, lambda rows: rows, x, like, range(x.shape[1]), not cell.expensive, reread)
    spikes, _, _ = equations(tuple(jnp.expand_dims(constant, 1) for constant in constants), *stored)
    _, v, hidden = equations(constants, *last)
    return (spikes.astype(x.dtype), (v, hidden), stored[0]), (stored, membrane, decay, constants, spike)


def _backward(cell: Cell, residuals: Any, bars: Any) -> tuple[jax.Array, State, jax.Array, Constants, Any]:
    """Compute the cotangents of x, state, decay, constants and spike (zeros); ``_bar`` is the cotangent of a name."""
    stored, membrane, decay, constants, spike = residuals
    spikes_bar, (v_bar, hidden_bar), u_bar = bars
    equations = functools.partial(cell.equations, cell.options, functools.partial(with_gradient_of, spike, cell.fire))

    def local(
        s_bar: jax.Array, t: ArrayLike, v_bar: jax.Array, hidden_bar: Hidden
    ) -> tuple[jax.Array, tuple[jax.Array, Hidden], Constants]:
        u, hidden = jax.tree.map(lambda sequence: at(sequence, t), stored)
        # A sum over neurons at each time step would be slower than one at the end.
        wide = tuple(jnp.broadcast_to(constant, u.shape) for constant in constants)
        (_, v, _), pull = jax.vjp(equations, wide, u, hidden)
        constants_bar, row, hidden_bar = pull((s_bar.astype(u.dtype), v_bar, hidden_bar))
        return v, (row + at(u_bar, t), hidden_bar), constants_bar

    def step(s_bar: jax.Array, t: ArrayLike, carry: Any) -> Any:
        (row, hidden_bar), (decay_bar, constants_bar) = carry
        v, rows, more = local(s_bar, t, decay * row, hidden_bar)
        return rows, (decay_bar + row * v, jax.tree.map(jnp.add, constants_bar, more))

    times = range(spikes_bar.shape[1] - 1, -1, -1)
    _, rows, constants_bar = local(at(spikes_bar, times[0]), times[0], v_bar, hidden_bar)
    carry = (rows, (jnp.zeros_like(membrane), constants_bar))
    # Only a row that was not rounded when it was stored.
    several = stored[1] and spikes_bar.dtype == decay.dtype
    reread = (lambda carry, row: ((row, carry[0][1]), carry[1])) if several else None
    carry, x_bar = over_time(
        step, carry, lambda carry: carry[0][0], spikes_bar, spikes_bar, times, not cell.expensive, reread
    )
    (row, hidden_bar), (decay_bar, constants_bar) = carry
    return (
        x_bar,
        (decay * row, hidden_bar),
        sum_to(decay_bar + row * membrane, decay.shape),
        tuple(sum_to(bar, constant.shape) for bar, constant in zip(constants_bar, constants, strict=True)),
        jax.tree.map(jnp.zeros_like, spike),
    )


run.defvjp(_forward, _backward)
