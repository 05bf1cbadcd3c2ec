"""Plots of a network's activity: raster, membranes, firing rates, spikes per example, synaptic operations."""

import math
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Neuron
from csbp_jax.reporting.plots import PALETTE, empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Activity = dict[str, NDArray[Any]]
"""``spikes`` and ``membranes`` (before the reset) of one example ``[T, N]``, ``rates`` ``[N]``, and ``by_example``."""

_MAX_NEURONS = 300
_TRACES = 4


def draw(folder: pathlib.Path, result: dict[str, Any], layers: dict[str, Activity], neuron: Neuron | None) -> None:
    """Draw ``raster.png``, ``membranes.png``, ``rates.png``, ``spikes.png`` and ``operations.png``.

    Args:
      folder: the output directory, created if it is missing.
      result: the result of ``inspection.inspect``.
      layers: activity per layer.
      neuron: for its threshold and reset; None if they are unknown, with a neuron of the user's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots: dict[str, tuple[Callable[[Axes, Activity], None], str]] = {
        "raster": (_raster, "spikes of one example"),
        "membranes": (lambda axes, activity: _membranes(axes, activity, neuron), "membranes of one example"),
        "rates": (_rates, f"firing rates of neurons over {result['examples']} examples"),
        "spikes": (_spikes_per_example, f"spikes per example, {result['examples']} examples"),
    }
    for name, (plot, title) in plots.items():
        figure, panels = _grid(len(layers))
        for axes, (layer, activity) in zip(panels, layers.items(), strict=True):
            plot(axes, activity)
            axes.set(title=layer)
        figure.suptitle(f"{result['run']}: {title}")
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            columns = len(handles)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
        figure.savefig(folder / f"{name}.png", dpi=100)
    _operations(folder / "operations.png", result)


def _grid(count: int) -> "tuple[Figure, list[Axes]]":
    """Create a figure with ``count`` panels, at most four in a row."""
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = empty_figure(1 + 3.2 * columns, 0.4 + 2.9 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _raster(axes: "Axes", activity: Activity) -> None:
    spikes = activity["spikes"]
    T, count = spikes.shape
    rows = np.unique(np.linspace(0, count - 1, _MAX_NEURONS).round().astype(int))
    box = (0.5, T + 0.5, count, 0)
    axes.imshow(spikes[:, rows].T, aspect="auto", cmap="binary", interpolation="nearest", extent=box, vmin=0, vmax=1)
    axes.set(xlabel="time step", ylabel="neuron" + (f" ({len(rows)} of {count} drawn)" if len(rows) < count else ""))
    axes.locator_params(axis="x", integer=True)


def _membranes(axes: "Axes", activity: Activity, neuron: Neuron | None) -> None:
    """Draw membranes of some neurons, from the median to the most excited one: u before each reset, then v after it."""
    u, spikes = activity["membranes"].astype(float), activity["spikes"]
    order = np.argsort(u.max(axis=0))
    ranks = np.linspace(len(order) // 2, len(order) - 1, _TRACES).round().astype(int)
    after = u
    if neuron is not None:
        after = {"hard": np.where(spikes > 0, 0, u), "soft": u - neuron.threshold * spikes, "none": u}[neuron.reset]
    times = np.arange(1, len(u) + 1)
    for color, i in zip(PALETTE, np.unique(order[ranks]), strict=False):
        path = np.stack([u[:, i], after[:, i]], axis=1).ravel()
        axes.plot([0, *np.repeat(times, 2)], [0, *path], "-", color=color, lw=1)
        fired = spikes[:, i] > 0
        axes.plot(times[fired], u[fired, i], "^", color=color, ms=4)
    if neuron is not None:
        axes.axhline(neuron.threshold, color="black", ls="--", lw=0.8, label="threshold")
    axes.plot([], [], "^", color="grey", ms=4, label="spike" if neuron is None else "spike, then reset")
    axes.set(xlabel="time step", ylabel="membrane")
    axes.locator_params(axis="x", integer=True)


def _rates(axes: "Axes", activity: Activity) -> None:
    rates = activity["rates"]
    axes.hist(rates, bins=np.linspace(0, 1, 41).tolist(), color=PALETTE[0])
    text = f"silent {np.mean(rates == 0):.1%}\nalways {np.mean(rates == 1):.1%}"
    axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize="small")
    axes.set(xlabel="spikes per time step", ylabel="neurons", yscale="log")


def _spikes_per_example(axes: "Axes", activity: Activity) -> None:
    axes.hist(activity["by_example"], bins=20, color=PALETTE[2])
    axes.set(xlabel="spikes", ylabel="examples")


def _operations(file: pathlib.Path, result: dict[str, Any]) -> None:
    names = list(result["synapses"])
    figure = empty_figure(6, 1.6 + 0.3 * len(names))
    axes, left = figure.subplots(), np.zeros(len(names))
    for kind, label, color in (("acs", "AC", PALETTE[0]), ("macs", "MAC", PALETTE[1])):
        counts = np.array([result["synapses"][name][kind] for name in names])
        axes.barh(names, counts, left=left.tolist(), color=color, label=label)
        left = left + counts
    axes.plot([result["synapses"][name]["dense"] for name in names], names, "|", color="black", ms=10, label="dense")
    axes.invert_yaxis()
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    energy = f"{result['energy_nj']:,.4g} nJ"
    axes.set(xlabel="operations per example", title=f"{result['run']}: {energy} per example")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=100)
