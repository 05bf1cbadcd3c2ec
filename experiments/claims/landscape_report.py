"""Contrasts, verdicts and tables of the study of minima, from its stored numbers."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.intervals import student, tost
from experiments import study
from experiments.claims.loss_reached import CONDITIONS
from experiments.claims.settings import NAMES
from experiments.statistics import holm, kendall, mean_text, paired_t
from experiments.study import Content

MARGIN = 0.1
"""Of equivalence, of a difference of logarithms."""
PRIMARY_SIZE, SLOPE_SIZES = 0.05, (0.01, 0.1)
SAME_BASIN = 0.01 * np.log(10)
SHARPNESS = ("C-P", "C-B", "C-D")
BARRIERS = (("B-C'", "B-B'"), ("P-C'", "P-P'"), ("C-C'", "B-B'"), ("C-C'", "D-D'"))
LOSSES = ("C-P", "C-D", "C-S")
LABELS = NAMES | {"B": "plain, at C's rate and width", "S0": "10 sub-steps, charged 1"}


def column(of_seeds: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """A number over seeds, in their order, ``[seeds, ...]``."""
    return np.array([of_seeds[seed][name] for seed in sorted(of_seeds, key=int)], float)


def contrast(values: NDArray[Any], reference: NDArray[Any], margin: float | None = None) -> Content:
    """Mean paired difference with its 95 % interval, SD, p of the paired t test, and p of equivalence."""
    differences = values - reference
    result = student(differences.tolist())._asdict()
    result |= {"sd": float(np.std(differences, ddof=1)), "n": len(differences), "p": paired_t(values, reference)}
    return result | ({"tost": tost(differences.tolist(), margin)} if margin else {})


def with_holm(family: Mapping[str, Content]) -> dict[str, Content]:
    """The family with Holm's correction of its p."""
    corrected = holm({name: pair["p"] for name, pair in family.items()})
    return {name: pair | {"holm": corrected[name]} for name, pair in family.items()}


def word(pair: Mapping[str, float], lower: str, higher: str) -> str:
    """``lower`` or ``higher`` by Holm, also where the difference is within the margin; "equal" by TOST, or neither."""
    small = " (within the margin)" if pair.get("tost", 1.0) < 0.05 else ""
    if pair["holm"] < 0.05:
        return (lower if pair["mean"] < 0 else higher) + small
    return "equal" if small else "not decided"


# --- sharpness ----------------------------------------------------------------------------------------------------


def analyse_sharpness(stored: Content, sizes: Sequence[float]) -> Content:
    """Contrasts of an arm's rises, and their correlations over seeds with the gap, the accuracy and the loss."""
    at, ends = sizes.index(PRIMARY_SIZE), [sizes.index(size) for size in SLOPE_SIZES]
    rises = {name: column(nets, "rises") for name, nets in stored["nets"].items()}
    worst = {name: column(nets, "worst") for name, nets in stored["nets"].items()}
    logs = all((values[:, at] > 0).all() for values in rises.values())
    margin = MARGIN if logs else MARGIN * float(rises["B"][:, at].mean())

    def compare(pair: str, values: Mapping[str, NDArray[Any]], logs: bool, margin: float | None) -> Content:
        first, second = pair.split("-")
        a, b = values[first], values[second]
        return contrast(np.log(a), np.log(b), margin) if logs else contrast(a, b, margin)

    primary = {name: values[:, at] for name, values in rises.items()}
    positive = all((values > 0).all() for values in worst.values())
    result = {
        "log": logs,
        "family": with_holm({pair: compare(pair, primary, logs, margin) for pair in SHARPNESS}),
        "beside": {pair: compare(pair, primary, logs, margin) for pair in ("S-B", "SAM-B")},
        "worst log": positive,
        "worst": {pair: compare(pair, worst, positive, None) for pair in (*SHARPNESS, "S-B", "SAM-B")},
        "at 10 %": {
            pair: compare(pair, {name: values[:, -1] for name, values in rises.items()}, False, None)
            for pair in (*SHARPNESS, "S-B", "SAM-B")
        },
        "slopes": {name: slope(*values.mean(axis=0)[ends]) for name, values in rises.items()},
    }
    result["correlations"] = {"mean rise": correlations(stored, primary), "worst rise": correlations(stored, worst)}
    return result


