"""Chaos loss of CSBP and its annealing.

Source: Z. Wang, P. Tao, L. Chen, "Brain-inspired chaotic spiking backpropagation", National Science Review 11(6),
2024, nwae037. With ``s`` the logistic function and ``h`` a layer's pre-activation or membrane:

    L = L_task + sum over taps of  z term(h)
    term(h) = mean of  -( I0 log s(h/k) + (1 - I0) log(1 - s(h/k)) )
    z[n] = z0 * beta**n

Using it in any JAX model takes three lines: compute ``term`` where ``h`` is available, compute ``z``, and add their
product to the loss.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax import ranges

__all__ = ["ChaosTerm", "Reduce", "reduced", "strength", "term"]

Reduce = Literal["mean", "sum", "neuron"]


class ChaosTerm(Protocol):
    """Loss term of one tapped tensor at strength 1, such as :func:`term` and its controls."""

    def __call__(
        self,
        h: jax.Array,
        target: ArrayLike,
        scale: ArrayLike,
        /,
        *,
        cut: tuple[float, float] | None,
        reduce: Reduce,
        where: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the term; arguments as in :func:`term`. ``where`` is passed for sequences of unequal length alone."""
        ...


def term(
    h: ArrayLike,
    target: ArrayLike = 0.65,
    scale: ArrayLike = 10.0,
    *,
    cut: tuple[float, float] | None = None,
    reduce: Reduce = "mean",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute the chaos term of one tapped tensor at strength 1: ``reduce(softplus(h/k) - I0 h/k)``.

    This equals ``-(I0 log s(h/k) + (1-I0) log(1-s(h/k)))``, stays finite for any finite ``h``, and has the gradient
    ``(s(h/k) - I0) / k`` per element. It is computed in float32 (float64 for float64 ``h``).

    Args:
      h: pre-activation or membrane, ``[B, ...features]`` or ``[B, T, ...features]``, channels last.
      target: ``I0`` in (0, 1), the value that ``s(h/k)`` is driven to. May be traced.
      scale: ``k > 0``: 10 in the authors' deep networks, 1 in their one-neuron demonstration. May be traced.
      cut: ``(low, high)``: clamps ``h`` to this range, with zero gradient outside; ``(-10, 9.9)`` in the released
        code. NaN passes through.
      reduce: ``"mean"`` over all elements (the released code), ``"sum"`` (the authors' README), or ``"neuron"``:
        mean over batch, time and space, sum over channels, so that the pull on one neuron does not fade with width.
      where: the elements that count, all by default; bool that broadcasts to ``h``, as of ``jnp.mean``.

    Returns:
      A scalar, at least ``-(I0 log I0 + (1-I0) log(1-I0))`` per element.

    Raises:
      TypeError: ``h`` is not one array but, say, a neuron's ``(spikes, state)`` or a state of several arrays; or it is
        float16, in which a gradient of order ``1 / (k * h.size)`` would silently underflow to zero; or it holds whole
        numbers, which have no gradient.
      ValueError: ``reduce`` is unknown, ``cut`` does not satisfy low < high, or ``target`` or ``scale`` is a number of
        Python or NumPy outside its range.

    >>> round(float(term(jnp.zeros((4, 3)))), 4)
    0.6931
    """
    return reduced(lambda u, target: _softplus(u) - target * u, h, target, scale, cut, reduce, where)


def reduced(
    potential: Callable[[jax.Array, jax.Array], jax.Array],
    h: ArrayLike,
    target: ArrayLike,
    scale: ArrayLike,
    cut: tuple[float, float] | None,
    reduce: Reduce,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Compute ``reduce(potential(h / scale, target))``, the form that :func:`term` and its controls share.

    Args:
      potential: elementwise function of ``u = h / scale`` and ``target``.

    The other arguments, and the errors raised, are those of :func:`term`.
    """
    if advice := _advice(h):
        raise TypeError(f"chaos: h is of type {type(h).__name__}, but must be one array; {advice}")
    h = jnp.asarray(h)
    if not jnp.issubdtype(h.dtype, jnp.inexact):
        raise TypeError(f"chaos: h is {h.dtype}, which has no gradient; give the membrane as floating-point numbers")
    if h.dtype == jnp.float16:
        raise TypeError(
            "chaos: h is float16, whose range would turn the term's gradient (of order 1 / (scale * h.size)) "
            "to zero; compute this layer in bfloat16 or float32"
        )
    if reduce not in ("mean", "sum", "neuron"):
        raise ValueError(f"chaos: reduce is {reduce!r}, but must be 'mean', 'sum' or 'neuron'")
    if cut is not None and not cut[0] < cut[1]:
        raise ValueError(f"chaos: cut is {cut}, but must be (low, high) with low < high")
    ranges.require("chaos", ranges.BETWEEN_0_AND_1, target=target)
    ranges.require("chaos", ranges.ABOVE_0, scale=scale)
    wide = jnp.promote_types(h.dtype, jnp.float32)
    h = h.astype(wide)
    if cut is not None:
        # lax.clamp, not jnp.clip: its gradient is zero at the ends themselves too, as in the released code.
        h = lax.clamp(jnp.asarray(cut[0], wide), h, jnp.asarray(cut[1], wide))
    u = h / jnp.asarray(scale, wide)
    loss = potential(u, jnp.asarray(target, wide))
    if reduce == "sum":
        return jnp.sum(loss, where=where)
    return jnp.mean(loss, where=where) * (h.shape[-1] if reduce == "neuron" else 1)


def _advice(h: Any) -> str:
    """Return what to give in place of a neuron's result or state, which would be stacked into one array; else ""."""
    if hasattr(h, "membrane"):
        return "give state.membrane"
    if isinstance(h, Mapping):
        return 'give state["membrane"]'
    if isinstance(h, tuple) and len(h) > 1:
        return f"unpack what a neuron returns, (spikes, state), and {_advice(h[1]) or 'give the second, its membrane'}"
    return "give one array" if h is None or isinstance(h, tuple | list) else ""


@jax.custom_jvp
def _softplus(u: jax.Array) -> jax.Array:
    # jax.nn.softplus also handles infinities; its selects cost more than the rest of the term.
    return jnp.maximum(u, 0) + jnp.log1p(jnp.exp(-jnp.abs(u)))


# Autodiff would give a wrong slope at 0, the kink of the maximum, where membranes are after a hard reset.
_softplus.defjvps(lambda tangent, _, u: tangent * jax.nn.sigmoid(u))


def strength(step: ArrayLike, z0: ArrayLike, beta: ArrayLike, every: ArrayLike = 1) -> jax.Array:
    """Compute the annealed chaos strength ``z = z0 * beta ** (step // every)``.

    The strength depends on the step counter alone, so that it is the same after a resume, and annealing never
    recompiles. All arguments may be traced.

    Args:
      step: number of optimiser steps done, a whole number from 0 on.
      z0: strength at step 0, 0 or more.
      beta: factor in [0, 1], applied once every ``every`` steps. In float32 its rounding grows with the power: at
        0.9995, the relative error of z is 1e-4 after 4000 steps.
      every: 1 to anneal in every step, or the number of steps per epoch to anneal once per epoch.

    Raises:
      ValueError: an argument is a number of Python or NumPy outside its range.
      TypeError: an argument is a text.

    >>> [float(strength(n, 10.0, 0.5, every=2)) for n in range(5)]
    [10.0, 10.0, 5.0, 5.0, 2.5]
    """
    ranges.require("chaos.strength", ranges.WHOLE_FROM_0, step=step)
    ranges.require("chaos.strength", ranges.FROM_0, z0=z0)
    ranges.require("chaos.strength", ranges.FROM_0_TO_1, beta=beta)
    ranges.require("chaos.strength", ranges.WHOLE_FROM_1, every=every)
    times = jnp.asarray(step) // jnp.asarray(every)
    beta = jnp.asarray(beta, jnp.result_type(float))
    return jnp.asarray(z0, beta.dtype) * beta ** times.astype(beta.dtype)
