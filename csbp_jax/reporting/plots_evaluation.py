"""Plot of an evaluation: confusion, accuracy over time steps and calibration; or F1 of labels; or values."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting import fonts, plots
from csbp_jax.reporting.plots import PALETTE, PERCENT
from csbp_jax.reporting.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_NAMES = 20
_MAX_PANELS, _MAX_POINTS = 12, 2000


@fonts.with_default_settings()
def draw_numbers(run: pathlib.Path, result: dict[str, Any], outcomes: dict[str, Any]) -> None:
    """Draw ``figures/evaluation-SPLIT-WEIGHTS.png`` of a run whose targets are labels or values.

    Args:
      run: its folder.
      result: of ``evaluate.evaluate_run``.
      outcomes: of ``forward.numbers`` of all examples.
    """
    name = f"evaluation-{result['split']}-{result['weights_of']}.png"
    rows = result.get("per_label", result.get("per_value", []))[:_MAX_PANELS]
    first = f"the first {len(rows)} of " * (len(rows) < outcomes["target"].shape[-1])
    if "per_label" in result:
        figure, (axes,) = plots.panels(1, 5, 3.6)
        positions = np.arange(len(rows))
        for number, (key, label) in enumerate((("f1", "F1"), ("precision", "precision"), ("recall", "recall"))):
            heights = [100 * (row[key] or 0) for row in rows]
            axes.bar(positions + 0.27 * (number - 1), heights, 0.27, color=PALETTE[number], label=label)
        axes.set_xticks(positions, fonts.class_labels([row["label"] for row in rows]), rotation=30, ha="right")
        axes.set(ylabel="F1, precision, recall (%)", title=f"F1 {result['f1']:.2%}", ylim=PERCENT)
        axes.legend(fontsize="small")
        caption = (
            f"{_start(result)}. F1, precision and recall of {first}the labels, predicted at a probability above 1/2."
        )
    else:
        figure, all_axes = plots.panels(len(rows), 3.6, 3.6)
        valid = outcomes.get("valid", np.ones(outcomes["target"].shape[:1], bool))
        points = np.stack([outcomes["target"][valid], outcomes["output"][valid]])
        chosen = np.linspace(0, points.shape[1] - 1, min(points.shape[1], _MAX_POINTS)).round().astype(int)
        for k, (axes, row) in enumerate(zip(all_axes, rows, strict=True)):
            target, output = points[:, chosen, k]
            ends = [min(target.min(), output.min()), max(target.max(), output.max())]
            axes.plot(ends, ends, ":", color="grey")
            axes.plot(target, output, ".", color=PALETTE[0], alpha=0.5, ms=4)
            r2 = "" if row["r2"] is None else f", R2 {row['r2']:.3g}"
            axes.set(xlabel="target", ylabel="output", title=fonts.printable(row["value"] + r2))
        some = f"; {len(chosen)} of {points.shape[1]} points at even distances" * (len(chosen) < points.shape[1])
        caption = f"{_start(result)}. Outputs over targets of {first}the values{some}; dotted: equal."
    plots.save(figure, run / "figures" / name, caption)


@fonts.with_default_settings()
def draw(run: pathlib.Path, result: dict[str, Any]) -> None:
    """Draw ``figures/evaluation-SPLIT-WEIGHTS.png`` from the result of ``evaluate.evaluate_run``."""
    name = f"evaluation-{result['split']}-{result['weights_of']}.png"
    plots.save(make_figure(result), run / "figures" / name, _caption(result))


def _caption(result: dict[str, Any]) -> str:
    names = [row["class"] for row in result["per_class"]]
    numbered = [f"#{i} {name}" for i, name in enumerate(names) if not name.isascii()]
    steps = len(result["accuracy_by_time"])
    if "steps" in result:
        counted, middle = "time steps", "accuracy at each time step, on the examples that have it"
        bars = "Bars are 95 % Wilson intervals; on the right as if time steps were independent."
    else:
        counted, middle = "examples", f"accuracy of the logits averaged over the first 1 to {steps} time steps, all on"
        middle, bars = f"{middle} the same examples", "Bars are 95 % Wilson intervals."
    return (
        f"{_start(result)}. Left: confusion matrix; numbers are {counted}. Middle: {middle}. Right: accuracy over mean "
        f"confidence, in bins of confidence. {bars}" + (f" Classes: {', '.join(numbered)}." if numbered else "")
    )


def _start(result: dict[str, Any]) -> str:
    kind = result["weights_of"]
    weights = "moving average of the weights" if kind == "ema" else f"weights of the {kind} epoch"
    return f"Evaluation on {result['count']} examples of the {result['split']} split, {weights} ({result['epoch']})"


def make_figure(result: dict[str, Any]) -> "Figure":
    """Return the figure of an evaluation: confusion matrix, accuracy by time with Wilson intervals, calibration."""
    classes = fonts.class_labels([row["class"] for row in result["per_class"]])
    # Long names are upright below the confusion matrix.
    height = 4 + 0.08 * max(map(len, classes)) * (len(classes) <= _MAX_NAMES)
    figure, (confusion, by_time, calibration) = plots.panels(3, 4.3, height)
    _confusion(figure, confusion, result, classes)
    _accuracy_by_time(by_time, result)
    _calibration(calibration, result)
    figure.suptitle(
        fonts.printable(f"{result['run']}: {result['count']} examples of the {result['split']} split"), wrap=True
    )
    return figure


def _confusion(figure: "Figure", axes: "Axes", result: dict[str, Any], names: Sequence[str]) -> None:
    counts = np.array(result["confusion"], float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the true class (%)")
    axes.set(xlabel="predicted class", ylabel="true class", title=f"Confusion, accuracy {result['accuracy']:.2%}")
    if len(names) <= _MAX_NAMES:
        longest = max(map(len, names))
        size = "medium" if longest < 10 else "small"
        axes.set_xticks(range(len(names)), names, rotation=90 if longest > 2 else 0, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        if any(name.startswith("#") for name in names):
            axes.set_xlabel("predicted class (#: its number, from 0,\nwhere no installed font can draw its name)")
    if len(names) <= 12:
        for i, j in np.argwhere(counts > 0):
            color = "white" if shares[i, j] > 50 else "black"
            axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", color=color, fontsize="x-small")


def _accuracy_by_time(axes: "Axes", result: dict[str, Any]) -> None:
    accuracy = np.array(result["accuracy_by_time"])
    steps = np.arange(1, 1 + len(accuracy))
    counts = result.get("count_by_time", [result["count"]] * len(accuracy))
    errors, label = _errors(accuracy, counts), "accuracy, 95 % interval (Wilson)"
    axes.errorbar(steps, 100 * accuracy, errors, fmt=".-", capsize=3, color=PALETTE[0], label=label)
    largest = max(row["count"] for row in result["per_class"]) / result.get("steps", result["count"])
    axes.axhline(100 * largest, ls=":", color="grey", label="always the most frequent class")
    if len(steps) <= 10:
        for step, share, below in zip(steps.tolist(), accuracy, errors[0], strict=True):
            axes.text(step, 100 * share - below - 1, f"{share:.1%}", ha="center", va="top", fontsize="small")
    axes.set(
        xlabel="time step" if "steps" in result else "time steps used",
        ylabel="accuracy (%)",
        title="Accuracy by time",
        xlim=(0.5, len(steps) + 0.5),
        ylim=PERCENT,
    )
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small")


def _calibration(axes: "Axes", result: dict[str, Any]) -> None:
    bins = [row for row in result["calibration"] if row["count"]]
    axes.plot([0, 100], [0, 100], ":", color="grey", label="calibrated")
    confidence, accuracy = (np.array([row[key] for row in bins]) for key in ("confidence", "accuracy"))
    counts = [row["count"] for row in bins]
    sizes = [10 + 90 * count / max(counts) for count in counts]
    axes.errorbar(100 * confidence, 100 * accuracy, _errors(accuracy, counts), fmt="none", lw=1, color=PALETTE[1])
    label = "bin, 95 % interval\n(area: examples)"
    axes.scatter(100 * confidence, 100 * accuracy, sizes, color=PALETTE[1], label=label)
    axes.set(
        xlabel="mean confidence (%)",
        ylabel="accuracy (%)",
        title=f"Calibration, ECE {result['ece']:.2%}",
        xlim=PERCENT,
        ylim=PERCENT,
    )
    axes.legend(fontsize="small")


def _errors(shares: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    """Return the lengths of error bars in %, ``[2, shares]``, to both ends of the Wilson intervals of shares."""
    ends = [wilson(round(share * count), count) for share, count in zip(shares, counts, strict=True)]
    low, high = np.array(ends).T
    return 100 * np.maximum([shares - low, high - shares], 0)
