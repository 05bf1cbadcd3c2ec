"""Contrasts, verdicts, table and pictures of the study of robustness, from its stored counts."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from csbp_jax.evaluation.robustness import battery
from csbp_jax.reporting import plots_robustness
from csbp_jax.reporting.intervals import student_of_shares
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.claims.report import BASE, MARGIN, contrast, contrast_cells, interval_text, verdict
from experiments.claims.settings import NAMES
from experiments.statistics import holm, mean_text
from experiments.study import Content

CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "noise": (0.05, 0.1, 0.2),
    "blur": (0.5, 1.0),
    "shift": (1,),
    "contrast": (0.75, 0.5, 0.25),
    "occlusion": (0.25, 0.375, 0.5),
    "lost_events": (0.1, 0.3, 0.5),
    "added_events": (0.1, 0.3, 1.0),
    "lost_steps": (0.1, 0.2, 0.4),
    "jitter": (0.1, 0.3, 0.6),
}
"""Corruptions of the primary outcome, and their severities: five of pictures, four of events."""
FAULTS = ("lost_spikes", "added_spikes", "weight_noise", "weight_bits")
EPS = battery.PERTURBATIONS["square"].severities
MEASURES = {
    **CORRUPTIONS,
    **{name: battery.PERTURBATIONS[name].severities for name in FAULTS},
    "square": EPS,
    "both": EPS,
}
"""What each secondary contrast averages over; "both" are both attacks. An arm has those that fit its inputs."""
CONDITIONS = ("P", "C", "D", "S", "WD", "SAM", BASE)
TITLES = NAMES | {BASE: "plain at their rate and width"}
LABELS = {"both": "both attacks", "square": "square attack"}
FAMILY = ("P", "D", "S")

Accuracies = dict[str, NDArray[np.float64]]
"""Accuracies in points by column, over the seeds of the nets that have it, in order."""


# --- analysis -----------------------------------------------------------------------------------------------------


def accuracies(arm: Mapping[str, Any], condition: str) -> Accuracies:
    """The accuracies of a condition's nets."""
    nets = arm["nets"][condition]
    rows = [[int(count) for count in nets[seed].split()] for seed in sorted(nets, key=int)]
    return {
        column: 100 / size * np.array([row[i] for row in rows if i < len(row)])
        for i, (column, size) in enumerate(arm["columns"].items())
    }


def measured(of: Mapping[str, Any]) -> list[str]:
    """The measures of which an arm has columns, in the order of tables; ``of`` is keyed by columns."""
    return [name for name, severities in MEASURES.items() if f"{name} {severities[0]:g}" in of]


def average(of: Accuracies, measure: str) -> NDArray[np.float64]:
    """The mean accuracy over the severities of a measure, ``[seeds]``."""
    return np.mean([of[f"{measure} {severity:g}"] for severity in MEASURES[measure]], axis=0)


def primary(of: Accuracies) -> NDArray[np.float64]:
    """The primary outcome: the mean over the corruptions, each averaged over its severities, ``[seeds]``."""
    return np.mean([average(of, name) for name in measured(of) if name in CORRUPTIONS], axis=0)


def at_equal(outcome: NDArray[Any], covariate: NDArray[Any]) -> Content:
    """Regress paired differences of an outcome on those of a covariate; the value where the latter do not differ.

    ``outcome = a + b covariate + error`` over seeds: the analysis of covariance with seeds as blocks.

    Returns:
      ``{mean, low, high, slope, tost}``: a with its 95 % interval, b, and p of a being within the margin.

    Raises:
      ValueError: all differences of the covariate are equal.
    """
    fit = stats.linregress(covariate, outcome)
    freedom = len(outcome) - 2
    half = float(stats.t.ppf(0.975, freedom) * fit.intercept_stderr)
    p = float(stats.t.sf((MARGIN - abs(fit.intercept)) / fit.intercept_stderr, freedom))
    a = float(fit.intercept)
    return {"mean": a, "low": a - half, "high": a + half, "slope": float(fit.slope), "tost": p}


