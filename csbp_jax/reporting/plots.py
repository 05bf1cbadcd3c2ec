"""Figures of a run, drawn from its ``metrics.jsonl`` alone, and of a sweep, drawn from its tables."""

import math
import pathlib
from typing import Any

import numpy as np

# Okabe and Ito's palette, which the colour-blind can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_ROWS = 18  # of a legend, beside a figure


def draw_run(run: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """``figures/training.png`` (losses, z, accuracy, flip ratios if measured) and ``figures/rates.png`` (firing rate of
    each layer)."""
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    # An epoch whose steps were all bad has no mean.
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
    figure.suptitle(run.name)
    figure.savefig(folder / "training.png", dpi=120)

    layers = list(epochs[0]["rates"])
    columns = math.ceil(len(layers) / _ROWS)
    figure = empty_figure(5 + 1.3 * columns, 3.6)
    axes = figure.subplots()
    for color, layer in zip(_by_depth(len(layers)), layers, strict=True):
        axes.plot([r["step"] for r in epochs], [r["rates"][layer] for r in epochs], ".-", color=color, label=layer)
    axes.set(xlabel="step", ylabel="spikes a neuron and time step", title="Firing rate", ylim=(0, None))
    figure.legend(loc="outside right upper", fontsize="x-small", ncols=columns)
    figure.savefig(folder / "rates.png", dpi=120)


def draw_lr_finder(file: pathlib.Path, found: dict[str, Any]) -> None:
    """The loss over rising learning rates, of ``finder.find``."""
    figure = empty_figure(6, 3.6)
    axes = figure.subplots()
    axes.plot(found["rates"], found["losses"], ".", color="grey", ms=3, label="of a batch")
    axes.plot(found["rates"], found["smoothed"], color=PALETTE[0], label="smoothed")
    for color, name in zip(PALETTE[1:], ("suggested", "steepest"), strict=False):
        axes.axvline(found[name], color=color, ls="--", lw=1, label=f"{name}: {found[name]:.2g}")
    top = 1.5 * max(found["smoothed"][0], min(found["smoothed"]))
    axes.set(xlabel="learning rate", ylabel="task loss (nats)", xscale="log", ylim=(0, top), title="Learning-rate test")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=120)


