"""Plot of robustness: accuracy over the severities of each perturbation."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from csbp_jax.reporting import fonts
from csbp_jax.reporting.plots import LEGEND_ROWS, empty_figure, line_style, save
from csbp_jax.reporting.statistics import Interval

_COLUMNS = 4


class Panel(NamedTuple):
    """A perturbation: its name, the unit of its severities, their labels, and the accuracies at these of each line."""

    name: str
    unit: str
    severities: Sequence[str]
    lines: Mapping[str, Sequence[Interval]]


@fonts.with_fallbacks()
def draw(file: pathlib.Path, panels: Sequence[Panel], title: str) -> None:
    """Draw a panel for each perturbation, with accuracies from clean inputs to the most severe, as PNG.

    Severities are at equal distances, labelled by their values.
    """
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = min(len(panels), _COLUMNS)
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    beside = math.ceil(len(labels) / LEGEND_ROWS) if len(labels) > 1 else 0
    figure = empty_figure(3.2 * columns + 2.5 * beside, 2.8 * rows + 0.4)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        positions = np.arange(len(panel.severities))
        for label, intervals in panel.lines.items():
            number = labels.index(label)
            mean, low, high = (100 * np.array([interval[end] for interval in intervals], float) for end in range(3))
            # Lines side by side, so that intervals of equal accuracies do not hide each other.
            x = positions + 0.15 * ((number + 0.5) / len(labels) - 0.5)
            ax.errorbar(
                x, mean, [mean - low, high - mean], label=label, capsize=2, elinewidth=0.8, **line_style(number)
            )
        ax.set(title=panel.name, xlabel=panel.unit, ylim=(-4, 104))
        ax.set_xticks(positions, panel.severities)
    for row in axes:
        row[0].set(ylabel="accuracy (%)")
    if beside:
        # Not every panel has all lines.
        drawn = (zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes.flat)
        handles = {label: handle for of_panel in drawn for handle, label in of_panel}
        figure.legend(handles.values(), handles, loc="outside right upper", fontsize="small", ncols=beside)
    figure.suptitle(fonts.printable(title), wrap=True)
    file.parent.mkdir(exist_ok=True)
    caption = (
        f"{title}: accuracy under each perturbation, from clean to the most severe. Bars are 95 % intervals, over the "
        "seeds of a setting, or else over examples."
    )
    save(figure, file, dpi=100, caption=caption)
