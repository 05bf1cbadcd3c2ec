"""Parts of all figures: panels, colours, legends, and files with a caption."""

import io
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from csbp_jax.config import writing
from csbp_jax.reporting import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinguishable with colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PERCENT = (-4, 104)
"""Limits of an axis of accuracies: the whole range, so that small differences look small."""
_COLUMNS = 4
"""Most panels side by side."""
_LEGEND_ROWS = 18
"""Entries of a legend that fit beside a panel."""


def empty_figure(width: float, height: float) -> "Figure":
    """Create an empty figure; sizes in inches."""
    # Matplotlib takes half a second to import, and a headless machine needs its Agg canvas, not pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, width: float, height: float, **options: Any) -> "tuple[Figure, list[Axes]]":
    """Create a figure of ``count`` panels, at most four side by side, of a size in inches; options of ``subplots``."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = empty_figure(columns * width, rows * height)
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def label_rows(axes: "Sequence[Axes]", label: str) -> None:
    """Label the vertical axis of the first panel of each row."""
    for first in axes[::_COLUMNS]:
        first.set(ylabel=label)


def legend_beside(figure: "Figure", axes: "Sequence[Axes]", fontsize: str = "small") -> None:
    """Add a legend of the lines of all panels, which need not have the same, on the right of a figure, and widen it."""
    drawn = (zip(*of_panel.get_legend_handles_labels(), strict=True) for of_panel in axes)
    handles = {label: handle for of_panel in drawn for handle, label in of_panel}
    columns = math.ceil(len(handles) / _LEGEND_ROWS)
    legend = figure.legend(handles.values(), handles, loc="outside right upper", fontsize=fontsize, ncols=columns)
    figure.set_figwidth(figure.get_figwidth() + legend.get_window_extent().width / figure.dpi)


def line_style(i: int) -> dict[str, Any]:
    """Return the style of line ``i``: when colours repeat, line style and marker change."""
    turn = i // len(PALETTE)
    return {"color": PALETTE[i % len(PALETTE)], "ls": ("-", "--", ":", "-.")[turn % 4], "marker": ".s^xD+v"[turn % 7]}


@fonts.with_default_settings()
def save(figure: "Figure", file: pathlib.Path, caption: str = "", dpi: int = 100) -> None:
    """Save a figure, and beside a PNG also as PDF. Links in the place of the files are replaced, not followed.

    Equal figures are equal files. The caption, what is drawn and from how many examples, epochs or seeds, is in their
    metadata (:func:`caption_of`).
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    for path in [file, *([file.with_suffix(".pdf")] if file.suffix == ".png" else [])]:
        of_pdf = {"CreationDate": None, "Subject": caption}
        with writing(path):
            path.unlink(missing_ok=True)
            figure.savefig(path, dpi=dpi, metadata=of_pdf if path.suffix == ".pdf" else {"Description": caption})


@fonts.with_default_settings()
def png(figure: "Figure", dpi: int = 100) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def caption_of(png: bytes) -> str:
    """Return the caption in a PNG of :func:`save`; nothing of another image, or of what is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            return str(image.info.get("Description", ""))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""