def analyse(arm: Mapping[str, Any]) -> Content:
    """The contrasts of the plan, those with P at the others' rate and width, and the check for masked gradients."""
    of = {condition: accuracies(arm, condition) for condition in arm["nets"]}
    main = {condition: primary(rows) for condition, rows in of.items()}
    family, clean, lost, equal = {}, {}, {}, {}
    for other in FAMILY:
        pair, of_clean = f"C-{other}", (of["C"]["clean"], of[other]["clean"])
        family[pair] = contrast(main["C"], main[other])
        clean[pair] = contrast(*of_clean)
        lost[pair] = contrast(of_clean[0] - main["C"], of_clean[1] - main[other])
        covariate = of_clean[0] - of_clean[1]
        differ = np.ptp(np.round(covariate, 9)) > 0
        equal[pair] = at_equal(main["C"] - main[other], covariate) if differ else None
    corrected = holm({pair: result["p"] for pair, result in family.items()})
    family = {pair: result | {"holm": corrected[pair]} for pair, result in family.items()}
    others = [condition for condition in of if condition not in ("P", BASE)]
    measures = measured(arm["columns"])
    against = {
        f"against {reference}": {name: contrast(main[name], main[reference], len(others)) for name in others}
        for reference in ("P", BASE)
    }
    return {
        "family": family,
        "verdict": verdict(family),
        "clean": clean,
        "lost": lost,
        "equal clean": equal,
        "measures": {m: contrast(average(of["C"], m), average(of["P"], m), len(measures)) for m in measures},
        **against,
        **({"masking": {c: masking(rows) for c, rows in of.items()}} if "square" in measures else {}),
    }


def masking(of: Accuracies) -> dict[str, Content]:
    """Mean accuracies under both attacks at each strength, and whether that under PGD counts."""
    checks = {}
    for eps in EPS:
        white, black = (float(of[f"{name} {eps:g}"].mean()) for name in ("pgd", "square"))
        checks[f"{eps:g}"] = {"pgd": white, "square": black, "counts": white < black}
    return checks


def overall(verdicts: list[str]) -> str:
    """The word of the plan for the claim, from the verdicts of all arms."""
    if all(word in ("chaos helps", "the pull helps") for word in verdicts):
        return "confirmed"
    return "refuted" if all(word in ("nothing", "harm") for word in verdicts) else "not decided"


# --- text ---------------------------------------------------------------------------------------------------------


def write(folder: pathlib.Path, content: Content) -> None:
    """Write ``robustness.json`` with its analysis, ``table.md``, and the pictures, all of finished arms."""
    arms = finished(content)
    if not arms:
        return
    for arm in arms.values():
        arm["analysis"] = analyse(arm)
    content["verdict"] = overall([arm["analysis"]["verdict"] for arm in arms.values()])
    study.write(folder, "robustness", content, page(content))
    study.save_figure(draw(arms), folder, "robustness")
    for name, arm in arms.items():
        file = folder / f"{name.replace(', ', '_').replace(' ', '_')}.png"
        seeds = len(arm["nets"]["P"])
        plots_robustness.draw(file, panels(arm), f"{name}: mean over {seeds} seeds, 95 %")


def finished(content: Content) -> dict[str, Content]:
    """The arms in which all conditions have nets of the same seeds."""
    return {
        name: arm
        for name, arm in content["arms"].items()
        if all(arm["nets"].get(condition, {}).keys() == arm["nets"]["P"].keys() for condition in CONDITIONS)
    }


def page(content: Content) -> str:
    """The tables of all finished arms."""
    arms = finished(content)
    return "\n\n".join(map(arm_text, arms, arms.values()))


def arm_text(name: str, arm: Content) -> str:
    """The tables of an arm."""
    analysis = arm["analysis"]
    family = [
        [
            pair,
            *contrast_cells(result),
            interval_text(analysis["clean"][pair]),
            interval_text(analysis["lost"][pair]),
            *at_equal_cells(analysis["equal clean"][pair]),
        ]
        for pair, result in analysis["family"].items()
    ]
    head = ["contrast", "corrupted, 95 % (points)", "SD", "p, Holm", "p, Wilcoxon", "p, equivalence", "clean"]
    head += ["lost by corruption", "at equal clean accuracy", "slope", "p, equivalence there"]
    of = {condition: accuracies(arm, condition) for condition in arm["nets"]}
    conditions = [
        [
            f"{condition}, {TITLES[condition]}",
            mean_text(rows["clean"], ".2f"),
            mean_text(primary(rows), ".2f"),
            interval_text(analysis["against P"].get(condition)),
            interval_text(analysis["against base"].get(condition)),
            *(f"{average(rows, measure).mean():.1f}" for measure in measured(arm["columns"])),
        ]
        for condition, rows in of.items()
    ]
    measures = [
        [LABELS.get(measure, measure), interval_text(result), str(result["n"])]
        for measure, result in analysis["measures"].items()
    ]
    against = ["minus P, simultaneous 95 %", "not planned: minus P at their rate and width"]
    names = [LABELS.get(measure, measure) for measure in analysis["measures"]]
    return "\n\n".join(
        [
            f"### {name}",
            f"{sizes_text(arm, of['P'])}. Nets that do not classify as many clean test pictures as their runs in the "
            f"study of generalisation: {', '.join(f'{name} {number}' for name, number in arm['differing'].items())}.",
            study.table(head, family),
            f"Verdict: **{analysis['verdict']}**.",
            study.table(["C-P", "simultaneous 95 % (points)", "seeds"], measures),
            "Mean accuracies (%):",
            study.table(["condition", "clean", "corrupted", *against, *names], conditions),
            *attacks_texts(analysis),
        ]
    )


