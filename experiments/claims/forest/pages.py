"""Table and forest plot of the study, from its stored runs."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.claims.forest import analysis
from experiments.claims.forest.methods import DATA_SETS, METHODS
from experiments.claims.report import interval_text
from experiments.statistics import mean_text
from experiments.study import Content


def accuracies(cell: Mapping[str, Any], seeds: list[int]) -> dict[str, NDArray[np.float64]] | None:
    """Test accuracies of a method in percent, ``{condition: [seeds]}``; None before all are there."""
    results = {}
    for condition in ("P", "C", "D"):
        runs = cell["runs"].get(condition, {}).get(cell.get("chosen", {}).get(condition), {})
        scores = [runs[str(seed)]["test"] for seed in seeds if "test" in runs.get(str(seed), {})]
        if len(scores) < len(seeds):
            return None
        results[condition] = 100 * np.array(scores)
    return results


def analyse(content: Content) -> dict[str, Content]:
    """Analyse the data sets that have all their runs, ``{name: analysis}``, and store it and the verdict."""
    analysed = {}
    for name, data_set in content["data"].items():
        results = {method: accuracies(cell, cell["seeds"]) for method, cell in data_set["cells"].items()}
        complete = {method: values for method, values in results.items() if values is not None}
        if len(complete) == len(METHODS):
            data_set["analysis"] = analysed[name] = analysis.analyse(complete)
    words = [analysed[name]["any method"] if name in analysed else "not decided" for name in DATA_SETS]
    content["verdict"] = analysis.overall(words)
    return analysed


def page(content: Mapping[str, Any]) -> str:
    """The tables of all analysed data sets, and the verdict."""
    texts = [data_set_text(name, values) for name, values in content["data"].items() if "analysis" in values]
    return "\n\n".join(
        [*texts, f"The plan's rule for every method, over the data sets: **{study.rule(content['verdict'])}**."]
    )


def write(folder: pathlib.Path, content: Content) -> None:
    """Write ``forest.json`` with its analysis, ``table.md`` and ``forest.png``, once a data set is complete."""
    analysed = analyse(content)
    if analysed:
        study.write(folder, "forest", content, page(content))
        draw(folder, analysed)


def data_set_text(name: str, data_set: Mapping[str, Any]) -> str:
    """The table of a data set, and its verdicts."""
    result, rows, means = data_set["analysis"], [], []
    for method, contrasts in result["methods"].items():
        cell = data_set["cells"][method]
        accuracy = accuracies(cell, cell["seeds"])
        assert accuracy is not None
        means.append([accuracy[condition].mean() for condition in "PCD"])
        rows.append(
            [
                METHODS[method].title,
                *[mean_text(accuracy[condition], ".2f") for condition in "PCD"],
                *[interval_text(contrasts[pair]) for pair in analysis.CONTRASTS],
                f"{contrasts['C-P']['holm']:.2g}",
                ", ".join(cell["chosen"][condition] for condition in "PCD") + f" ({cell['base']})",
                f"{1 / cell['unit']:.3g}",
            ]
        )
    pairs = result["pooled"]
    averages = [f"{value:.2f}" for value in np.mean(means, axis=0)]
    rows.append(["**pooled**", *averages, *[interval_text(pairs[pair]) for pair in analysis.CONTRASTS], "", "", ""])
    head = ["method", "P (%)", "C (%)", "D (%)", "C - P", "C - D", "D - P", "p of C - P, Holm over methods"]
    table = study.table([*head, "chosen: P's rate, C's and D's flips (their rate)", "z of a flip"], rows)
    head = ["pooled", "effect, 95 %", "methods random, 95 %", "SD", "p", "p, equal", "interaction", "SD over methods"]
    model = study.table(
        [*head, "not planned: by precision"],
        [
            [
                pair,
                interval_text(values),
                f"[{values['random_low']:+.2f}, {values['random_high']:+.2f}]",
                f"{values['sd']:.2f}",
                f"{values['p']:.2g}",
                f"{values['tost']:.2g}",
                f"F = {values['F']:.2f}, p = {values['p_interaction']:.2g}",
                f"{values['tau']:.2f}",
                interval_text(values["weighted"]),
            ]
            for pair, values in pairs.items()
        ],
    )
    rule = study.rule(result["any method"])
    words = f"Pooled: **{result['verdict']}**. The plan's rule for every method: **{rule}**."
    by_mean = sorted(result["without"].items(), key=lambda item: item[1]["mean"])
    ends = [f"{interval_text(effect)} (without {METHODS[out].title})" for out, effect in (by_mean[0], by_mean[-1])]
    without = f"Not planned: C - P pooled without one method, from {ends[0]} to {ends[1]}."
    return f"### {name}, {len(cell['seeds'])} seeds a method\n\n{table}\n\n{model}\n\n{words} {without}"


def draw(folder: pathlib.Path, analysed: Mapping[str, Content]) -> None:
    """Draw C-P and D-P of each method and pooled, one panel a data set."""
    figure = empty_figure(4.4 * len(analysed), 4.2)
    axes = np.atleast_1d(figure.subplots(1, len(analysed), sharey=True))
    for axis, (title, result) in zip(axes, analysed.items(), strict=True):
        rows = [*result["methods"].values(), result["pooled"]]
        for height, row in enumerate(rows):
            for shift, pair, colour, mark in ((-0.12, "C-P", PALETTE[0], "o"), (0.12, "D-P", PALETTE[1], "s")):
                last = height == len(rows) - 1
                axis.plot([row[pair]["low"], row[pair]["high"]], [height + shift] * 2, color=colour)
                label = {"C-P": "CSBP", "D-P": "drift"}[pair] if last else None
                size = 7 if last else 4
                marker = "D" if last else mark
                axis.plot(row[pair]["mean"], height + shift, marker, color=colour, markersize=size, label=label)
        axis.axvline(0, color="0.5", linewidth=0.8)
        axis.axvline(analysis.INFERIORITY, color="0.5", linewidth=0.8, linestyle=":")
        axis.axhline(len(rows) - 1.5, color="0.8", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [*[METHODS[method].title for method in result["methods"]], "pooled"])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("minus plain backpropagation (points)")
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8)
    study.save_figure(figure, folder, "forest")