def slope(low: float, high: float) -> float | None:
    """Slope of log rise over log size between both sizes; None where a mean rise is not positive."""
    return float(np.log(high / low) / np.log(SLOPE_SIZES[1] / SLOPE_SIZES[0])) if min(low, high) > 0 else None


def gap(stored: Content, condition: str) -> NDArray[np.float64]:
    """Training accuracy minus the one expected on test pictures with as many wrong labels, over seeds."""
    nets, wrong = stored["nets"][condition], stored["wrong"]
    test = column(nets, "test")
    difference: NDArray[np.float64] = column(nets, "train") - ((1 - wrong) * test + wrong * (1 - test) / 9)
    return difference


def correlations(stored: Content, sharpness: Mapping[str, NDArray[Any]]) -> Content:
    """``{with: {condition: {tau, p, holm}}}`` of a sharpness with the gap, test accuracy and training loss."""
    others = {
        "gap": {name: gap(stored, name) for name in sharpness},
        "test accuracy": {name: column(stored["nets"][name], "test") for name in sharpness},
        "training loss": {name: column(stored["nets"][name], "loss") for name in sharpness},
    }
    return {
        other: with_holm({name: kendall(sharpness[name], values[name]) for name in sharpness})
        for other, values in others.items()
    }


def explains(analysis: Content, stored: Content) -> str:
    """Whether C's sharpness goes with its accuracy, between conditions and within them."""
    pair, taus = analysis["family"]["C-P"], analysis["correlations"]["mean rise"]["gap"]
    accuracy = column(stored["nets"]["C"], "test").mean() - column(stored["nets"]["P"], "test").mean()
    between = pair["holm"] < 0.05 and pair["mean"] * accuracy < 0
    within = all(taus[name]["holm"] < 0.05 and taus[name]["tau"] > 0 for name in ("P", "C"))
    return "explains the difference" if between and within else "explains nothing"


def sharpness_text(name: str, stored: Content, analysis: Content, sizes: Sequence[float]) -> str:
    """Tables and verdict of an arm's sharpness."""
    head = ["condition", "training loss", *(f"rise at {100 * size:g} %" for size in sizes), "slope", "worst rise"]
    head += ["training (%)", "test (%)", "gap (points)"]
    rows = []
    for condition, nets in stored["nets"].items():
        rises = column(nets, "rises")
        rows.append(
            [
                f"{condition}, {LABELS[condition]}",
                mean_text(column(nets, "loss"), ".3g"),
                *(f"{value:.2g}" for value in rises.mean(axis=0)),
                "" if analysis["slopes"][condition] is None else f"{analysis['slopes'][condition]:.2f}",
                mean_text(column(nets, "worst"), ".3g"),
                f"{100 * column(nets, 'train').mean():.1f}",
                mean_text(100 * column(nets, "test"), ".2f"),
                mean_text(100 * gap(stored, condition), ".2f"),
            ]
        )
    contrasts = []
    for pair, result in (analysis["family"] | analysis["beside"]).items():
        corrected = f"{result['holm']:.2g}" if "holm" in result else ""
        texts = [change_text(result, analysis["log"]), corrected, f"{result['tost']:.2g}"]
        texts += [change_text(analysis["worst"][pair], analysis["worst log"])]
        contrasts.append([pair, *texts, change_text(analysis["at 10 %"][pair], False)])
    change = ["contrast", "mean rise at 5 %, 95 %", "p, Holm", "p, equivalence", "worst rise, 95 %"]
    change.append("not planned: mean rise at 10 %, 95 %")
    taus = [
        [f"{kind}, {other}", *(tau_text(value) for value in by_condition.values())]
        for kind, by_other in analysis["correlations"].items()
        for other, by_condition in by_other.items()
    ]
    family = analysis["family"]
    words = [f"{pair} {word(family[pair], 'flatter', 'sharper')}" for pair in SHARPNESS]
    verdict = f"Verdict: **{'; '.join(words)}; sharpness {explains(analysis, stored)}**."
    count = len(stored["nets"]["P"])
    largest, mean = (100 * stored["differs"][name] for name in ("largest", "mean"))
    differs = f"Test accuracies differ from those stored by at most {largest:.2g} points, in the mean by {mean:+.2f}."
    return "\n\n".join(
        [
            f"### Sharpness: {name}, {count} seeds",
            study.table(head, rows),
            study.table(change, contrasts),
            f"{verdict} {differs}",
            "Kendall's tau over seeds (p by permutation, Holm over conditions):",
            study.table(["of, with", *stored["nets"]], taus),
        ]
    )


