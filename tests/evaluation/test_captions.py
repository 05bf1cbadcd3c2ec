"""Captions say what a figure shows and from how many examples, epochs or seeds."""

import html
import json

import pytest

from csbp_jax.evaluation import captions, html_report
from csbp_jax.training.metrics_log import read_rows

EVALUATION = {
    "split": "test", "weights_of": "chosen", "epoch": 5, "count": 359, "accuracy_by_time": [0.5, 0.6, 0.7],
    "per_class": [{"class": "cat"}, {"class": "\u661f"}],
}  # fmt: skip


def test_captions_of_training_have_its_length_and_the_number_of_validation_examples(trained):
    text = captions.caption(trained, "training")
    last = read_rows(trained / "metrics.jsonl")[-1]
    assert f"2 epochs, {last['step']} steps" in text and f"{last['validation_count']} validation examples" in text
    assert "batches of 64 examples" in text and "flip ratio" not in text
    assert "Firing rate of each layer" in captions.caption(trained, "rates")


def test_the_report_shows_captions(trained, tmp_path):
    page = html.unescape(html_report.write(trained, tmp_path / "report.html").read_text())
    for name in ("training", "rates"):
        assert f"<figcaption>{captions.caption(trained, name)}</figcaption>" in page and f'alt="{name}"' in page


def test_the_caption_of_an_evaluation_names_classes_that_the_figure_may_number(tmp_path):
    (tmp_path / "evaluation-test-chosen.json").write_text(json.dumps(EVALUATION))
    text = captions.caption(tmp_path, "evaluation-test-chosen")
    for words in (
        "359 examples of the test split",
        "chosen",
        "(5)",
        "logits averaged over the first 1 to 3 time steps",
        "Classes: #1 \u661f.",
    ):
        assert words in text


def test_captions_of_an_inspection_have_the_number_of_examples(tmp_path):
    (tmp_path / "inspect.json").write_text(json.dumps({"split": "train", "examples": 30}))
    for name in ("rates", "spikes", "operations"):
        assert "30 examples of the train split" in captions.caption(tmp_path, f"inspect/{name}")
    for name in ("raster", "membranes"):
        assert "the first example of the train split" in captions.caption(tmp_path, f"inspect/{name}")


@pytest.mark.parametrize("figure", ["mine", "training", "evaluation-test-last", "inspect/raster", "accuracy"])
def test_a_figure_without_its_numbers_keeps_its_name(figure, tmp_path):
    (tmp_path / "inspect.json").write_text("{}")
    for text in ("[" * 100_000, '{"per_class": [{"class": 5}]}'):
        (tmp_path / "evaluation-test-last.json").write_text(text)
        assert captions.caption(tmp_path, figure) == figure
