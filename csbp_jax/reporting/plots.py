"""Plots of a run, from its ``metrics.jsonl`` alone, and of a sweep, from its tables."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting import fonts
from csbp_jax.reporting.format import as_number, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Color = str | NDArray[np.float64]

# Okabe and Ito's palette, distinguishable with colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LEGEND_ROWS = 18  # that fit beside a figure


def empty_figure(width: float, height: float) -> "Figure":
    """Create an empty figure; sizes in inches."""
    # Matplotlib takes half a second to import, and a headless machine needs its Agg canvas, not pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@fonts.with_fallbacks()
def draw_run(run: pathlib.Path, rows: list[Row]) -> None:
    """Draw ``figures/training.png`` (losses, z, accuracy, measured flip ratios) and ``figures/rates.png`` (firing rate
    per layer)."""
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    # An epoch with bad steps only has no means.
    epochs = [row for row in rows if row["kind"] == "epoch" and "rates" in row]
    steps = [row for row in rows if row["kind"] == "train"] or epochs
    if not epochs:
        return

    flips = [row for row in rows if row["kind"] == "flip"]
    figure = empty_figure(16 if flips else 12, 3.6)
    losses, strength, accuracy, *meter = figure.subplots(1, 4 if flips else 3)
    _losses(losses, steps)
    _strength(strength, steps)
    _accuracy(accuracy, epochs)
    if flips:
        _flips(meter[0], flips)
    figure.suptitle(fonts.printable(run.name))
    figure.savefig(folder / "training.png", dpi=120)

    layers = list(epochs[0]["rates"])
    columns = math.ceil(len(layers) / _LEGEND_ROWS)
    figure = empty_figure(5 + 1.3 * columns, 3.6)
    axes = figure.subplots()
    for color, layer in zip(_colors_by_depth(len(layers)), layers, strict=True):
        rates = [row["rates"][layer] for row in epochs]
        axes.plot([row["step"] for row in epochs], rates, ".-", color=color, label=layer)
    axes.set(xlabel="step", ylabel="spikes per neuron per time step", title="Firing rate", ylim=(0, None))
    figure.legend(loc="outside right upper", fontsize="x-small", ncols=columns)
    figure.savefig(folder / "rates.png", dpi=120)


def _losses(axes: "Axes", steps: list[Row]) -> None:
    for i, (key, label) in enumerate((("task_loss", "task"), ("chaos_loss", "chaos, z times its term"))):
        if any(row[key] > 0 for row in steps):
            marker = "." if len(steps) < 20 else None
            losses = [row[key] for row in steps]
            axes.plot([row["step"] for row in steps], losses, lw=1, color=PALETTE[i], label=label, marker=marker)
    axes.set(xlabel="step", ylabel="loss of a batch (nats)", title="Losses", yscale="log")
    axes.legend()


def _strength(axes: "Axes", steps: list[Row]) -> None:
    taps_by_curve: dict[tuple[float, ...], list[str]] = {}
    for tap in steps[0]["z"]:
        taps_by_curve.setdefault(tuple(row["z"][tap] for row in steps), []).append(tap)
    for i, (curve, taps) in enumerate(taps_by_curve.items()):
        label = taps[0] if len(taps) == 1 else f"{taps[0]} to {taps[-1]}, {len(taps)} equal"
        marker = "." if len(steps) < 20 else None
        color = PALETTE[i % len(PALETTE)]
        axes.plot([row["step"] for row in steps], curve, color=color, label=label, marker=marker)
    axes.set(xlabel="step", ylabel="z", title="Chaos strength", ylim=(0, None))
    if taps_by_curve:
        axes.legend(title="tapped tensor", fontsize="small")
    else:
        axes.text(0.5, 0.5, "no tap: plain backpropagation", ha="center", transform=axes.transAxes)


def _accuracy(axes: "Axes", epochs: list[Row]) -> None:
    labels = {
        "accuracy": "training",
        "validation_accuracy": "validation",
        "ema_validation_accuracy": "validation, averaged weights",
    }
    for i, (key, label) in enumerate((key, label) for key, label in labels.items() if key in epochs[0]):
        accuracies = [100 * row[key] for row in epochs]
        axes.plot([row["step"] for row in epochs], accuracies, ".-", color=PALETTE[i], label=label)
    axes.set(xlabel="step", ylabel="accuracy of an epoch (%)", title="Accuracy")
    axes.legend()


def _flips(axes: "Axes", rows: list[Row]) -> None:
    for i, term in enumerate(rows[0]["flip_ratio"]):
        # A ratio that could not be measured is None: a gap in the line.
        ratios = [math.nan if (ratio := row["flip_ratio"][term]) is None else ratio for row in rows]
        marker = "." if len(rows) < 20 else None
        axes.plot([row["step"] for row in rows], ratios, color=PALETTE[i], label=term, marker=marker)
    axes.axhline(1, color="black", lw=0.8)
    axes.set(xlabel="step", ylabel="flip ratio (above 1: past the flip)", title="Chaos meter")
    axes.legend()


def _colors_by_depth(count: int) -> Sequence[Color]:
    """Return a colour per layer, from the first to the last."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.95, count)))


