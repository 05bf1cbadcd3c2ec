"""Plots of a run, from its ``metrics.jsonl`` alone, and of a learning-rate test."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting import fonts, measures, plots
from csbp_jax.reporting.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
Color = str | NDArray[np.float64]


def draw(run: pathlib.Path, rows: list[Row]) -> None:
    """Draw ``figures/training.png`` (losses, z, measure) and ``figures/rates.png`` (firing rate per layer)."""
    for name, (figure, caption) in figures(run.name, rows).items():
        plots.save(figure, run / "figures" / f"{name}.png", caption, dpi=120)


@fonts.with_default_settings()
def figures(name: str, rows: list[Row]) -> "dict[str, tuple[Figure, str]]":
    """Return the figures of the rows so far, "training" and "rates", with their captions; none before an epoch."""
    # An epoch with bad steps only has no means.
    epochs = [row for row in rows if row["kind"] == "epoch" and "rates" in row]
    if not epochs:
        return {}
    steps = [row for row in rows if row["kind"] == "train"] or epochs
    training, (losses, strength, measured) = plots.panels(3, 4, 3.6)
    _losses(losses, steps)
    _strength(strength, steps)
    measure = _measure(measured, epochs)
    training.suptitle(fonts.printable(name))
    length = f"{epochs[-1]['epoch']} epochs, {epochs[-1]['step']} steps"
    count = epochs[-1].get("validation_count")
    caption = (
        f"Training over {length}: losses of batches; chaos strength z; {measure.label} of each epoch on the training "
        f"examples{f' and on {count} validation examples' if count else ''}."
    )
    rates, (axes,) = plots.panels(1, 5, 3.6)
    layers = list(epochs[0]["rates"])
    of_layers = {layer: [row["rates"][layer] for row in epochs] for layer in layers}
    _lines(axes, epochs, of_layers, _colors_by_depth(len(layers)))
    axes.set(xlabel="step", ylabel="spikes per neuron per time step", title="Firing rate", ylim=(0, None))
    plots.legend_beside(rates, [axes], fontsize="x-small")
    of_rates = f"Firing rate of each layer, mean of each epoch, over {length} of training."
    return {"training": (training, caption), "rates": (rates, of_rates)}


def _lines(axes: "Axes", rows: list[Row], curves: dict[str, list[float]], colors: Sequence[Color] = PALETTE) -> None:
    """Draw a line over the steps of the rows for each label."""
    steps, marker = [row["step"] for row in rows], "." if len(rows) <= 50 else None
    for color, (label, values) in zip(itertools.cycle(colors), curves.items(), strict=False):
        axes.plot(steps, values, lw=1, color=color, label=label, marker=marker)


def _losses(axes: "Axes", steps: list[Row]) -> None:
    labels = {"task_loss": "task", "chaos_loss": "chaos, z times its term"}
    curves = {label: [row[key] for row in steps] for key, label in labels.items()}
    _lines(axes, steps, {label: losses for label, losses in curves.items() if max(losses) > 0})
    axes.set(xlabel="step", ylabel="loss of a batch", title="Losses", yscale="log")
    axes.legend()


def _strength(axes: "Axes", steps: list[Row]) -> None:
    taps_by_curve: dict[tuple[float, ...], list[str]] = {}
    for tap in steps[0]["z"]:
        taps_by_curve.setdefault(tuple(row["z"][tap] for row in steps), []).append(tap)
    _lines(
        axes,
        steps,
        {
            taps[0] if len(taps) == 1 else f"{taps[0]} to {taps[-1]}, {len(taps)} equal": list(curve)
            for curve, taps in taps_by_curve.items()
        },
    )
    axes.set(xlabel="step", ylabel="z", title="Chaos strength", ylim=(0, None))
    if taps_by_curve:
        axes.legend(title="tapped tensor", fontsize="small")
    else:
        axes.text(0.5, 0.5, "no tap: plain backpropagation", ha="center", transform=axes.transAxes)


def _measure(axes: "Axes", epochs: list[Row]) -> measures.Measure:
    """Draw the measure of the run's task, and return it."""
    name = measures.primary(epochs[0], "")
    measure = measures.MEASURES[name]
    labels = {
        name: "training",
        f"validation_{name}": "validation",
        f"ema_validation_{name}": "validation, averaged weights",
    }
    curves = {label: [measure.scale * row[key] for row in epochs] for key, label in labels.items() if key in epochs[0]}
    _lines(axes, epochs, curves)
    title = measure.label[:1].upper() + measure.label[1:]
    axes.set(xlabel="step", ylabel=f"{measure.label} of an epoch{measure.unit}", title=title)
    axes.legend()
    return measure


def _colors_by_depth(count: int) -> Sequence[Color]:
    """Return a colour per layer, from the first to the last."""
    if count <= len(PALETTE):
        return PALETTE[:count]
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.95, count)))


@fonts.with_default_settings()
def draw_lr_finder(file: pathlib.Path, result: dict[str, Any]) -> None:
    """Draw the loss over rising learning rates, from the result of ``lr_finder.find``."""
    figure, (axes,) = plots.panels(1, 6, 3.6)
    axes.plot(result["rates"], result["losses"], ".", color="grey", ms=3, label="per batch")
    axes.plot(result["rates"], result["smoothed"], color=PALETTE[0], label="smoothed")
    for color, name in zip(PALETTE[1:], ("suggested", "steepest"), strict=False):
        axes.axvline(result[name], color=color, ls="--", lw=1, label=f"{name}: {result[name]:.2g}")
    shown = (0, 1.5 * result["smoothed"][0])
    axes.set(xlabel="learning rate", ylabel="task loss", xscale="log", ylim=shown, title="Learning-rate test")
    axes.legend(fontsize="small")
    plots.save(figure, file, dpi=120)
