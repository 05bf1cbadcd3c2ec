"""Controls of settings, and differences from them that are paired over seeds.

A setting is a group of runs that differ only in the seed; its fields are the flattened config without the seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from csbp_jax.reporting.format import option_text, points
from csbp_jax.reporting.statistics import Interval, paired, verdict

Fields = Mapping[str, Any]

TERM = "chaos."
"""What the names of a chaos term's fields start with."""

_SIGNED_RANK_PAIRS = 6  # Fewer cannot give p < 0.05.


class PairedDifference(NamedTuple):
    """Mean difference of a setting from its control, over the seeds that both have.

    difference: with its 95 % interval by Student's t. p: of Wilcoxon's signed-rank test.
    verdict: "equal within MARGIN", "better", "worse" or "not decided", by
    :func:`csbp_jax.reporting.statistics.verdict`; None without a margin.
    """

    pairs: int
    difference: Interval
    p: float
    verdict: str | None


def paired_difference(
    values: Mapping[int, float], control: Mapping[int, float], margin: float | None = None
) -> PairedDifference | None:
    """Compare accuracies, ``{seed: accuracy}``, with those of a control; None if they share no seed.

    Args:
      values: accuracies in [0, 1].
      control: those of the control.
      margin: largest difference without importance, in percentage points, for the verdict.
    """
    if not (seeds := sorted(set(values) & set(control))):
        return None
    differences = [values[seed] - control[seed] for seed in seeds]
    test, decision = paired(differences, margin=None if margin is None else margin / 100), None
    if margin is not None:
        word = verdict(test)
        decision = f"equal within {margin:g}" if word == "equal" else word
    return PairedDifference(len(seeds), test.difference, paired(differences, "signed-rank").p, decision)


def difference_text(paired: PairedDifference) -> str:
    """Format a difference in percentage points, with a line for its p and for its verdict where they exist."""
    lines = [points(paired.difference) + (" (n = 1)" if paired.pairs == 1 else "")]
    if paired.pairs >= _SIGNED_RANK_PAIRS:
        lines.append(f"signed rank p {paired.p:.2g}")
    if paired.verdict is not None:
        lines.append(paired.verdict)
    return "\n".join(lines)


def is_plain(fields: Fields) -> bool:
    """Return whether a setting trains without a chaos term: its ``chaos.z0`` is 0."""
    return not any(fields.get("chaos.z0") or ())


def plain_control(number: int, settings: Sequence[Fields]) -> int | None:
    """Return the number of the setting that is ``settings[number]`` without its chaos term; None if there is none.

    Without a chaos term the other fields of :data:`TERM` have no effect, so these may differ; where several settings
    qualify, it is the first of those in which fewest differ.
    """

    def differing(other: Fields, prefixes: str = "") -> int:
        names = {name for name in {*other, *settings[number]} if name.startswith(prefixes)}
        return sum(option_text(other.get(name)) != option_text(settings[number].get(name)) for name in names)

    plain = [i for i, other in enumerate(settings) if i != number and is_plain(other)]
    controls = [i for i in plain if differing(settings[i]) == differing(settings[i], TERM)]
    if is_plain(settings[number]):
        return None
    return min(controls, key=lambda i: differing(settings[i]), default=None)
