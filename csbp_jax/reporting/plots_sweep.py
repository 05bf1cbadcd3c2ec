"""Plots of a sweep, from its tables: test accuracy of each setting, and difference from its control."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csbp_jax.reporting import fonts
from csbp_jax.reporting.format import as_number, fields_text, value_text
from csbp_jax.reporting.plots import LEGEND_ROWS, PALETTE, Row, empty_figure, line_style, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_TICKS = 12  # With more values than this, Matplotlib chooses the ticks.
_MAX_CHARACTERS = 30  # of names side by side below a panel


@fonts.with_fallbacks()
def draw_sweep(folder: pathlib.Path, fields: list[str], settings: list[Row], margin: float | None = None) -> None:
    """Draw ``figures/accuracy.{png,pdf}``: test accuracy over the first swept field that is a number, a line for each
    setting of the other fields; without a numeric field, over the values of the first one.

    Where settings have controls, a second row of panels shows the paired differences from these.

    Args:
      folder: the directory of the sweep.
      fields: the swept fields, without the seed.
      settings: rows of ``settings.csv``. Settings without a mean (all seeds diverged) are named below the figure.
      margin: largest difference without importance, in percentage points, drawn as a band.
    """
    if not fields:
        return
    numeric = [field for field in fields if all(as_number(row[field]) is not None for row in settings)]
    across = [*numeric, *fields][0]
    lines: dict[str, list[Row]] = {}
    for row in settings:
        if "last_test_accuracy_mean" in row:
            lines.setdefault(_label(row, [field for field in fields if field != across]), []).append(row)
    paired = any("last_test_accuracy_difference_mean" in row for row in settings)
    columns = math.ceil(len(lines) / LEGEND_ROWS) if len(lines) > len(PALETTE) else 0
    figure = empty_figure(8 + 2.5 * columns, 6.4 if paired else 3.6)
    panels = figure.subplots(1 + paired, 2, sharex=True, sharey="row", squeeze=False)
    draw = _over_numbers if numeric else _over_names
    for column, weights in enumerate(("last", "chosen")):
        above, below = panels[0, column], panels[-1, column]
        draw(above, across, f"{weights}_test_accuracy", lines, settings)
        above.set(title="last epoch" if weights == "last" else "epoch chosen by validation")
        if paired:
            below.axhline(0, color="black", lw=0.8)
            if margin is not None:
                below.axhspan(-margin, margin, color="grey", alpha=0.15, lw=0)
            draw(below, across, f"{weights}_test_accuracy_difference", lines, settings)
        below.set(xlabel=across)
    panels[0, 0].set(ylabel="test accuracy (%), 95 % interval")
    # Margins of the axis beyond what an accuracy can be would be no data.
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(max(low, -0.02 * (high - low)), min(high, 100 + 0.02 * (high - low)))
    if paired:
        panels[1, 0].set(ylabel="difference from the control,\npaired (points), 95 % interval")
    if columns:
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize="x-small", ncols=columns)
    elif any(lines):
        panels[0, 1].legend(fontsize="small")
    if diverged := [_label(row, fields) for row in settings if "last_test_accuracy_mean" not in row]:
        more = f" and {len(diverged) - 4} more" if len(diverged) > 4 else ""
        figure.supxlabel(f"all seeds diverged: {'; '.join(diverged[:4])}{more}", fontsize="small", wrap=True)
    (folder / "figures").mkdir(exist_ok=True)
    for ending in ("png", "pdf"):
        save(figure, folder / "figures" / f"accuracy.{ending}", dpi=150)


def _label(row: Row, fields: Sequence[str]) -> str:
    return fonts.printable(fields_text({field: row[field] for field in fields}))


def _over_numbers(axes: "Axes", across: str, name: str, lines: Mapping[str, list[Row]], settings: list[Row]) -> None:
    def position(row: Row) -> float:
        return float(as_number(row[across]) or 0)

    for i, (label, unsorted) in enumerate(lines.items()):
        rows = sorted((row for row in unsorted if f"{name}_mean" in row), key=position)
        x, (mean, low, high) = [position(row) for row in rows], _interval(rows, name)
        axes.fill_between(x, low, high, alpha=0.15, lw=0, color=line_style(i)["color"])
        axes.errorbar(x, mean, [mean - low, high - mean], label=label, capsize=2, elinewidth=0.8, **line_style(i))
    _set_scale(axes, sorted({position(row) for row in settings}))


def _set_scale(axes: "Axes", positions: Sequence[float]) -> None:
    """Make the axis logarithmic where positive values span a decade; 0 is then linear, left of the smallest of them."""
    positive = [value for value in positions if value > 0]
    if positions[0] < 0 or len(positive) < 2 or positive[-1] < 10 * positive[0]:
        return
    if positions[0] == 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    else:
        axes.set_xscale("log")
    if len(positions) <= _MAX_TICKS:
        axes.set_xticks(positions, [f"{value:g}" for value in positions])
        axes.set_xticks([], minor=True)


def _over_names(axes: "Axes", across: str, name: str, lines: Mapping[str, list[Row]], settings: list[Row]) -> None:
    names = list(dict.fromkeys(value_text(row[across]) for row in settings))
    for i, (label, settings_of_line) in enumerate(lines.items()):
        rows = [row for row in settings_of_line if f"{name}_mean" in row]
        # Lines are side by side, within a third of the distance between names.
        shift = (i + 0.5) / len(lines) / 1.5 - 1 / 3
        x = [names.index(value_text(row[across])) + shift for row in rows]
        mean, low, high = _interval(rows, name)
        axes.errorbar(x, mean, [mean - low, high - mean], label=label, capsize=3, **line_style(i) | {"ls": "none"})
    labels = [fonts.printable(name) for name in names]
    if sum(map(len, labels)) > _MAX_CHARACTERS:
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), labels)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _interval(rows: list[Row], name: str) -> list[NDArray[np.float64]]:
    """Return means and ends of intervals in %; ends are NaN for single values."""
    return [100 * np.array([row[f"{name}_{end}"] for row in rows], float) for end in ("mean", "low", "high")]
