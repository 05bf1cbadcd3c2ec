"""Plot of runs: a point for each seed of an arm, pairs joined, with means and intervals."""

import functools
import io
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from csbp_jax.reporting import fonts, plots
from csbp_jax.reporting.statistics import student

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure

_MAX_CHARACTERS = 30  # of names side by side below a panel
_COLUMNS = 4


@fonts.with_fallbacks()
def draw(panels: Mapping[str, pd.DataFrame], label: str) -> "Figure":
    """Draw a panel for each case.

    Args:
      panels: by their titles, values ``[pairs, arms]``, NaN where an arm has no run.
      label: of the values.
    """
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // _COLUMNS)
    widest = max((values.shape[1] for values in panels.values()), default=1)
    figure = plots.empty_figure(columns * (2.0 + 0.7 * min(widest, 12)), 3.6 * rows)
    all_axes = figure.subplots(rows, columns, squeeze=False)
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, values) in zip(all_axes.flat, panels.items(), strict=False):
        positions = np.arange(values.shape[1])
        # Pairs spread around their arm, in the same order in each, so that equal values do not hide each other.
        shifts = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(len(values))
        for shift, pair in zip(shifts, values.to_numpy(), strict=True):
            axes.plot(positions + shift, pair, "-", color="grey", lw=0.5, alpha=0.5, zorder=1)
        for number, arm in enumerate(values):
            color = plots.PALETTE[number % len(plots.PALETTE)]
            axes.plot(number + shifts, values[arm], ".", color=color, alpha=0.7, ms=5, zorder=2)
            if len(finite := values[arm].dropna()):
                mean, low, high = student(finite)
                ends = None if low is None or high is None else [[mean - low], [high - mean]]
                axes.errorbar(number + 0.28, mean, ends, fmt="D", color=color, ms=4, capsize=3, zorder=3)
        labels = [fonts.printable(str(arm)) for arm in values]
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(positions, labels, **turned if sum(map(len, labels)) > _MAX_CHARACTERS else {})
        axes.set_xlim(-0.5, max(len(labels), 1) - 0.5)
        axes.set(title=fonts.printable(title))
    for row in all_axes:
        row[0].set(ylabel=label)
    figure._repr_png_ = functools.partial(png, figure)  # type: ignore[attr-defined]  # for notebooks, without pyplot
    return figure


@fonts.with_fallbacks()
def png(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


@fonts.with_fallbacks()
def save(figure: "Figure", file: pathlib.Path, caption: str) -> None:
    """Save a figure with its caption; beside a PNG also as PDF."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for path in dict.fromkeys((file, file.with_suffix(".pdf") if file.suffix == ".png" else file)):
        plots.save(figure, path, dpi=150, caption=caption)
