"""Which control can tell whether the chaos of a term matters: the term and its control on one neuron.

A control tells something about chaos only if it shares the term's pull and not its chaos. Both are properties of the
gradient of one pre-activation h, so that one neuron shows them. A step of gradient descent on a term alone is the map

    h <- h - g k**2 term'(h),    g = lr z (1 + |p|**2) / k**2

with p the neuron's inputs, and the 1 of the bias. In units of h / k this map of the chaos term is the same for all k.
In n sub-steps, each of strength g / n, the term keeps its pull but overshoots only beyond n times its flip; for large n
this is its gradient flow, which never overshoots.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from csbp_jax import chaos, ranges

__all__ = ["OnOneNeuron", "TermDifference", "compare_terms", "exponent", "flip", "gradient", "neuron_step", "push"]

Cut = tuple[float, float] | None

_RANDOM = 0.3
"""Start of an orbit, in units of k."""


class OnOneNeuron(NamedTuple):
    """A term, or its control, on one neuron.

    flip: the strength g at which a step at the resting point starts to overshoot; inf without a resting point.
    exponents: at each strength, in nats per step; NaN where the orbit diverges.
    """

    flip: float
    exponents: tuple[float, ...]


class TermDifference(NamedTuple):
    """How a control differs from the chaos term.

    apart: the largest distance of the gradients over the range of h, relative to the term's pull at h = 0.
    strengths: the g of the exponents.
    term, control: both on one neuron.
    """

    apart: float
    strengths: tuple[float, ...]
    term: OnOneNeuron
    control: OnOneNeuron


def gradient(
    term: chaos.ChaosTerm, h: ArrayLike, target: float = 0.65, scale: float = 10.0, cut: Cut = None
) -> jax.Array:
    """Compute the derivative of a term at each h, in float32 (float64 for float64 ``h``).

    Args:
      term: ``chaos.term``, or a control of ``controls.TERMS``.
      h: pre-activations or membranes, of any shape.
      target, scale, cut: as of :func:`csbp_jax.chaos.term`.

    >>> round(float(gradient(chaos.term, 0.0)), 6)
    -0.015
    """

    def total(h: jax.Array) -> jax.Array:
        return term(h, target, scale, cut=cut, reduce="sum")

    return jax.grad(total)(jnp.asarray(h, jnp.result_type(h, float)))


def neuron_step(
    term: chaos.ChaosTerm,
    h: ArrayLike,
    g: ArrayLike,
    target: float = 0.65,
    scale: float = 10.0,
    cut: Cut = None,
    substeps: int = 1,
) -> jax.Array:
    """Compute ``h - g k**2 term'(h)``, a step of gradient descent on the term alone, in ``substeps`` equal steps.

    Raises:
      ValueError: ``substeps`` is not a whole number from 1 on.
    """
    ranges.require("neuron_step", ranges.WHOLE_FROM_1, substeps=substeps)
    rate = jnp.asarray(g) * scale**2 / substeps

    def descend(_: int, h: jax.Array) -> jax.Array:
        return h - rate.astype(h.dtype) * gradient(term, h, target, scale, cut)

    return lax.fori_loop(0, substeps, descend, jnp.asarray(h, jnp.result_type(h, float)))


def push(
    term: chaos.ChaosTerm,
    h: ArrayLike,
    g: float = 0.0,
    target: float = 0.65,
    scale: float = 10.0,
    cut: Cut = None,
    substeps: int = 1,
) -> jax.Array:
    """Compute the mean gradient along a step; it depends on the strength g in sub-steps alone."""
    if substeps == 1:
        return gradient(term, h, target, scale, cut)
    h = jnp.asarray(h, jnp.result_type(h, float))
    return (h - neuron_step(term, h, g, target, scale, cut, substeps)) / (g * scale**2)


def flip(term: chaos.ChaosTerm, target: float = 0.65, scale: float = 10.0, cut: Cut = None, substeps: int = 1) -> float:
    """Compute the g at which a step at the resting point starts to overshoot: ``2 substeps / (k**2 term''(h*))``.

    ``h* = k ln(I0 / (1 - I0))`` is where the chaos term and the drift rest. Beyond the flip the map's multiplier there
    is below -1.

    Returns:
      inf if the gradient at h* is not 0, as of ``controls.linear``, or outside ``cut``.

    >>> round(flip(chaos.term), 2)
    8.79
    """
    rest = jnp.asarray(scale * math.log(target / (1 - target)), jnp.result_type(float))

    def slope(h: jax.Array) -> jax.Array:
        return gradient(term, h, target, scale, cut)

    pull = abs(float(slope(jnp.zeros_like(rest))))
    at_rest, curvature = (float(value) for value in jax.jvp(slope, (rest,), (jnp.ones_like(rest),)))
    if abs(at_rest) > 1e-4 * pull or curvature <= 0:
        return math.inf
    return 2 * substeps / (scale**2 * curvature)


def exponent(
    term: chaos.ChaosTerm,
    g: ArrayLike,
    target: float = 0.65,
    scale: float = 10.0,
    cut: Cut = None,
    substeps: int = 1,
    *,
    steps: int = 4000,
    warmup: int = 500,
) -> jax.Array:
    """Compute the Lyapunov exponent of :func:`neuron_step`: the mean of ``log |dF/dh|`` along an orbit.

    Args:
      g: strengths, of any shape; their orbits run side by side.
      steps: counted, after ``warmup``.

    Returns:
      Exponents in nats per step, shaped like ``g``; NaN where the orbit diverges. A noise that does not depend on h, or
      ``controls.linear``, adds the same to two nearby orbits: their exponent is 0.
    """
    g = jnp.asarray(g, jnp.result_type(float))

    def advance(h: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        step = functools.partial(neuron_step, term, g=g, target=target, scale=scale, cut=cut, substeps=substeps)
        image, slope = jax.jvp(step, (h,), (jnp.ones_like(h),))
        return image, jnp.log(jnp.maximum(jnp.abs(slope), jnp.finfo(h.dtype).tiny))  # type: ignore[no-untyped-call]

    @jax.jit
    def orbit(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lax.scan(advance, start, length=warmup + steps)

    end, growth = orbit(jnp.full(g.shape, _RANDOM * scale, g.dtype))
    return jnp.where(jnp.isfinite(end), growth[warmup:].mean(axis=0), jnp.nan)


def compare_terms(
    control: chaos.ChaosTerm,
    low: float,
    high: float,
    target: float = 0.65,
    scale: float = 10.0,
    *,
    cut: Cut = None,
    substeps: int = 1,
    g: float = 0.0,
    strengths: tuple[float, ...] = (),
    term: chaos.ChaosTerm = chaos.term,
) -> TermDifference:
    """Compare a control with the chaos term over the range of h that a run visits.

    Args:
      control: of ``controls.TERMS``; ``chaos.term`` itself with ``substeps``.
      low, high: the range of h.
      substeps: of the control.
      g: the strength at which sub-steps differ from the term; it does not matter without them.
      strengths: at which both exponents are computed.
      term: what is compared with.

    Raises:
      ValueError: low is not below high.

    >>> from csbp_jax import controls
    >>> round(compare_terms(controls.drift, -3, 3).apart, 3)  # k = 10
    0.012
    """
    if not low < high:
        raise ValueError(f"compare_terms: the range of h is {low} to {high}, but low must be below high")
    h = jnp.linspace(low, high, 1001)
    of_term = push(term, h, g, target, scale, cut)
    of_control = push(control, h, g, target, scale, cut, substeps)
    pull = jnp.abs(gradient(term, 0.0, target, scale, cut))

    def on_one_neuron(term: chaos.ChaosTerm, substeps: int) -> OnOneNeuron:
        exponents = exponent(term, jnp.asarray(strengths), target, scale, cut, substeps) if strengths else ()
        return OnOneNeuron(flip(term, target, scale, cut, substeps), tuple(map(float, exponents)))

    return TermDifference(
        float(jnp.max(jnp.abs(of_control - of_term)) / pull),
        strengths,
        on_one_neuron(term, 1),
        on_one_neuron(control, substeps),
    )
