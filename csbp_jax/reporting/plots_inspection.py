"""Plots of a network's activity: raster, membranes, firing rates, spikes per example, synaptic operations."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Neuron
from csbp_jax.reporting import fonts, plots
from csbp_jax.reporting.format import energy
from csbp_jax.reporting.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Activity = dict[str, Any]
"""Arrays ``spikes`` and ``membranes`` (before the reset; not of a neuron without ``trace``) of one example ``[T, N]``,
``rates`` and ``always`` (whether a neuron fired in all time steps) ``[N]``, and ``by_example``; and the ``shape`` of
the layer's N neurons, such as (height, width, channels)."""

_SYNOPS = (
    "Operations of a synapse at a time step are accumulates (AC) if all its inputs are -1, 0 or 1, otherwise "
    "multiply-accumulates (MAC), as after grey values and averages or sums of spikes."
)
_MAX_NEURONS = 60  # whose spikes are seen one by one
_TRACES = 4


@fonts.with_default_settings()
def draw(
    folder: pathlib.Path,
    result: dict[str, Any],
    x: NDArray[np.float32],
    layers: dict[str, Activity],
    neurons: Mapping[str, Neuron | None],
) -> None:
    """Draw ``raster.png``, ``membranes.png`` (if any are known), ``rates.png``, ``spikes.png`` and ``operations.png``.

    Args:
      folder: the output directory, created if it is missing.
      result: the result of ``inspection.inspect``.
      x: input of the network for the example of raster and membranes, ``[T or 1, ...]``.
      layers: activity per layer.
      neurons: of the layers, for thresholds and resets; None if they are unknown, with a neuron of the user's own.
    """
    example = result["example"]
    first = f"example {example['number']} of the {result['split']} split"
    if "class" in example:
        first += f", class {example['class']}, predicted {example['predicted']}"
    examples = f"{result['examples']} examples of the {result['split']} split"
    figures: dict[str, tuple[Callable[..., None], str, str]] = {
        "raster": (
            _raster,
            f"spikes of {first}",
            "Left: the mean of the input over time. Black: a spike; a row per neuron, a column per time step.",
        ),
        "membranes": (
            _membranes,
            f"membranes of {first}",
            "Four neurons of each layer, from the median to the most excited one: up to the value before reset, then "
            "down to that after it.",
        ),
        "rates": (_rates, f"firing rates of neurons over {examples}", ""),
        "spikes": (_spikes_per_example, f"spikes of each layer in each of {examples}", ""),
    }
    traced = {layer: activity for layer, activity in layers.items() if "membranes" in activity}
    for name, (plot, title, explained) in figures.items():
        drawn = traced if name == "membranes" else layers
        if not drawn:
            for file in folder.glob(f"{name}.*"):  # of an earlier inspection, of other layers
                file.unlink()
            continue
        is_raster = name == "raster"
        figure, all_axes = plots.panels(len(drawn) + is_raster, 3.4, 3.7 if name == "membranes" else 2.9)
        if is_raster:
            _input(all_axes[0], x)
        for axes, (layer, activity) in zip(all_axes[is_raster:], drawn.items(), strict=True):
            plot(axes, activity, *([neurons[layer]] if name == "membranes" else []))
            sizes = " x ".join(map(str, activity["shape"]))
            axes.set_title(fonts.printable(f"{layer}: {sizes} neurons"), fontsize="medium")
        figure.suptitle(fonts.printable(f"{result['run']}: {title}"), wrap=True)
        handles, labels = all_axes[-1].get_legend_handles_labels()
        if handles:
            columns = len(handles)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
        plots.save(figure, folder / f"{name}.png", f"{title[:1].upper()}{title[1:]}. {explained}".rstrip())
    plots.save(
        operations_figure(result), folder / "operations.png", f"Synaptic operations, mean of {examples}. {_SYNOPS}"
    )


