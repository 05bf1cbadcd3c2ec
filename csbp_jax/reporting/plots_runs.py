"""Plots of runs: a point for each seed of an arm, pairs joined, with means and intervals; and learning curves."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from csbp_jax.reporting import fonts, plots
from csbp_jax.reporting.statistics import mean_and_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Figure

_MAX_CHARACTERS = 30  # of names side by side below a panel


@fonts.with_default_settings()
def draw(panels: Mapping[str, pd.DataFrame], label: str, scale: int = 1) -> "Figure":
    """Draw a panel for each case.

    Args:
      panels: by their titles, values ``[pairs, arms]``, NaN where an arm has no run.
      label: of what is drawn, the values times ``scale``.
      scale: 100 for shares, whose intervals stay within 0 and 100.
    """
    widest = max((values.shape[1] for values in panels.values()), default=1)
    figure, all_axes = plots.panels(len(panels), 2.0 + 0.7 * min(widest, 12), 3.6)
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        _pairs(axes, values, scale)
        axes.set(title=fonts.printable(title))
    plots.label_rows(all_axes, label)
    return _shown(figure)


def _pairs(axes: "Axes", values: pd.DataFrame, scale: int) -> None:
    positions = np.arange(values.shape[1])
    # Pairs spread around their arm, in the same order in each, so that equal values do not hide each other.
    shifts = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(len(values))
    for shift, pair in zip(shifts, scale * values.to_numpy(), strict=True):
        axes.plot(positions + shift, pair, "-", color="grey", lw=0.5, alpha=0.5, zorder=1)
    for number, arm in enumerate(values):
        color = plots.PALETTE[number % len(plots.PALETTE)]
        axes.plot(number + shifts, scale * values[arm], ".", color=color, alpha=0.7, ms=5, zorder=2)
        if len(finite := values[arm].dropna()):
            mean, low, high = scale * mean_and_ends(finite, scale == 100)
            ends = None if np.isnan(low) else [[mean - low], [high - mean]]
            axes.errorbar(number + 0.28, mean, ends, fmt="D", color=color, ms=4, capsize=3, zorder=3)
    labels = [fonts.printable(str(arm)) for arm in values]
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(positions, labels, **turned if sum(map(len, labels)) > _MAX_CHARACTERS else {})
    axes.set_xlim(-0.5, max(len(labels), 1) - 0.5)


@fonts.with_default_settings()
def draw_curves(curves: pd.DataFrame, measure: str, label: str, scale: int = 1) -> "Figure":
    """Draw a panel for each case: the mean over seeds of each arm at each epoch, with its 95 % interval.

    Args:
      curves: with columns ``case``, ``arm``, ``epoch`` and ``measure``.
      measure: the column that is drawn.
      label, scale: as of :func:`draw`.
    """
    cases = curves.groupby("case", sort=False)
    figure, all_axes = plots.panels(len(cases), 5, 3.6)
    arms = list(dict.fromkeys(curves["arm"]))
    for axes, (case, of_case) in zip(all_axes, cases, strict=True):
        for arm, of_arm in of_case.groupby("arm", sort=False):
            rows = of_arm.dropna(subset=[measure])
            epochs = np.unique(rows["epoch"])
            ends = [mean_and_ends(rows[measure][rows["epoch"] == epoch], scale == 100) for epoch in epochs]
            mean, low, high = scale * np.reshape(ends, (-1, 3)).T
            style = plots.line_style(arms.index(arm)) | {"marker": "." if len(ends) <= 50 else None}
            axes.plot(epochs, mean, lw=1, label=fonts.printable(str(arm)), **style)
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, lw=0)
        axes.set(title=fonts.printable(str(case)), xlabel="epoch")
        axes.locator_params(axis="x", integer=True)
    plots.label_rows(all_axes, label)
    plots.legend_beside(figure, all_axes)
    return _shown(figure)


def _shown(figure: "Figure") -> "Figure":
    figure._repr_png_ = functools.partial(plots.png, figure)  # type: ignore[attr-defined]  # for notebooks, without pyplot
    return figure
