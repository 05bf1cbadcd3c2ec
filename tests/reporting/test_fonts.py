"""Figures: settings that no file changes, and escapes for what their font has no glyph for."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from csbp_jax.reporting import fonts, plots
from tests.support.checkout import ROOT

DRAW = """
import pathlib
from csbp_jax.config import ConfigError
from csbp_jax.reporting import plots_training
result = {"rates": [1, 2], "losses": [1, 2], "smoothed": [1, 2], "suggested": 1, "steepest": 2}
try:
    plots_training.draw_lr_finder(pathlib.Path("a.png"), result)
except ConfigError as error:
    print(error)
"""


@pytest.mark.full
@pytest.mark.parametrize(
    "content, message",
    [
        (b"text.usetex: True\nfont.size: 40\n", ""),
        (b"\xff", "matplotlibrc: 'utf-8' codec can't decode"),
        (None, "is not a"),
    ],
    ids=["settings", "damaged", "pipe"],
)
def test_a_matplotlibrc_of_the_working_directory_changes_no_figure(tmp_path, content, message):
    """It would be obeyed, and could start LaTeX."""
    folders = tmp_path / "plain", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    os.mkfifo(folders[1] / "matplotlibrc") if content is None else (folders[1] / "matplotlibrc").write_bytes(content)
    lines = [
        subprocess.run(
            [sys.executable, "-c", DRAW], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, text=True,
            stdout=subprocess.PIPE, timeout=120,
        ).stdout
        for folder in folders
    ]  # fmt: skip
    assert lines[0] == "" and message in lines[1] and lines[1].count("\n") == bool(message)
    assert message or (folders[0] / "a.png").read_bytes() == (folders[1] / "a.png").read_bytes()


STAR, HOOKED = "\u661f", "\u1d81"
"""Characters that the font does not have."""


def drawn(text):
    """Draws text, where a missing glyph is a warning and so an error, and returns the ink of the figure."""
    with fonts.with_default_settings():
        figure = plots.empty_figure(1, 1)
        figure.text(0.5, 0.5, text)
        canvas: Any = figure.canvas
        canvas.draw()
        return (255 - np.asarray(canvas.buffer_rgba())[..., 0]).sum()


def test_a_class_that_no_font_can_draw_has_its_number():
    labels = fonts.class_labels(["cat", f"{STAR}{STAR}", "$5$"])
    assert labels == ["cat", "#1", r"\$5\$"]
    assert all(drawn(label) > 0 for label in labels)


def test_other_text_is_escaped():
    assert fonts.printable(f"a{STAR}\n") == "a\\u661f\\n"
    assert drawn(fonts.printable(f"a{STAR}\n")) > 0 and fonts.printable(HOOKED) == "\\u1d81"