def _input(axes: "Axes", x: NDArray[np.float32]) -> None:
    """Draw an input ``[T, H, W, C]``, or ``[T, F]``, as a picture; of three channels in their colours."""
    if x.ndim == 2:
        picture, labels = x.T, {"xlabel": "time step", "ylabel": "channel"}
    else:
        picture, labels = x.mean(axis=0), {"xlabel": "column", "ylabel": "row"}
        picture = picture if picture.shape[-1] == 3 else picture.sum(axis=-1)
    low, high = picture.min(), picture.max()
    scaled = (picture - low) / (high - low if high > low else 1)
    axes.imshow(scaled, cmap="gray", interpolation="nearest", aspect="auto" if x.ndim == 2 else "equal")
    axes.set(**labels)
    axes.set_title("input", fontsize="medium")


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
    times, names = np.arange(1, len(u) + 1), {}
    for color, i in zip(PALETTE, np.unique(order[ranks]), strict=False):
        path = np.stack([u[:, i], after[:, i]], axis=1).ravel()
        (line,) = axes.plot([0, *np.repeat(times, 2)], [0, *path], "-", color=color, lw=1)
        names[neuron_name(int(i), activity["shape"])] = line
        fired = spikes[:, i] > 0
        axes.plot(times[fired], u[fired, i], "^", color=color, ms=4)
    if neuron is not None:
        axes.axhline(neuron.threshold, color="black", ls="--", lw=0.8, label="threshold")
    axes.plot([], [], "^", color="grey", ms=4, label="spike" if neuron is None else "spike, then reset")
    axes.set(xlabel="time step", ylabel="membrane potential")
    axes.locator_params(axis="x", integer=True)
    axes.locator_params(axis="y", nbins=5)
    lines = list(names.values())
    axes.legend(lines, list(names), loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, fontsize="x-small")


def neuron_name(index: int, shape: Sequence[int]) -> str:
    """Name a neuron of a layer by its indices, from 0.

    >>> neuron_name(7, (2, 2, 3)), neuron_name(7, (10,))
    ('row 1, column 0, channel 1', 'unit 7')
    """
    indices = [int(i) for i in np.unravel_index(index, shape)]
    axes = {1: ("unit",), 3: ("row", "column", "channel")}.get(len(indices), ("index",) * len(indices))
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, indices, strict=True))


def _rates(axes: "Axes", activity: Activity) -> None:
    rates = activity["rates"]
    highest = max(1, np.ceil(rates.max()))
    axes.hist(rates, bins=np.linspace(0, highest, 41).tolist(), color=PALETTE[0])
    text = f"silent {np.mean(rates == 0):.1%}\nalways {np.mean(activity['always']):.1%}"
    axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize="small")
    axes.set(xlabel="spikes of a neuron per time step", ylabel="neurons", yscale="log")


def _spikes_per_example(axes: "Axes", activity: Activity) -> None:
    axes.hist(activity["by_example"], bins=20, color=PALETTE[2])
    axes.set(xlabel="spikes in an example", ylabel="examples")
    axes.locator_params(axis="y", integer=True)


def operations_figure(result: dict[str, Any]) -> "Figure":
    """Return the figure of the synaptic operations of each synapse, on a logarithmic axis: kinds differ by far."""
    names = list(result["synapses"])
    figure, (axes,) = plots.panels(1, 7, 1.9 + 0.5 * len(names))
    rows = np.arange(len(names))
    for kind, label, color, marker, shift in (
        ("acs", "accumulates (AC)", PALETTE[0], "o", -0.17),
        ("macs", "multiply-accumulates (MAC)", PALETTE[1], "s", 0.17),
    ):
        counts = np.array([result["synapses"][name][kind] for name in names])
        used = counts > 0  # a logarithmic axis has no 0
        axes.plot(counts[used], (rows + shift)[used], marker, color=color, label=label)
        for count, row in zip(counts[used].tolist(), (rows + shift)[used].tolist(), strict=True):
            text, at = f"{count:,.0f}", (count, row)
            axes.annotate(text, at, (-6, 0), textcoords="offset points", ha="right", va="center", fontsize="small")
    dense = [result["synapses"][name]["dense"] for name in names]
    axes.plot(dense, rows, "|", color="black", ms=16, label="all connections")
    axes.set_yticks(rows, [fonts.printable(name) for name in names])
    axes.set(xscale="log", ylim=(len(names) - 0.5, -0.5))
    axes.margins(x=0.2)
    axes.set_xlabel(
        "operations per example\n"
        "MAC: at a time step at which some input of the synapse is not -1, 0 or 1,\n"
        "such as grey values and the averages or sums of spikes"
    )
    axes.grid(axis="x", lw=0.4)
    title = f"{result['run']}: mean of {result['examples']} examples, {energy(result['energy_nj'])} per example"
    figure.suptitle(fonts.printable(title), wrap=True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure
