"""Plot of an evaluation: intervals, axes of the whole range, and names of classes."""

import numpy as np
import pytest

from csbp_jax.reporting import plots, plots_evaluation
from csbp_jax.reporting.statistics import wilson


@pytest.fixture(scope="module")
def result():
    """An evaluation of 50 examples of three classes, one of which has a Chinese name."""
    matrix = [[20, 0, 0], [4, 11, 0], [0, 9, 6]]
    names = ["cat", "\u661f", "the longest of three names of classes"]
    per_class = [{"class": name, "count": sum(row)} for name, row in zip(names, matrix, strict=True)]
    bins = [
        {"count": 1, "confidence": 0.4, "accuracy": 1.0},
        {"count": 0},
        {"count": 49, "confidence": 0.8, "accuracy": 36 / 49},
    ]
    return {
        "run": "run", "split": "test", "weights_of": "last", "epoch": 5, "count": 50, "accuracy": 0.74, "ece": 0.07,
        "accuracy_by_time": [0.72, 0.74], "per_class": per_class, "confusion": matrix, "calibration": bins,
    }  # fmt: skip


@pytest.fixture(scope="module")
def panels(result):
    figure = plots_evaluation.make_figure(result)
    assert figure.get_suptitle() == "run: 50 examples of the test split"
    return figure.axes


def bar_ends(panel):
    """Returns the lower and upper ends of the error bars of a panel, in %."""
    (bars,) = panel.containers
    return np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])


def test_accuracy_by_time_has_intervals_and_an_axis_of_the_whole_range(panels):
    expected = [[100 * end for end in wilson(correct, 50)] for correct in (36, 37)]
    np.testing.assert_allclose(bar_ends(panels[1]), expected)
    low, high = panels[1].get_ylim()
    assert low < 0 and high > 100
    assert [text.get_text() for text in panels[1].texts] == ["72.0%", "74.0%"]
    assert panels[1].get_lines()[-1].get_ydata()[0] == 40  # 20 of 50 examples are of the most frequent class


def test_a_bin_of_one_example_has_a_wide_interval(panels):
    ends = bar_ends(panels[2])
    np.testing.assert_allclose(ends, [[100 * end for end in wilson(1, 1)], [100 * end for end in wilson(36, 49)]])
    assert ends[0, 0] < 25 and ends[0, 1] == 100


def test_a_class_without_a_glyph_has_a_number_that_is_explained(result, tmp_path):
    other, file = tmp_path / "other.png", tmp_path / "figures" / "evaluation-test-last.png"
    other.touch()
    file.parent.mkdir()
    file.symlink_to(other)
    plots_evaluation.draw(tmp_path, result)  # a missing glyph would be a warning, which is an error
    confusion = plots_evaluation.make_figure(result).axes[0]
    labels = [label.get_text() for label in confusion.get_xticklabels()]
    assert labels == ["cat", "#1", "the longes…of classes"] and "#: its number" in confusion.get_xlabel()
    caption = plots.caption_of(file.read_bytes())
    for words in (
        "on 50 examples of the test split, weights of the last epoch (5)",
        "first 1 to 2 time",
        "Classes: #1",
    ):
        assert words in caption
    assert not file.is_symlink() and file.stat().st_size and not other.stat().st_size