def change_text(result: Mapping[str, float], logs: bool) -> str:
    """A difference with its interval, or the ratio that a difference of logarithms is."""
    numbers = [result["mean"], result["low"], result["high"]]
    mean, low, high = (f"{np.exp(v):.3g}" if logs else f"{v:+.3g}" for v in numbers)
    return f"{mean} [{low}, {high}]{' times' if logs else ''}"


def tau_text(value: Mapping[str, float]) -> str:
    """``tau (p)``."""
    return f"{value['tau']:+.2f} ({value['holm']:.2g})"


# --- barriers -----------------------------------------------------------------------------------------------------


def analyse_barriers(stored: Content) -> Content:
    """Contrasts of an arm's barriers, and of the training loss at the ends."""
    barriers = {pair: column(of_seeds, "barrier") for pair, of_seeds in stored["pairs"].items()}
    family = {f"({a}) - ({b})": contrast(barriers[a], barriers[b]) for a, b in BARRIERS}
    logs = {name: np.log(column(stored["nets"][name], "loss")) for name in ("P", "B", "C")}
    return {
        "means": {pair: student(values.tolist())._asdict() for pair, values in barriers.items()},
        "family": with_holm(family),
        "deeper": {f"C-{other}": contrast(logs["C"], logs[other]) for other in ("P", "B")},
    }


def basin_verdict(analysis: Content) -> str:
    """The word of the plan for an arm's barriers."""
    excess = analysis["family"]["(B-C') - (B-B')"]
    if excess["holm"] < 0.05 and excess["mean"] > 0:
        return "another basin"
    if analysis["means"]["B-C'"]["high"] < SAME_BASIN:
        return "the same basin"
    if analysis["means"]["B-B'"]["low"] > SAME_BASIN:
        return "another basin, but no more than other batches do"
    return "not decided"


def barriers_text(name: str, stored: Content, analysis: Content) -> str:
    """Tables and verdict of an arm's barriers."""
    names = ("barrier", "unmatched", "distance")
    rows = [
        [pair, *(mean_text(column(of_seeds, name), ".3g") for name in names)]
        for pair, of_seeds in stored["pairs"].items()
    ]
    contrasts = [
        [pair, f"{r['mean']:+.3g} [{r['low']:+.3g}, {r['high']:+.3g}]", f"{r['holm']:.2g}"]
        for pair, r in analysis["family"].items()
    ]
    deeper = ", ".join(f"{pair} {change_text(r, True)}" for pair, r in analysis["deeper"].items())
    return "\n\n".join(
        [
            f"### Barriers: {name}, {len(stored['pairs'][BARRIERS[0][0]])} seeds",
            study.table(["pair", "barrier, 95 % (nats)", "without matching", "distance"], rows),
            study.table(["contrast", "difference, 95 % (nats)", "p, Holm"], contrasts),
            f"Verdict: **{basin_verdict(analysis)}**. Training loss at the ends: {deeper}.",
        ]
    )


# --- loss reached -------------------------------------------------------------------------------------------------


def log_losses(result: Content) -> NDArray[np.float64]:
    """The log loss of a condition's test seeds, in their order."""
    return np.array([result["test"][seed] for seed in sorted(result["test"], key=int)], float)


def analyse_losses(stored: Content) -> Content:
    """Contrasts of an arm's log loss, and its verdict."""
    values = {name: log_losses(result) for name, result in stored["conditions"].items()}

    def compare(pair: str) -> Content:
        first, second = pair.split("-")
        return contrast(values[first], values[second], MARGIN)

    family = with_holm({pair: compare(pair) for pair in LOSSES})
    beside = {pair: compare(pair) for pair in ("C-S0", "D-P")}
    return {"family": family, "beside": beside, "verdict": loss_verdict(family, beside)}