def draw_lr_finder(file: pathlib.Path, result: dict[str, Any]) -> None:
    """Draw the loss over rising learning rates, from the result of ``lr_finder.find``."""
    figure = empty_figure(6, 3.6)
    axes = figure.subplots()
    axes.plot(result["rates"], result["losses"], ".", color="grey", ms=3, label="per batch")
    axes.plot(result["rates"], result["smoothed"], color=PALETTE[0], label="smoothed")
    for color, name in zip(PALETTE[1:], ("suggested", "steepest"), strict=False):
        axes.axvline(result[name], color=color, ls="--", lw=1, label=f"{name}: {result[name]:.2g}")
    top = 1.5 * max(result["smoothed"][0], min(result["smoothed"]))
    axes.set(xlabel="learning rate", ylabel="task loss (nats)", xscale="log", ylim=(0, top), title="Learning-rate test")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def draw_sweep(folder: pathlib.Path, fields: list[str], settings: list[Row]) -> None:
    """Draw ``figures/accuracy.{png,pdf}``: test accuracy over the first swept field that is a number, a line for each
    setting of the other fields; without a numeric field, over the values of the first one.

    Args:
      folder: the directory of the sweep.
      fields: the swept fields, without the seed.
      settings: rows of ``settings.csv``. Settings without a mean (all seeds diverged) are named below the figure.
    """
    if not fields:
        return
    numeric = [field for field in fields if all(as_number(row[field]) is not None for row in settings)]
    across = [*numeric, *fields][0]
    lines: dict[str, list[Row]] = {}
    for row in settings:
        if "last_test_accuracy_mean" in row:
            lines.setdefault(_label(row, [field for field in fields if field != across]), []).append(row)
    columns = math.ceil(len(lines) / _LEGEND_ROWS) if len(lines) > len(PALETTE) else 0
    figure = empty_figure(8 + 2.5 * columns, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, weights in zip(panels, ("last", "chosen"), strict=True):
        draw = _over_numbers if numeric else _over_names
        draw(panel, across, f"{weights}_test_accuracy", lines, settings)
        panel.set(xlabel=across, title="last epoch" if weights == "last" else "epoch chosen by validation")
    panels[0].set(ylabel="test accuracy (%), 95 % interval")
    if columns:
        handles, labels = panels[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="x-small", ncols=columns)
    elif any(lines):
        panels[1].legend(fontsize="small")
    if diverged := [_label(row, fields) for row in settings if "last_test_accuracy_mean" not in row]:
        more = f" and {len(diverged) - 4} more" if len(diverged) > 4 else ""
        figure.supxlabel(f"all seeds diverged: {'; '.join(diverged[:4])}{more}", fontsize="small", wrap=True)
    (folder / "figures").mkdir(exist_ok=True)
    for ending in ("png", "pdf"):
        figure.savefig(folder / "figures" / f"accuracy.{ending}", dpi=150)


def _label(row: Row, fields: Sequence[str]) -> str:
    return ", ".join(f"{field} {value_text(row[field])}" for field in fields)


def _over_numbers(axes: "Axes", across: str, name: str, lines: Mapping[str, list[Row]], settings: list[Row]) -> None:
    def position(row: Row) -> float:
        return float(as_number(row[across]) or 0)

    for i, (label, unsorted) in enumerate(lines.items()):
        rows = sorted(unsorted, key=position)
        x, (mean, low, high) = [position(row) for row in rows], _interval(rows, name)
        axes.plot(x, mean, label=label, **_style(i))
        axes.fill_between(x, low, high, alpha=0.2, lw=0, color=_style(i)["color"])
    positions = {position(row) for row in settings}
    positive = sorted(positions - {0.0})
    if min(positions) >= 0 and len(positive) > 2 and positive[-1] / positive[0] > 20:
        axes.set_xscale("symlog", linthresh=positive[0])


def _over_names(axes: "Axes", across: str, name: str, lines: Mapping[str, list[Row]], settings: list[Row]) -> None:
    names = list(dict.fromkeys(value_text(row[across]) for row in settings))
    for i, (label, rows) in enumerate(lines.items()):
        # Lines are side by side, within a third of the distance between names.
        shift = (i + 0.5) / len(lines) / 1.5 - 1 / 3
        x = [names.index(value_text(row[across])) + shift for row in rows]
        mean, low, high = _interval(rows, name)
        axes.errorbar(x, mean, [mean - low, high - mean], label=label, capsize=3, **_style(i) | {"ls": "none"})
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _interval(rows: list[Row], name: str) -> list[NDArray[np.float64]]:
    """Return means and ends of intervals in %; ends are NaN for single values."""
    return [100 * np.array([row[f"{name}_{end}"] for row in rows], float) for end in ("mean", "low", "high")]


def _style(i: int) -> dict[str, Any]:
    """Return the style of line ``i``: when colours repeat, line style and marker change."""
    turn = i // len(PALETTE)
    return {"color": PALETTE[i % len(PALETTE)], "ls": ("-", "--", ":", "-.")[turn % 4], "marker": ".s^xD+v"[turn % 7]}
