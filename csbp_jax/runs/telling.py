"""What a comparison with a control of the chaos term can tell about chaos, in a sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from csbp_jax import controls, dynamics
from csbp_jax.config import Config, flatten

RANGE = 3.0
"""Largest size of h for which gradients are compared, where nobody measured which values a run visits."""

SAME = 0.05
"""Largest distance of two gradients, relative to the pull, at which equality tells nothing about chaos."""

CHAOS = ("chaos", 1)
"""The chaos term in one step."""

_DEFAULTS = flatten(Config())

Fields = Mapping[str, Any]


def notes(pairs: Sequence[tuple[Sequence[Fields], Sequence[Fields]]], size: float = RANGE) -> Iterator[str]:
    """Yield a sentence for each different pair of the chaos term and a control of it, at one scale k.

    Args:
      pairs: of arms, the fields of each one's runs; a field that is missing has its default.
      size: the largest size of h for which gradients are compared.
    """
    sentences = []
    for first, second in pairs:
        ks = sorted({_value(run, "chaos.scale") for run in (*first, *second)})
        targets = sorted({_value(run, "chaos.target") for run in (*first, *second)})
        terms = [{_term(run) for run in runs} - {None} for runs in (first, second)]
        if len(targets) != 1 or any(len(of_arm) != 1 for of_arm in terms):
            continue
        (one,), (two,) = terms
        if one == two or CHAOS not in (one, two):
            continue
        name, substeps = two if one == CHAOS else one
        if substeps > 1:
            sentences.append(of_substeps(substeps))
        elif name in controls.TERMS:
            ends = sorted({ks[0], ks[-1]})
            sentences += [of_term(name, k, targets[0], size) for k in ends]
    yield from dict.fromkeys(sentences)


def of_term(name: str, k: float, target: float = 0.65, size: float = RANGE) -> str:
    """Return how far a control of ``controls.TERMS`` is from the chaos term for h from ``-size`` to ``size``."""
    compared = dynamics.compare_terms(controls.TERMS[name], -size, size, target, k)
    percent = 100 * compared.apart
    gap = f"{percent:.{1 if percent < 10 else 0}f} % of the pull for |h| <= {size:g}"
    if name == "linear":
        return (
            f"at k = {k:g} linear differs from the term by up to {gap}: it never comes to rest, so that it lacks more"
            " than chaos"
        )
    flips = f"overshoots from {compared.control.flip / compared.term.flip:.2g} of the term's strength on"
    if compared.apart <= SAME:
        return f"at k = {k:g} the {name} is the term to {gap}, and {flips}: equality says nothing about chaos"
    return f"at k = {k:g} the {name}'s gradient differs from the term's by up to {gap}, and it {flips}"


def of_substeps(count: int) -> str:
    """Return how far the chaos term in sub-steps is from the term."""
    return (
        f"{count} sub-steps differ from the term by about its flip ratio (csbp_jax lr PRESET --flips): below {SAME:g}"
        " flips equality says nothing about chaos"
    )


def _value(run: Fields, name: str) -> Any:
    value = run.get(name)
    return _DEFAULTS[name] if value is None else value


def _term(run: Fields) -> Any:
    """Return ``(term, sub-steps)`` of a run; None without a term."""
    if not np.any(_value(run, "chaos.z0")):
        return None
    return str(_value(run, "chaos.term")), int(_value(run, "chaos.substeps"))
