"""Plots of a training and of a learning-rate test: their axes."""

from typing import Any

import pytest

from csbp_jax.reporting import plots, plots_training


def test_a_loss_has_no_unit(tmp_path, monkeypatch):
    """A cross-entropy is in nats, but a squared error is not."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, file, dpi: figures.append(figure))
    result = {"rates": [0.1, 1.0], "losses": [2.0, 1.0], "smoothed": [2.0, 1.0], "suggested": 0.1, "steepest": 1.0}
    plots_training.draw_lr_finder(tmp_path / "lr.png", result)
    losses = plots.empty_figure(4, 3).subplots()
    plots_training._losses(losses, [{"step": 1, "task_loss": 0.1, "chaos_loss": 0.0}])
    assert losses.get_ylabel() == "loss of a batch" and figures[0].axes[0].get_ylabel() == "task loss"


def test_a_png_has_its_pdf_beside_it_without_a_date(tmp_path):
    other = tmp_path / "other"
    other.touch()
    (tmp_path / "a.pdf").symlink_to(other)
    plots.save(plots.empty_figure(1, 1), tmp_path / "a.png", "A caption.", dpi=10)
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf[:4] == b"%PDF" and b"A caption." in pdf and b"Date" not in pdf and not other.stat().st_size
    assert plots.caption_of((tmp_path / "a.png").read_bytes()) == "A caption."
    plots.save(plots.empty_figure(1, 1), tmp_path / "b.svg")
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.pdf", "b.svg", "other"}


@pytest.mark.parametrize(("count", "labelled"), [(1, 1), (4, 1), (5, 2)])
def test_panels_fill_rows_of_four_of_which_the_first_are_labelled(count, labelled):
    figure, axes = plots.panels(count, 2, 2)
    plots.label_rows(axes, "accuracy")
    assert len(figure.axes) == count and [of.get_ylabel() for of in axes].count("accuracy") == labelled


def test_a_legend_beside_a_figure_widens_it():
    figure, axes = plots.panels(1, 3, 3)
    for number in range(20):
        axes[0].plot([0, 1], label=f"setting {number}")
    plots.legend_beside(figure, axes)
    assert figure.get_figwidth() > 4.5 and len(figure.legends[0].get_texts()) == 20