def at_equal_cells(result: Content | None) -> list[str]:
    """A result of :func:`at_equal` as cells: interval, slope and p; empty without a regression."""
    return [interval_text(result), f"{result['slope']:.2f}", f"{result['tost']:.2g}"] if result else [""] * 3


def sizes_text(arm: Content, of: Accuracies) -> str:
    """The numbers of seeds and pictures, and of those that are attacked."""
    text = f"{len(of['clean'])} seeds, {arm['columns']['clean']} pictures"
    attack = f"square {EPS[0]:g}"
    if attack not in arm["columns"]:
        return text.replace("pictures", "recordings, not attacked")
    return f"{text}; attacks: {len(of[attack])} seeds, {arm['columns'][attack]} pictures"


def attacks_texts(analysis: Content) -> list[str]:
    """The table of attacks, if the nets were attacked."""
    if "masking" not in analysis:
        return []
    attacks = [
        [f"{condition}, {TITLES[condition]}", *map(attack_text, checks.values())]
        for condition, checks in analysis["masking"].items()
    ]
    head = ["condition", *(f"{eps:g}/255" for eps in EPS)]
    return ["Under PGD, the worst of three surrogates, and under the square attack (%):", study.table(head, attacks)]


def attack_text(check: Mapping[str, Any]) -> str:
    """``PGD; square``, the accuracies under both attacks, the former only where it counts."""
    return f"{check['pgd']:.1f}; {check['square']:.1f}" if check["counts"] else f"does not count; {check['square']:.1f}"


# --- pictures -----------------------------------------------------------------------------------------------------


def draw(arms: Mapping[str, Content]) -> Any:
    """Draw C-P: primary outcome, at equal clean accuracy, clean, and each measure; one panel an arm."""
    measures = [m for m in MEASURES if any(m in arm["analysis"]["measures"] for arm in arms.values())]
    figure = empty_figure(3.6 * len(arms) + 1, 0.9 + 0.25 * (3 + len(measures)))
    axes = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    for axis, (title, arm) in zip(axes, arms.items(), strict=True):
        analysis = arm["analysis"]
        rows = [
            ("mean over corruptions", analysis["family"]["C-P"], PALETTE[0]),
            ("... at equal clean accuracy", analysis["equal clean"]["C-P"], PALETTE[0]),
            ("clean", analysis["clean"]["C-P"], PALETTE[2]),
            *((LABELS.get(m, m).replace("_", " "), analysis["measures"].get(m), PALETTE[1]) for m in measures),
        ]
        for height, (_, result, colour) in enumerate(rows):
            if result:
                axis.plot([result["low"], result["high"]], [height] * 2, color=colour)
                axis.plot(result["mean"], height, "o", color=colour, markersize=4)
        axis.axvspan(-MARGIN, MARGIN, color="0.9", zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.axhline(2.5, color="0.8", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("CSBP minus plain (points)")
    axes[0].invert_yaxis()
    return figure


def panels(arm: Content) -> list[plots_robustness.Panel]:
    """Accuracies over the severities of each perturbation."""
    of = {condition: accuracies(arm, condition) for condition in arm["nets"]}
    drawn = []
    for name, perturbation in battery.PERTURBATIONS.items():
        columns = [f"{name} {severity:g}" for severity in perturbation.severities]
        if columns[0] not in arm["columns"]:
            continue
        lines = {
            TITLES[condition]: [student_of_shares((rows[column] / 100).tolist()) for column in ("clean", *columns)]
            for condition, rows in of.items()
        }
        ticks = ["clean", *(f"{severity:g}" for severity in perturbation.severities)]
        drawn.append(plots_robustness.Panel(name, perturbation.unit, ticks, lines))
    return drawn
