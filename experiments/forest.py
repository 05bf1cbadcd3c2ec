"""Draw all differences between CSBP and plain backpropagation, and the drift, into docs/results/reading/contrasts.png.

    python -m experiments.forest

The numbers are those of the studies' own files in docs/results.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.reporting import plots
from experiments import stage_a_page, study

OUT = study.RESULTS / "reading" / "contrasts.png"
COLUMNS = ("CSBP minus plain", "CSBP minus drift")
WIDEST = 6.0
"""Points at which the axis ends; an arrow stands for what is above."""
BLUE, GREY = plots.PALETTE[0], "0.4"
CAPTION = "differences of test accuracy between CSBP, plain backpropagation and the drift; 95 % intervals"
FEW = {
    "digits": ("few_labels/digits_cifar10", "digits"),
    "CIFAR-10, grey, 16x16": ("few_labels/digits_cifar10", "cifar10"),
    "digits as events": ("few_labels/events", "digits_events"),
    "spike times": ("few_labels/events", "spike_timing"),
    "MNIST": ("few_labels/mnist", "mnist"),
    "Fashion-MNIST": ("few_labels/mnist", "fashion_mnist"),
    "spoken digits": ("few_labels/speech", "fsdd"),
    "N-MNIST": ("few_labels/nmnist", "nmnist"),
    "digits, wrong labels": ("few_labels/digits_cifar10", "digits, wrong labels"),
    "MNIST, wrong labels": ("few_labels/mnist", "mnist, wrong labels"),
    "Fashion-MNIST, wrong labels": ("few_labels/mnist", "fashion_mnist, wrong labels"),
    "spoken digits, wrong labels": ("few_labels/speech", "fsdd, wrong labels"),
    "N-MNIST, wrong labels": ("few_labels/nmnist", "nmnist, wrong labels"),
}
"""Page and task of each label."""


class Interval(NamedTuple):
    """A difference and its interval, in points."""

    mean: float
    low: float
    high: float


class Row(NamedTuple):
    """A line of the figure; None where there is no such contrast. over_draws: the draw of settings counts as chance."""

    label: str
    plain: Interval | None = None
    drift: Interval | None = None
    over_draws: bool = False


def groups() -> dict[str, list[Row]]:
    """Return the rows of the figure, under the regimes that they were measured in."""
    return {
        "Deep, all labels, small and underfit": [deep()],
        "Spiking XOR": [best_of_tries(), stuck_points()],
        "Few labels": [few(label) for label in FEW],
        "Plugged into other methods, few labels": [
            plugged_in("nine methods, digits as events", "digits_events"),
            plugged_in("nine methods, CIFAR-10, 8x8", "cifar10"),
        ],
        "Small tasks, all labels": [
            preset("digits", "digits"),
            preset("digits as events", "digits_events"),
            preset("MNIST", "mnist"),
            folds(),
        ],
    }


def read(file: str) -> Any:
    """Return the content of a JSON file of docs/results."""
    return json.loads((study.RESULTS / file).read_text())


def read_few(folder: str) -> Any:
    """Return the runs and analyses of tasks with few labels whose settings were drawn once."""
    (file,) = (study.RESULTS / folder).glob("[ge]*.json")  # generalisation.json or events.json
    return json.loads(file.read_text())


def interval(of: Mapping[Any, float], scale: float = 1.0) -> Interval:
    """Return a difference and its 95 % interval in points; ``scale`` is 100 where they are shares.

    Where there is a ``half``, that is half the interval; ``low`` and ``high`` are then those of a test of equality.
    """
    mean = of["mean"] if "mean" in of else of["difference"]
    low, high = (mean - of["half"], mean + of["half"]) if "half" in of else (of["low"], of["high"])
    return Interval(scale * mean, scale * low, scale * high)


def deep() -> Row:
    """Return the contrasts over draws of a small deep network on all labels."""
    lines = (study.RESULTS / "stage_a" / "runs.jsonl").read_text().splitlines()
    table = stage_a_page.tested([json.loads(line) for line in lines], "test")
    contrast = table.contrast("CSBP", ["plain", "drift"])
    plain, drift = (interval(contrast[other].to_dict()) for other in ("plain", "drift"))
    return Row("CNN7, a quarter wide, CIFAR-10, 16x16", plain, drift, over_draws=True)


def best_of_tries() -> Row:
    """Return the contrasts of the best of 24 tries on XOR, whose intervals are over draws of settings."""
    best = read("xor/tuned/draws.json")["analysis"]["all"]["best of"]["24"]
    plain, drift = (interval(best[f"minus {other}"], 100) for other in ("plain backpropagation", "drift"))
    return Row("best of 24 tries, settings of 8 draws", plain, drift, over_draws=True)


def stuck_points() -> Row:
    """Return the contrasts of the shares of points on XOR, stuck under plain backpropagation, that are left."""
    compared = read("xor/escape/escape.json")["groups"]["tuned"]["compared"]["primary"]
    plain, drift = (interval(compared[other], 100) for other in ("plain backpropagation", "drift"))
    return Row("stuck points that are left", plain, drift)


def few(label: str) -> Row:
    """Return the contrasts over draws of a task that is complete, and else those of settings that were drawn once."""
    contrasts = read("arms/arms.json")["contrasts"].get(label, [])
    rows = {(row["arm"], row["other"]): row for row in contrasts if row["verdict"]}
    if ("CSBP", "plain") not in rows:
        return once(label)
    return Row(label, interval(rows["CSBP", "plain"]), interval(rows["CSBP", "drift"]), over_draws=True)


def once(label: str) -> Row:
    """Return the contrasts of a task with few labels at settings that were drawn once."""
    folder, task = FEW[label]
    contrasts = read_few(folder)["arms"][task]["analysis"]["family"]
    return Row(label, interval(contrasts["C-P"]), interval(contrasts["C-D"]))


def plugged_in(label: str, data: str) -> Row:
    """Return the contrasts pooled over nine other methods."""
    pooled = read("plug_in/forest.json")["data"][data]["analysis"]["pooled"]
    return Row(label, interval(pooled["C-P"]), interval(pooled["C-D"]))


def preset(label: str, name: str) -> Row:
    """Return the contrast over seeds of a preset with its variant without the term."""
    return Row(label, interval(read(f"presets/{name}/accuracy.json")["intervals"]["last"]["csbp - bp"], 100))


def folds() -> Row:
    """Return the contrasts over folds of N-MNIST."""
    contrasts = read("nmnist/nmnist.json")["contrasts"]["last"]
    plain, drift = (interval(contrasts[other], 100) for other in ("plain", "drift"))
    return Row("N-MNIST, 1,100 recordings", plain, drift)


def draw(rows_of: dict[str, list[Row]], out: pathlib.Path) -> None:
    """Draw a row a contrast in two panels, against plain backpropagation and against the drift."""
    lines = [line for group, rows in rows_of.items() for line in (Row(group), *rows)]
    figure, axes = plots.panels(2, 4.4, 0.23 * len(lines) + 1.2, sharey=True)
    for column, (axis, title) in enumerate(zip(axes, COLUMNS, strict=True)):
        axis.axvline(0, color="0.7", linewidth=0.8)
        for y, line in enumerate(lines):
            if interval := (line.plain, line.drift)[column]:
                _draw_interval(axis, y, interval, line.over_draws)
        axis.set(xlim=(-WIDEST - 0.3, WIDEST + 0.3), title=title, xlabel="points of test accuracy; on XOR, of starts")
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(lines)), [line.label for line in lines])
    for label, line in zip(axes[0].get_yticklabels(), lines, strict=True):
        label.set(fontsize=9, fontweight="bold" if line.label in rows_of else "normal")
    axes[0].set_ylim(len(lines) - 0.4, -0.6)
    counted, fixed = (axes[0].plot([], [], "o-", color=c, mfc=m)[0] for c, m in ((BLUE, BLUE), (GREY, "white")))
    labels = ["over draws of settings (XOR: over settings)", "over seeds, folds or starts, at chosen settings"]
    figure.legend([counted, fixed], labels, loc="outside upper center", ncols=2, fontsize=9)
    plots.save(figure, out, CAPTION)


def _draw_interval(axis: Any, y: int, interval: Interval, over_draws: bool) -> None:
    colour, face = (BLUE, BLUE) if over_draws else (GREY, "white")
    low, high = np.clip((interval.low, interval.high), -WIDEST, WIDEST)
    axis.plot([low, high], [y, y], color=colour, linewidth=1.6)
    if abs(interval.mean) <= WIDEST:
        axis.plot(interval.mean, y, "o", color=colour, mfc=face, markersize=4.5)
    else:
        axis.plot(WIDEST, y, ">", color=colour, markersize=6)
        axis.annotate(f"{interval.mean:+.0f}", (WIDEST - 0.5, y), ha="right", va="center", fontsize=9)


if __name__ == "__main__":
    draw(groups(), OUT)
