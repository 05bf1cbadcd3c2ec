"""Plot of robustness: accuracy over the severities of each perturbation."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from csbp_jax.reporting import fonts, plots
from csbp_jax.reporting.statistics import Interval


class Panel(NamedTuple):
    """A perturbation: its name, the unit of its severities, their labels, and the accuracies at these of each line."""

    name: str
    unit: str
    severities: Sequence[str]
    lines: Mapping[str, Sequence[Interval]]


@fonts.with_default_settings()
def draw(file: pathlib.Path, panels: Sequence[Panel], title: str) -> None:
    """Draw a panel for each perturbation, with accuracies from clean inputs to the most severe, as PNG and PDF.

    Severities are at equal distances, labelled by their values.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    figure, all_axes = plots.panels(len(panels), 3.2, 2.9, sharey=True)
    for axes, panel in zip(all_axes, panels, strict=True):
        positions = np.arange(len(panel.severities))
        for label, intervals in panel.lines.items():
            number = labels.index(label)
            mean, low, high = (100 * np.array([interval[end] for interval in intervals], float) for end in range(3))
            # Lines side by side, so that intervals of equal accuracies do not hide each other.
            x = positions + 0.15 * ((number + 0.5) / len(labels) - 0.5)
            ends = [mean - low, high - mean]
            axes.errorbar(x, mean, ends, label=label, capsize=2, elinewidth=0.8, **plots.line_style(number))
        axes.set(title=panel.name, xlabel=panel.unit, ylim=plots.PERCENT)
        axes.set_xticks(positions, panel.severities)
    plots.label_rows(all_axes, "accuracy (%)")
    if len(labels) > 1:
        plots.legend_beside(figure, all_axes)
    figure.suptitle(fonts.printable(title), wrap=True)
    caption = (
        f"{title}: accuracy under each perturbation, from clean to the most severe. Bars are 95 % intervals, over the "
        "seeds of a setting, or else over examples."
    )
    plots.save(figure, file, caption)
