"""Plot of an evaluation: confusion matrix, accuracy over time steps, calibration."""

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from csbp_jax.reporting.plots import PALETTE, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(run: pathlib.Path, result: dict[str, Any]) -> None:
    """Draw ``figures/evaluation-SPLIT-WEIGHTS.png`` from the result of ``evaluate.evaluate_run``."""
    figure = empty_figure(12, 4)
    confusion, by_time, calibration = figure.subplots(1, 3)
    _confusion(figure, confusion, result)
    steps = range(1, 1 + len(result["accuracy_by_time"]))
    by_time.plot(steps, [100 * a for a in result["accuracy_by_time"]], ".-", color=PALETTE[0])
    by_time.set(xlabel="time steps used", ylabel="accuracy (%)", title="Accuracy by time")
    by_time.locator_params(axis="x", integer=True)
    _calibration(calibration, result)
    figure.suptitle(f"{result['run']}: {result['split']}, {result['count']} examples")
    (run / "figures").mkdir(exist_ok=True)
    figure.savefig(run / "figures" / f"evaluation-{result['split']}-{result['weights_of']}.png", dpi=100)


def _confusion(figure: "Figure", axes: "Axes", result: dict[str, Any]) -> None:
    counts = np.array(result["confusion"], float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=100), ax=axes, label="share of the true class (%)")
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion, accuracy {result['accuracy']:.2%}")
    names = [row["class"] for row in result["per_class"]]
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 12:
        for i, j in np.argwhere(counts > 0):
            color = "white" if shares[i, j] > 50 else "black"
            axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=color, fontsize="x-small")


def _calibration(axes: "Axes", result: dict[str, Any]) -> None:
    bins = [row for row in result["calibration"] if row["count"]]
    axes.plot([0, 100], [0, 100], ":", color="grey", label="calibrated")
    confidence, accuracy = ([100 * row[key] for row in bins] for key in ("confidence", "accuracy"))
    axes.plot(confidence, accuracy, "-", color=PALETTE[1], lw=1)
    largest = max(row["count"] for row in bins)
    sizes = [10 + 90 * row["count"] / largest for row in bins]
    axes.scatter(confidence, accuracy, sizes, color=PALETTE[1], label="bin (area: number of examples)")
    title = f"Calibration, ECE {result['ece']:.2%}"
    axes.set(xlabel="mean confidence (%)", ylabel="accuracy (%)", title=title, xlim=(0, 102), ylim=(0, 102))
    axes.legend(fontsize="small")
