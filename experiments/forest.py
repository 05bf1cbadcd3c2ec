"""Draw all differences between CSBP and plain backpropagation, and the drift, into docs/results/contrasts.png.

    python -m experiments.forest

The numbers are those of tests/data/analyses.json, made from the committed runs, and of the studies over draws.
"""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.reporting import plots

ROOT = pathlib.Path(__file__).parent.parent
RECORD = ROOT / "tests" / "data" / "analyses.json"
DRAWS = ROOT / "docs" / "results" / "xor" / "tuned" / "draws.json"
ARMS = ROOT / "docs" / "results" / "arms" / "arms.json"
OUT = ROOT / "docs" / "results" / "contrasts.png"
COLUMNS = ("CSBP minus plain", "CSBP minus drift")
WIDEST = 6.0
"""Points at which the axis ends; an arrow stands for what is above."""
BLUE, GREY = plots.PALETTE[0], "0.4"
CAPTION = "differences of test accuracy between CSBP, plain backpropagation and the drift; 95 % intervals"


ACCURACY = "test accuracy after the last epoch (points) over seeds, {}, primary"
POOLED = "test accuracy (points) over seeds, {}, pooled over methods"
SEEDS, FOLDS = (f"test accuracy, last epoch, over {what}" for what in ("seeds", "folds"))
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
    escape = "stuck points that are left, tuned, primary"
    return {
        "The paper's regime: deep, all labels": [Row("CNN7 with TEBN, CIFAR-10: not yet tested")],
        "Spiking XOR": [
            over_draws("best of 24 tries, settings of 8 draws"),
            recorded("stuck points that are left", "xor/escape", escape, "CSBP", "plain backpropagation", "drift"),
        ],
        "Few labels": [few(label) for label in FEW],
        "Plugged into other methods, few labels": [
            recorded("nine methods, digits as events", "plug_in", POOLED.format("digits_events"), "C", "P", "D"),
            recorded("nine methods, CIFAR-10, 8x8", "plug_in", POOLED.format("cifar10"), "C", "P", "D"),
        ],
        "Small tasks, all labels": [
            recorded("digits", "presets/digits", SEEDS, "csbp", "bp"),
            recorded("digits as events", "presets/digits_events", SEEDS, "csbp", "bp"),
            recorded("MNIST", "presets/mnist", SEEDS, "csbp", "bp"),
            recorded("N-MNIST, 1,100 recordings", "nmnist", FOLDS, "CSBP", "plain", "drift"),
        ],
    }


def few(label: str) -> Row:
    """Return the contrasts over draws of a task that is complete, and else those of settings that were drawn once."""
    contrasts = json.loads(ARMS.read_text())["contrasts"].get(label, [])
    rows = {(row["arm"], row["other"]): row for row in contrasts if row["verdict"]}
    if ("CSBP", "plain") not in rows:
        return once(label)
    ends = ("difference", "low", "high")
    plain, drift = (Interval(*(rows["CSBP", other][end] for end in ends)) for other in ("plain", "drift"))
    return Row(label, plain, drift, over_draws=True)


def once(label: str) -> Row:
    """Return the contrasts of a task with few labels at settings that were drawn once."""
    page, task = FEW[label]
    return recorded(label, page, ACCURACY.format(task), "C", "P", "D")


def recorded(label: str, study: str, measure: str, arm: str, *others: str) -> Row:
    """Return the contrasts of an arm with others of a family of the record."""
    family = next(f for f in families() if f["study"] == study and f["measure"] == measure)
    names = ["mean" if name == "difference" else name for name in family["numbers"]]
    rows = {tuple(row[:2]): dict(zip(names, row[2:], strict=True)) for row in family["rows"]}
    scale = 1 if "(points)" in measure else 100
    of_others = [Interval(*(scale * end for end in ends(rows[arm, other]))) for other in others]
    plain, drift, *_ = [*of_others, None]  # the last may be missing
    return Row(label, plain, drift)


def ends(numbers: dict[str, float]) -> tuple[float, float, float]:
    """Return a mean and its 95 % interval; where ``half`` holds that, ``low`` and ``high`` are a test of equality's."""
    mean, half = numbers["mean"], numbers.get("half")
    return (mean, numbers["low"], numbers["high"]) if half is None else (mean, mean - half, mean + half)


@functools.cache
def families() -> list[dict[str, Any]]:
    """Return the families of contrasts of the record."""
    return json.loads(RECORD.read_text())


def over_draws(label: str) -> Row:
    """Return the contrasts of the best of 24 tries on XOR, whose intervals are over draws of settings."""
    best = json.loads(DRAWS.read_text())["analysis"]["all"]["best of"]["24"]
    shares = (best[f"minus {other}"] for other in ("plain backpropagation", "drift"))
    plain, drift = (Interval(*(100 * share[end] for end in Interval._fields)) for share in shares)
    return Row(label, plain, drift, over_draws=True)


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
