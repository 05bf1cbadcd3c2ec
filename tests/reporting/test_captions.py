"""Captions say what a figure shows and from how many examples or epochs, travel in the file, and are in the report."""

import html
import io

import pytest
from PIL import Image

from csbp_jax.evaluation import html_report, inspection
from csbp_jax.reporting import plots, terminal
from csbp_jax.training.metrics_log import read_rows


def caption(file):
    return plots.caption_of(file.read_bytes())


def test_captions_of_training_have_its_length_and_are_in_the_report(trained, tmp_path):
    last = read_rows(trained / "metrics.jsonl")[-1]
    text = caption(trained / "figures" / "training.png")
    assert text.startswith(f"Training over 2 epochs, {last['step']} steps: losses of batches;")
    assert text.endswith(f"and on {last['validation_count']} validation examples.")
    page = html.unescape(html_report.write(trained, tmp_path / "report.html").read_text())
    for name in ("training", "rates"):
        shown = caption(trained / "figures" / f"{name}.png")
        assert f"<figcaption>{shown}</figcaption>" in page and f'alt="{name}"' in page


@pytest.mark.full
def test_captions_of_an_inspection_have_the_number_of_examples(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "output_folder", lambda *_: tmp_path)
    inspection.inspect(trained, examples=3, example=2, console=terminal.Console(file=io.StringIO()))
    figures = {file.stem: caption(file) for file in (tmp_path / "figures" / "inspect").glob("*.png")}
    assert len(figures) == 5
    for name, text in figures.items():
        of = "example 2 of" if name in ("raster", "membranes") else "3 examples of"
        assert f"{of} the test split" in text
    assert "accumulates (AC)" in figures["operations"] and "a row per neuron" in figures["raster"]


@pytest.mark.parametrize("kind", ["other", "text", "cut", pytest.param("bomb", marks=pytest.mark.full)])
def test_an_image_of_others_has_none(kind, trained):
    file = io.BytesIO()
    Image.new("1", (2**15, 2**13) if kind == "bomb" else (2, 2)).save(file, "png")
    png = {"text": b"a", "cut": (trained / "figures" / "rates.png").read_bytes()[:30]}.get(kind, file.getvalue())
    assert plots.caption_of(png) == ""
