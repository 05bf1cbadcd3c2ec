"""A word for what the instruments measured on one start."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NEUTRAL = 1e-3
"""The largest exponent of a neutral direction, in nats per step."""

RISE = 5.0
"""The growth, in nats, from which an expansion counts."""

AWAY = 1e3
"""The growth of the parameters at which a run has run away."""


def classify(measured: dict[str, Any]) -> str:
    """Classify one start by its measurements (:func:`csbp_jax.instruments.measure.measure`).

    An exponent counts from four standard errors on, and its expansion, exponent times counted steps, from 5 nats on.

    Returns:
      In this order: "runs away", where the parameters have grown a thousandfold or the last step was not finite; "no
      exponent", where the tangent does not exist, as under Adam with ``eps_root`` 0, whose root has none at second
      moments of 0; "chaotic", by the largest tangent exponent; "finite-size sensitive", by any finite-size exponent;
      "transiently expanding", where the cumulated local exponents of the annealed run :func:`rise` by 5 nats; "weakly
      expanding", where an exponent counts and its expansion does not; else "contracting or neutral".
    """
    if not measured["size"] < AWAY:
        return "runs away"  # not an attractor: what grows is the run itself
    if not np.isfinite(measured["tangent"]["exponents"][0]):
        return "no exponent"
    tangent, sized = (_growths(measured[kind]) for kind in ("tangent", "finite_size"))
    least = RISE / measured["counted"]
    if tangent[0] >= least:
        return "chaotic"
    if max(sized) >= least:
        return "finite-size sensitive"
    if rise(measured["cumulated"]) >= RISE:
        return "transiently expanding"
    return "weakly expanding" if max(tangent[0], *sized) > 0 else "contracting or neutral"


def _growths(measured: dict[str, Any]) -> list[float]:
    """Return the exponents, 0 for those that do not count."""
    pairs = zip(measured["exponents"], measured["stderr"], strict=True)
    return [exponent if exponent > max(4 * error, NEUTRAL) else 0.0 for exponent, error in pairs]


def rise(cumulated: Sequence[float]) -> float:
    """Return the largest growth from any step to a later one, in nats, of cumulated local exponents."""
    course = np.concatenate([[0.0], cumulated])
    return float(np.max(course - np.minimum.accumulate(course)))
