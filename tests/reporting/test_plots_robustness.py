"""Plot of robustness: its legend."""

from csbp_jax.reporting import plots, plots_robustness
from csbp_jax.reporting.statistics import Interval


def test_the_legend_has_the_lines_of_all_panels(tmp_path, monkeypatch):
    """One of the runs has no gradient, or is of another kind of data."""
    figures, at = [], [Interval(0.9, 0.8, 1.0)] * 2
    monkeypatch.setattr(plots, "save", lambda figure, file, caption: figures.append(figure))
    lines = ({"direct": at}, {"direct": at, "rate": at}, {"events": at})
    panels = [plots_robustness.Panel("pgd", "1/255", ("clean", "2"), of_panel) for of_panel in lines]
    plots_robustness.draw(tmp_path / "figures" / "robustness.png", panels, "title")
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["direct", "rate", "events"]
