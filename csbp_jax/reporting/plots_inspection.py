"""Pictures of a network at work: raster, membranes, rates, spikes an example, operations."""

import math
import pathlib
from typing import Any

import numpy as np

from csbp_jax.config import Neuron
from csbp_jax.reporting.plots import PALETTE, empty_figure

_ROWS = 300
_TRACES = 4


def draw(folder: pathlib.Path, result: dict[str, Any], seen: dict[str, dict[str, Any]], neuron: Neuron | None) -> None:
    """``raster.png``, ``membranes.png``, ``rates.png``, ``spikes.png``, ``operations.png``.

    Args:
      folder: where; made if it is missing.
      result: what ``inspection.inspect`` returns.
      seen: of each layer ``spikes`` and ``membranes`` (before reset) ``[T, N]`` of one example, ``rates`` ``[N]`` and
        spikes ``by_example``.
      neuron: its threshold and reset; None if they are not known, of a neuron of the user's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {
        "raster": (_raster, "spikes of one example"),
        "membranes": (lambda axes, about: _membranes(axes, about, neuron), "membranes of one example"),
        "rates": (_rates, f"firing rates of neurons over {result['examples']} examples"),
        "spikes": (_by_example, f"spikes an example, {result['examples']} examples"),
    }
    for name, (panel, title) in kinds.items():
        figure, panels = _grid(len(seen))
        for axes, (layer, about) in zip(panels, seen.items(), strict=True):
            panel(axes, about)
            axes.set(title=layer)
        figure.suptitle(f"{result['run']}: {title}")
        if (shown := panels[0].get_legend_handles_labels())[0]:
            figure.legend(*shown, loc="outside lower center", ncols=len(shown[0]), frameon=False, fontsize="small")
        figure.savefig(folder / f"{name}.png", dpi=100)
    _operations(folder / "operations.png", result)


def _grid(count):
    """A panel each, up to four in a row."""
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = empty_figure(1 + 3.2 * columns, 0.4 + 2.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _raster(axes, about):
    spikes = about["spikes"]
    T, count = spikes.shape
    rows = np.unique(np.linspace(0, count - 1, _ROWS).round().astype(int))
    box = (0.5, T + 0.5, count, 0)
    axes.imshow(spikes[:, rows].T, aspect="auto", cmap="binary", interpolation="nearest", extent=box, vmin=0, vmax=1)
    axes.set(xlabel="time step", ylabel="neuron" + (f" ({len(rows)} of {count} drawn)" if len(rows) < count else ""))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _membranes(axes, about, neuron):
    """Of some neurons, from a quiet one to the most excited one: up to u before reset, at once down to v after it."""
    u, spikes = about["membranes"].astype(float), about["spikes"]
    order = np.argsort(u.max(axis=0))
    places = np.linspace(len(order) // 2, len(order) - 1, _TRACES).round().astype(int)
    after = u
    if neuron is not None:
        after = {"hard": np.where(spikes > 0, 0, u), "soft": u - neuron.threshold * spikes, "none": u}[neuron.reset]
    times = np.arange(1, len(u) + 1)
    for color, i in zip(PALETTE, np.unique(order[places]), strict=False):
        path = np.stack([u[:, i], after[:, i]], axis=1).ravel()
        axes.plot([0, *np.repeat(times, 2)], [0, *path], "-", color=color, lw=1)
        fired = spikes[:, i] > 0
        axes.plot(times[fired], u[fired, i], "^", color=color, ms=4)
    if neuron is not None:
        axes.axhline(neuron.threshold, color="black", ls="--", lw=0.8, label="threshold")
    axes.plot([], [], "^", color="grey", ms=4, label="spike" if neuron is None else "spike, then reset")
    axes.set(xlabel="time step", ylabel="membrane")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _rates(axes, about):
    rates = about["rates"]
    axes.hist(rates, bins=np.linspace(0, 1, 41), color=PALETTE[0])
    told = f"silent {np.mean(rates == 0):.1%}\nalways {np.mean(rates == 1):.1%}"
    axes.text(0.97, 0.95, told, transform=axes.transAxes, ha="right", va="top", fontsize="small")
    axes.set(xlabel="spikes a time step", ylabel="neurons", yscale="log")


def _by_example(axes, about):
    axes.hist(about["by_example"], bins=20, color=PALETTE[2])
    axes.set(xlabel="spikes", ylabel="examples")


def _operations(file, result):
    names = list(result["synapses"])
    figure = empty_figure(6, 1.6 + 0.3 * len(names))
    axes, left = figure.subplots(), np.zeros(len(names))
    for kind, label, color in (("acs", "AC", PALETTE[0]), ("macs", "MAC", PALETTE[1])):
        counts = np.array([result["synapses"][name][kind] for name in names])
        axes.barh(names, counts, left=left, color=color, label=label)
        left = left + counts
    axes.plot([result["synapses"][name]["dense"] for name in names], names, "|", color="black", ms=10, label="dense")
    axes.invert_yaxis()
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    axes.set(xlabel="operations an example", title=f"{result['run']}: {result['energy_nj']:,.4g} nJ an example")
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=100)
