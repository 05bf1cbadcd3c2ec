"""A word for what the instruments measured on one start."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from csbp_jax import dynamics

NEUTRAL = 1e-3
"""The largest exponent of a neutral direction, in nats per step."""

BOUND = 5e-3
"""The exponent, in nats per step, above which growth counts: a factor of 148 in 1000 steps."""

ERRORS = 4
"""Half the width of the interval of an exponent, in standard errors."""

RISE = 5.0
"""The growth, in nats, from which an expansion is shown: a factor of 148."""

AWAY = 1e3
"""The growth of the parameters at which a run has run away."""


def classify(measured: dict[str, Any]) -> str:
    """Classify one start by its measurements (:func:`csbp_jax.instruments.measure.measure`).

    The interval of an exponent is four standard errors to either side. The exponent is *shown* to exceed ``BOUND`` if
    all of the interval does and the measured steps have grown by ``RISE``; to be below it, if all of the interval is.
    Neither depends on the number of steps, with which only the intervals shrink: more steps decide what fewer do not.

    Returns:
      In this order: "runs away", where the parameters have grown a thousandfold or the last step was not finite; "no
      exponent", where the tangent does not exist, as under Adam with ``eps_root`` 0, whose root has none at second
      moments of 0; "chaotic", where the largest tangent exponent is shown to exceed the bound; "finite-size
      sensitive", where any finite-size exponent is; "transiently expanding", where the annealed run has a
      :func:`csbp_jax.dynamics.rise` of ``RISE``; "contracting or neutral", where all exponents are shown to be below
      the bound; else "not decided".
    """
    if not measured["size"] < AWAY:
        return "runs away"  # not an attractor: what grows is the run itself
    if not np.isfinite(measured["tangent"]["exponents"][0]):
        return "no exponent"
    (tangent, *_), sized = (_shown(measured[kind], measured["counted"]) for kind in ("tangent", "finite_size"))
    if tangent == "above":
        return "chaotic"
    if "above" in sized:
        return "finite-size sensitive"
    if rise(measured["cumulated"]) >= RISE:
        return "transiently expanding"
    return "contracting or neutral" if {tangent, *sized} == {"below"} else "not decided"


def _shown(measured: dict[str, Any], counted: int) -> list[str]:
    """Return for each exponent whether it is shown to be "above" the bound or "below" it, or "neither"."""
    sides = []
    for exponent, error in zip(measured["exponents"], measured["stderr"], strict=True):
        if exponent - ERRORS * error > BOUND and exponent * counted >= RISE:
            sides.append("above")
        else:
            sides.append("below" if exponent + ERRORS * error < BOUND else "neither")
    return sides


def rise(cumulated: Sequence[float]) -> float:
    """Return the :func:`csbp_jax.dynamics.rise` of local exponents from their cumulated sums, in nats."""
    return float(dynamics.rise(np.diff(cumulated, prepend=0.0)))
