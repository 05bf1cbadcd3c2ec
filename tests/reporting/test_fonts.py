"""Text in figures: fallback fonts where they are installed, escapes where no font has a glyph."""

from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from csbp_jax.reporting import fonts, plots

STAR = "\u661f"


@pytest.fixture
def no_fallback(monkeypatch):
    """Ignores the fallback fonts of this machine; the default font has no Chinese characters."""
    monkeypatch.setattr(fonts, "_FALLBACKS", ())


@pytest.fixture
def fallback(tmp_path, monkeypatch):
    """Installs a font with a single character, under the name of a fallback."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    square, name = pen.glyph(), "WenQuanYi Zen Hei"
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "star"])
    builder.setupCharacterMap({ord(STAR): "star"})
    builder.setupGlyf({".notdef": square, "star": square})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "star": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "fullName": name, "psName": "Square"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "square.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "square.ttf")
    monkeypatch.setattr(fonts, "_FALLBACKS", (name,))


def drawn(text):
    """Draws text, where a missing glyph is a warning and so an error, and returns the ink of the figure."""
    with fonts.with_fallbacks():
        figure = plots.empty_figure(1, 1)
        figure.text(0.5, 0.5, text)
        canvas: Any = figure.canvas
        canvas.draw()
        return (255 - np.asarray(canvas.buffer_rgba())[..., 0]).sum()


def test_a_class_that_no_font_can_draw_has_its_number(no_fallback):
    labels = fonts.class_labels(["cat", f"{STAR}{STAR}", "$5$"])
    assert labels == ["cat", "#1", r"\$5\$"]
    assert all(drawn(label) > 0 for label in labels)


def test_other_text_is_escaped(no_fallback):
    assert fonts.printable(f"a{STAR}\n") == "a\\u661f\\n"
    assert drawn(fonts.printable(f"a{STAR}\n")) > 0


def test_an_installed_fallback_draws_the_name(fallback):
    assert fonts.class_labels([STAR, "\u6708"]) == [STAR, "#1"] and fonts.printable(STAR) == STAR
    assert drawn(STAR) > 0