def empty_figure(width: float, height: float) -> Any:
    """An empty figure, inches."""
    # Matplotlib takes half a second to import, and a headless machine needs its Agg canvas, not pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_sweep(folder: pathlib.Path, fields: list[str], settings: list[dict[str, Any]]) -> None:
    """``figures/accuracy.{png,pdf}``: test accuracy over the first swept number, a line for each of the rest; where no
    number is swept, over the values of the first field. Settings without a mean are named below.

    Args:
      folder: the sweep's.
      fields: the swept ones, without the seed.
      settings: rows of ``settings.csv``.
    """
    if not fields:
        return
    numbers = [f for f in fields if all(_number(row[f]) is not None for row in settings)]
    across = [*numbers, *fields][0]
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in settings:
        if "last_test_accuracy_mean" in row:
            lines.setdefault(_point(row, [f for f in fields if f != across]), []).append(row)
    columns = math.ceil(len(lines) / _ROWS) if len(lines) > len(PALETTE) else 0
    figure = empty_figure(8 + 2.5 * columns, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, part in zip(panels, ("last", "chosen"), strict=True):
        if numbers:
            _over_numbers(panel, across, f"{part}_test_accuracy", lines, settings)
        else:
            _over_names(panel, across, f"{part}_test_accuracy", lines, settings)
        panel.set(xlabel=across, title="last epoch" if part == "last" else "epoch chosen by validation")
    panels[0].set(ylabel="test accuracy (%), 95 % interval")
    if columns:
        figure.legend(
            *panels[1].get_legend_handles_labels(), loc="outside right upper", fontsize="x-small", ncols=columns
        )
    elif any(lines):
        panels[1].legend(fontsize="small")
    if lost := [_point(row, fields) for row in settings if "last_test_accuracy_mean" not in row]:
        more = f" and {len(lost) - 4} more" if len(lost) > 4 else ""
        figure.supxlabel(f"all seeds diverged: {'; '.join(lost[:4])}{more}", fontsize="small", wrap=True)
    (folder / "figures").mkdir(exist_ok=True)
    for ending in ("png", "pdf"):
        figure.savefig(folder / "figures" / f"accuracy.{ending}", dpi=150)


def _point(row, fields):
    return ", ".join(f"{field} {_text(row[field])}" for field in fields)


def _over_numbers(axes, across, name, lines, settings):
    for i, (label, rows) in enumerate(lines.items()):
        rows, style = sorted(rows, key=lambda row: _number(row[across])), _style(i)
        x, (mean, low, high) = [_number(row[across]) for row in rows], _interval(rows, name)
        axes.plot(x, mean, label=label, **style)
        axes.fill_between(x, low, high, alpha=0.2, lw=0, color=style["color"])
    if all(_number(row[across]) >= 0 for row in settings):
        positive = sorted({_number(row[across]) for row in settings} - {0.0})
        if len(positive) > 2 and positive[-1] / positive[0] > 20:
            axes.set_xscale("symlog", linthresh=positive[0])


def _over_names(axes, across, name, lines, settings):
    names = list(dict.fromkeys(_text(row[across]) for row in settings))
    for i, (label, rows) in enumerate(lines.items()):
        # Side by side, within a third of the way to the next name.
        x = [names.index(_text(row[across])) + (i + 0.5) / len(lines) / 1.5 - 1 / 3 for row in rows]
        mean, low, high = _interval(rows, name)
        axes.errorbar(x, mean, [mean - low, high - mean], label=label, capsize=3, **_style(i) | {"ls": "none"})
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _interval(rows, name):
    """Mean and ends in %, NaN where there is but one value."""
    return [100 * np.array([row[f"{name}_{end}"] for row in rows], float) for end in ("mean", "low", "high")]


def _style(i):
    """A colour, and another kind of line and mark where the colours begin anew."""
    turn = i // len(PALETTE)
    return {"color": PALETTE[i % len(PALETTE)], "ls": ("-", "--", ":", "-.")[turn % 4], "marker": ".s^xD+v"[turn % 7]}


def _number(value):
    """The value, or the one that a tuple holds; None if it is neither."""
    value = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value):
    return " / ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _losses(axes, steps):
    for i, (key, label) in enumerate((("task_loss", "task"), ("chaos_loss", "chaos, z times its term"))):
        if any(row[key] > 0 for row in steps):
            mark = "." if len(steps) < 20 else None
            line = {"lw": 1, "color": PALETTE[i], "label": label, "marker": mark}
            axes.plot([r["step"] for r in steps], [r[key] for r in steps], **line)
    axes.set(xlabel="step", ylabel="loss of a batch (nats)", title="Losses", yscale="log")
    axes.legend()


def _accuracy(axes, epochs):
    kinds = {
        "accuracy": "training",
        "validation_accuracy": "validation",
        "ema_validation_accuracy": "of averaged weights",
    }
    for i, (key, label) in enumerate((key, label) for key, label in kinds.items() if key in epochs[0]):
        axes.plot(
            [row["step"] for row in epochs], [100 * row[key] for row in epochs], ".-", color=PALETTE[i], label=label
        )
    axes.set(xlabel="step", ylabel="accuracy of an epoch (%)", title="Accuracy")
    axes.legend()


def _flips(axes, rows):
    for i, part in enumerate(rows[0]["flip_ratio"]):
        # One that could not be told is None, a gap in the line.
        ratios = [math.nan if (ratio := row["flip_ratio"][part]) is None else ratio for row in rows]
        axes.plot(
            [r["step"] for r in rows], ratios, color=PALETTE[i], label=part, marker="." if len(rows) < 20 else None
        )
    axes.axhline(1, color="black", lw=0.8)
    axes.set(xlabel="step", ylabel="flip ratio (above 1: past the flip)", title="Chaos meter")
    axes.legend()


def _by_depth(count):
    """A colour for each of ``count`` layers, from the first to the last."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.95, count))


def _strength(axes, steps):
    courses: dict[tuple[float, ...], list[str]] = {}
    for tap in steps[0]["z"]:
        courses.setdefault(tuple(row["z"][tap] for row in steps), []).append(tap)
    for i, (course, taps) in enumerate(courses.items()):
        label = taps[0] if len(taps) == 1 else f"{taps[0]} to {taps[-1]}, {len(taps)} alike"
        line = {"color": PALETTE[i % len(PALETTE)], "label": label, "marker": "." if len(steps) < 20 else None}
        axes.plot([r["step"] for r in steps], course, **line)
    axes.set(xlabel="step", ylabel="z", title="Chaos strength", ylim=(0, None))
    if courses:
        axes.legend(title="tapped tensor", fontsize="small")
    else:
        axes.text(0.5, 0.5, "no tap: plain backpropagation", ha="center", transform=axes.transAxes)
