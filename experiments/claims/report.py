"""Contrasts, verdicts, table and forest plot of the study of generalisation, from its stored runs."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.intervals import signed_rank, student, tost
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.claims.settings import NAMES, PRIMARY, SETTINGS
from experiments.statistics import holm, mean_text, paired_t, pairs_needed, power
from experiments.study import Content

BASE = "base"
MARGIN = 0.5
"""Of equivalence, in points."""


def points(arm: Mapping[str, Any], condition: str, name: str = "test") -> NDArray[np.float64]:
    """A number of a condition's chosen setting over its test seeds, in order, times 100; empty if it was not tested.

    The condition :data:`BASE` is P with the rate and width that the other conditions have.
    """
    number = arm.get("base") if condition == BASE else arm["chosen"].get(condition)
    results = arm["runs"].get("P" if condition == BASE else condition, {}).get(str(number), {})
    seeds = sorted(int(seed) for seed in results if int(seed) < 1000)
    return 100 * np.array([results[str(seed)][name] for seed in seeds], float)


def tested(arm: Mapping[str, Any], condition: str) -> bool:
    """Whether a condition has all its test runs."""
    return "seeds" in arm and len(points(arm, condition)) == arm["seeds"]


def pooled_sd(arm: Mapping[str, Any], pairs: int) -> float:
    """Pooled standard deviation of the first differences C-P, C-D and C-S, in points."""
    c = points(arm, "C")[:pairs]
    return float(np.sqrt(np.mean([np.var(c - points(arm, other)[:pairs], ddof=1) for other in ("P", "D", "S")])))


def contrast(values: NDArray[Any], reference: NDArray[Any], comparisons: int = 1) -> Content:
    """Compare paired accuracies in points: mean, interval (Bonferroni over ``comparisons``), tests, equivalence."""
    differences = values - reference
    mean, low, high = student(differences.tolist(), 1 - 0.05 / comparisons)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "sd": float(np.std(differences, ddof=1)),
        "n": len(differences),
        "p": paired_t(values, reference),
        "wilcoxon": signed_rank((differences / 100).tolist()),
        "tost": tost(differences.tolist(), MARGIN),
    }


def analyse(arm: Mapping[str, Any]) -> Content | None:
    """The primary family with its verdict, and the intervals of tested conditions against P; None before its end."""
    if not all(tested(arm, condition) for condition in PRIMARY):
        return None
    accuracy = {name: points(arm, name) for name in NAMES if tested(arm, name)}
    family = {f"C-{other}": contrast(accuracy["C"], accuracy[other]) for other in ("P", "D", "S")}
    corrected = holm({name: pair["p"] for name, pair in family.items()})
    family = {name: pair | {"holm": corrected[name]} for name, pair in family.items()}
    others = {name: contrast(accuracy[name], accuracy["P"], 10) for name in accuracy if name != "P"}
    result = {"family": family, "against P": others, "verdict": verdict(family)}
    if tested(arm, BASE):
        base = points(arm, BASE)
        result["against base"] = {name: contrast(accuracy[name], base, 10) for name in accuracy if name != "P"}
        result["base"] = student(base.tolist())._asdict()
    return result


def verdict(family: Mapping[str, Mapping[str, float]]) -> str:
    """The word of the plan for a primary family."""

    def above(name: str) -> bool:
        return family[name]["holm"] < 0.05 and family[name]["mean"] > 0

    def equal(name: str) -> bool:
        return family[name]["tost"] < 0.05

    if all(above(name) for name in family):
        return "chaos helps"
    if above("C-P") and equal("C-D"):
        return "the pull helps"
    if equal("C-P"):
        return "nothing"
    if family["C-P"]["holm"] < 0.05 and family["C-P"]["mean"] < 0:
        return "harm"
    sd = max(pair["sd"] for pair in family.values())
    try:
        needed = f"{pairs_needed(lambda n: power(MARGIN, sd, n, 0.05 / len(family)), most=10_000)} pairs"
    except ValueError:
        needed = "more than 10,000 pairs"
    return f"not decided; {needed} would decide 0.5 points"


# --- text and picture ---------------------------------------------------------------------------------------------


def write(folder: pathlib.Path, name: str, content: Content) -> None:
    """Write ``NAME.json`` with its analysis, ``table.md`` and ``NAME.png``."""
    for arm in content["arms"].values():
        arm["analysis"] = analyse(arm)
    analysed = {title: arm for title, arm in content["arms"].items() if arm["analysis"]}
    if not analysed:
        return
    study.write(folder, name, content, "\n\n".join(map(arm_text, analysed, analysed.values())))
    study.save_figure(draw(analysed), folder, name)


def arm_text(name: str, arm: Content) -> str:
    """The tables of an arm: its conditions, and its primary family."""
    settings, at_base = settings_text(arm), "against base" in arm["analysis"]
    rows = [
        [
            f"{condition}, {NAMES[condition]}",
            settings[condition],
            mean_text(points(arm, condition), ".2f"),
            mean_text(points(arm, condition, "chosen_test"), ".2f"),
            f"{points(arm, condition, 'train').mean():.1f}",
            f"{points(arm, condition, 'test_loss').mean() / 100:.3f}",
            interval_text(arm["analysis"]["against P"].get(condition)),
            *([interval_text(arm["analysis"]["against base"].get(condition))] if at_base else []),
        ]
        for condition in NAMES
        if tested(arm, condition)
    ]
    head = ["condition", "chosen setting", "test, last epoch (%)", "test, chosen epoch (%)", "training (%)"]
    head += ["test loss", "minus P, simultaneous 95 % (points)"]
    conditions = study.table([*head, *(["not planned: minus P at their rate and width"] if at_base else [])], rows)
    family = arm["analysis"]["family"].items()
    pairs = [[pair, *contrast_cells(result)] for pair, result in family]
    primary = study.table(
        ["contrast", "difference, 95 % (points)", "SD", "p, Holm", "p, Wilcoxon", "p, equivalence"], pairs
    )
    missing = [condition for condition in NAMES if not tested(arm, condition)]
    note = f"\n\nNot finished: {', '.join(missing)}." if missing else ""
    unit = f"A flip is z = {1 / arm['unit']:.3g}."
    verdict_line = f"Verdict: **{arm['analysis']['verdict']}**."
    if at_base:
        number = SETTINGS["P"][arm["base"]]
        base = f"{number['lr']:g} and {number['width']:g}, P there {arm['analysis']['base']['mean']:.2f} %"
        unit += f" The others' rate and width: {base}."
    return f"### {name}, {arm['seeds']} seeds\n\n{primary}\n\n{verdict_line} {unit}\n\n{conditions}{note}"


def settings_text(arm: Content) -> dict[str, str]:
    """The chosen setting of each condition, as text."""
    return {
        condition: ", ".join(f"{name} {value:g}" for name, value in SETTINGS[condition][number].items())
        for condition, number in arm["chosen"].items()
    }


def contrast_cells(result: Mapping[str, float]) -> list[str]:
    """A primary contrast as cells: interval, SD, and p by Holm's correction, Wilcoxon's test and equivalence."""
    numbers = [f"{result['sd']:.2f}", *(f"{result[name]:.2g}" for name in ("holm", "wilcoxon", "tost"))]
    return [interval_text(result), *numbers]


def interval_text(result: Mapping[str, float] | None) -> str:
    """``mean [low, high]`` in points, with signs."""
    return f"{result['mean']:+.2f} [{result['low']:+.2f}, {result['high']:+.2f}]" if result else ""


def draw(arms: Mapping[str, Content]) -> Any:
    """Draw differences from P with simultaneous intervals, and the primary contrasts, one panel an arm."""
    figure = empty_figure(4.2 * len(arms), 4.2)
    axes = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    names = [name for name in NAMES if name != "P"]
    for axis, (title, arm) in zip(axes, arms.items(), strict=True):
        analysis = arm["analysis"]
        rows = [(f"C - {other}", analysis["family"][f"C-{other}"]) for other in ("P", "D", "S")]
        rows += [(NAMES[name], analysis["against P"].get(name)) for name in names]
        for height, (_, result) in enumerate(rows):
            if result:
                colour = PALETTE[0] if height < 3 else PALETTE[1]
                axis.plot([result["low"], result["high"]], [height] * 2, color=colour)
                axis.plot(result["mean"], height, "o", color=colour, markersize=4)
        axis.axvspan(-MARGIN, MARGIN, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.axhline(2.5, color="0.8", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [label for label, _ in rows])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("difference of test accuracy (points)")
    axes[0].invert_yaxis()
    return figure
