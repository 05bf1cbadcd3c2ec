"""Plots of a training and of a learning-rate test: their axes."""

from typing import Any

from csbp_jax.reporting import plots


def test_a_loss_has_no_unit(tmp_path, monkeypatch):
    """A cross-entropy is in nats, but a squared error is not."""
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, file, dpi: figures.append(figure))
    result = {"rates": [0.1, 1.0], "losses": [2.0, 1.0], "smoothed": [2.0, 1.0], "suggested": 0.1, "steepest": 1.0}
    plots.draw_lr_finder(tmp_path / "lr.png", result)
    losses = plots.empty_figure(4, 3).subplots()
    plots._losses(losses, [{"step": 1, "task_loss": 0.1, "chaos_loss": 0.0}])
    assert losses.get_ylabel() == "loss of a batch" and figures[0].axes[0].get_ylabel() == "task loss"


def test_a_pdf_holds_no_date(tmp_path):
    plots.save(plots.empty_figure(1, 1), tmp_path / "a.pdf", dpi=10)
    assert b"Date" not in (tmp_path / "a.pdf").read_bytes()