def loss_verdict(family: Mapping[str, Content], beside: Mapping[str, Content]) -> str:
    """The word of the plan for an arm's loss."""

    def below(pair: str) -> bool:
        return family[pair]["holm"] < 0.05 and family[pair]["mean"] < 0

    if below("C-P"):
        if below("C-D") and beside["C-S0"]["high"] < 0:
            return "deeper, by chaos"
        return "deeper, by its pull" if family["C-D"]["tost"] < 0.05 else "deeper"
    if family["C-P"]["tost"] < 0.05:
        return "nothing"
    return "less deep" if family["C-P"]["holm"] < 0.05 else "not decided"


def losses_text(name: str, stored: Content, analysis: Content, settings: Sequence[Content]) -> str:
    """Tables and verdict of an arm's training loss."""
    rows = []
    for condition, result in stored["conditions"].items():
        setting = settings[result["chosen"]]
        used = ("lr", "width") if condition == "P" else ("lr", "width", "flips", "left")
        seconds = result["seconds"] / stored["conditions"]["P"]["seconds"]
        tried = [np.mean(list(values.values())) for values in result["tuning"].values() if None not in values.values()]
        rows.append(
            [
                f"{condition}, {LABELS[condition]}",
                ", ".join(f"{name} {setting[name]:.3g}" for name in used),
                mean_text(log_losses(result), ".3f"),
                f"{np.exp(log_losses(result).mean()):.3f}",
                f"{min(tried):.3f}",
                f"{seconds:.2f}",
            ]
        )
    contrasts = [
        [
            pair,
            f"{r['mean']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]",
            f"{r['sd']:.2f}",
            f"{r['holm']:.2g}" if "holm" in r else "",
            f"{r['tost']:.2g}",
        ]
        for pair, r in (analysis["family"] | analysis["beside"]).items()
    ]
    head = ["condition", "chosen setting", "log loss, 95 %", "loss (geometric mean)", "log loss, tuning"]
    return "\n\n".join(
        [
            f"### Training loss: {name}, {len(stored['conditions']['P']['test'])} seeds",
            study.table([*head, "CPU time of a run, over P's"], rows),
            study.table(["contrast", "difference of log loss, 95 %", "SD", "p, Holm", "p, equivalence"], contrasts),
            f"Verdict: **{analysis['verdict']}**.",
        ]
    )


# --- the page of tables -------------------------------------------------------------------------------------------


def complete(stored: Content, conditions: int) -> bool:
    """Whether part 3 of an arm has the test runs of all conditions, as many of each."""
    counts = {len(result["test"]) for result in stored.get("conditions", {}).values()}
    return len(stored.get("conditions", {})) == conditions and len(counts) == 1 and counts != {0}


def analyse(content: Content) -> None:
    """Store the analysis of every arm that has results."""
    for stored in content["arms"].values():
        if stored["nets"]:
            sharpness = analyse_sharpness(stored, content["sizes"])
            stored["analysis"] = {"sharpness": sharpness, "barriers": analyse_barriers(stored)}
    for stored in content["losses"].values():
        if complete(stored, len(CONDITIONS)):
            stored["analysis"] = analyse_losses(stored)


def page(content: Content) -> str:
    """The tables of all arms that are analysed."""
    texts = []
    for name, stored in content["arms"].items():
        if "analysis" in stored:
            texts.append(sharpness_text(name, stored, stored["analysis"]["sharpness"], content["sizes"]))
            texts.append(barriers_text(name, stored, stored["analysis"]["barriers"]))
    for name, stored in content["losses"].items():
        if "analysis" in stored:
            texts.append(losses_text(name, stored, stored["analysis"], content["settings"]))
    return "\n\n".join(texts)


def write(folder: pathlib.Path, content: Content) -> None:
    """Write ``landscape.json`` with its analysis, and ``table.md``."""
    analyse(content)
    study.write(folder, "landscape", content, page(content))
