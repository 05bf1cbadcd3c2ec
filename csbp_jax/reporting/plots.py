"""Plots of a run, from its ``metrics.jsonl`` alone."""

import io
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import writing
from csbp_jax.reporting import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Color = str | NDArray[np.float64]

# Okabe and Ito's palette, distinguishable with colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LEGEND_ROWS = 18
"""Entries of a legend that fit beside a figure."""


def empty_figure(width: float, height: float) -> "Figure":
    """Create an empty figure; sizes in inches."""
    # Matplotlib takes half a second to import, and a headless machine needs its Agg canvas, not pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(i: int) -> dict[str, Any]:
    """Return the style of line ``i``: when colours repeat, line style and marker change."""
    turn = i // len(PALETTE)
    return {"color": PALETTE[i % len(PALETTE)], "ls": ("-", "--", ":", "-.")[turn % 4], "marker": ".s^xD+v"[turn % 7]}


def save(figure: "Figure", file: pathlib.Path, dpi: int, caption: str = "") -> None:
    """Save a figure. A link in the place of the file is replaced, not followed. Equal figures are equal files.

    The caption, what is drawn and from how many examples, epochs or seeds, is in the file's metadata
    (:func:`caption_of`).
    """
    metadata = {"CreationDate": None, "Subject": caption} if file.suffix == ".pdf" else {"Description": caption}
    with writing(file):
        file.unlink(missing_ok=True)
        figure.savefig(file, dpi=dpi, metadata=metadata)


def caption_of(png: bytes) -> str:
    """Return the caption in a PNG of :func:`save`; nothing of another image, or of what is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            return str(image.info.get("Description", ""))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""


@fonts.with_fallbacks()
def draw_run(run: pathlib.Path, rows: list[Row]) -> None:
    """Draw ``figures/training.png`` (losses, z, accuracy) and ``figures/rates.png`` (firing rate per layer)."""
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    # An epoch with bad steps only has no means.
    epochs = [row for row in rows if row["kind"] == "epoch" and "rates" in row]
    steps = [row for row in rows if row["kind"] == "train"] or epochs
    if not epochs:
        return

    figure = empty_figure(12, 3.6)
    losses, strength, accuracy = figure.subplots(1, 3)
    _losses(losses, steps)
    _strength(strength, steps)
    _accuracy(accuracy, epochs)
    figure.suptitle(fonts.printable(run.name))
    length = f"{epochs[-1]['epoch']} epochs, {epochs[-1]['step']} steps"
    count = epochs[-1].get("validation_count")
    caption = (
        f"Training over {length}: losses of batches; chaos strength z; accuracy of each epoch on the training examples"
        f"{f' and on {count} validation examples' if count else ''}."
    )
    save(figure, folder / "training.png", dpi=120, caption=caption)

    layers = list(epochs[0]["rates"])
    columns = math.ceil(len(layers) / LEGEND_ROWS)
    figure = empty_figure(5 + 1.3 * columns, 3.6)
    axes = figure.subplots()
    for color, layer in zip(_colors_by_depth(len(layers)), layers, strict=True):
        rates = [row["rates"][layer] for row in epochs]
        axes.plot([row["step"] for row in epochs], rates, ".-", color=color, label=layer)
    axes.set(xlabel="step", ylabel="spikes per neuron per time step", title="Firing rate", ylim=(0, None))
    figure.legend(loc="outside right upper", fontsize="x-small", ncols=columns)
    caption = f"Firing rate of each layer, mean of each epoch, over {length} of training."
    save(figure, folder / "rates.png", dpi=120, caption=caption)


def _losses(axes: "Axes", steps: list[Row]) -> None:
    for i, (key, label) in enumerate((("task_loss", "task"), ("chaos_loss", "chaos, z times its term"))):
        if any(row[key] > 0 for row in steps):
            marker = "." if len(steps) < 20 else None
            losses = [row[key] for row in steps]
            axes.plot([row["step"] for row in steps], losses, lw=1, color=PALETTE[i], label=label, marker=marker)
    axes.set(xlabel="step", ylabel="loss of a batch", title="Losses", yscale="log")
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


def _colors_by_depth(count: int) -> Sequence[Color]:
    """Return a colour per layer, from the first to the last."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.95, count)))


@fonts.with_fallbacks()
def draw_lr_finder(file: pathlib.Path, result: dict[str, Any]) -> None:
    """Draw the loss over rising learning rates, from the result of ``lr_finder.find``."""
    figure = empty_figure(6, 3.6)
    axes = figure.subplots()
    axes.plot(result["rates"], result["losses"], ".", color="grey", ms=3, label="per batch")
    axes.plot(result["rates"], result["smoothed"], color=PALETTE[0], label="smoothed")
    for color, name in zip(PALETTE[1:], ("suggested", "steepest"), strict=False):
        axes.axvline(result[name], color=color, ls="--", lw=1, label=f"{name}: {result[name]:.2g}")
    top = 1.5 * max(result["smoothed"][0], min(result["smoothed"]))
    axes.set(xlabel="learning rate", ylabel="task loss", xscale="log", ylim=(0, top), title="Learning-rate test")
    axes.legend(fontsize="small")
    save(figure, file, dpi=120)
