"""Tables, terminal output and figures of a sweep, and the interval that they show."""

import io
import re

import numpy as np
import pytest

from csbp_jax.reporting import plots
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.terminal import Console
from csbp_jax.sweep import driver, tables


def shown_setting(point, diverged=0):
    rng = np.random.default_rng(0)
    accuracies = {name: student(list(rng.random(3))) for name in tables._ACCURACIES}
    return tables.Setting(point, 3, diverged, accuracies if diverged < 3 else {})


def test_the_table_has_a_column_for_each_field_and_cuts_nothing_in_80_columns(tmp_path):
    fields = ("model.neuron.surrogate_param", "chaos.z0.fc1.membrane", "optimizer.name")
    settings = [
        shown_setting(dict(zip(fields, point, strict=True)), diverged)
        for point, diverged in (((0.25, 10.0, "adamw"), 0), ((0.5, 30.0, "sgd"), 3))
    ]
    out = io.StringIO()
    driver._print_settings(Console(file=out, width=80), tmp_path, settings)
    text = out.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert re.match(r"│ 0.25 +│ 10.0 +│ adamw +│ +3 │ +0 │ +\d+.\d\d ± \d+.\d\d │ +\d+.\d\d ± \d+.\d\d │", rows[0])
    assert re.match(r"│ 0.5 +│ 30.0 +│ sgd +│ +3 │ +3 │ +diverged │ +diverged │", rows[1])
    assert tables.headings(fields) == ["surrogate param", "z0.fc1.membrane", "name"]
    assert tables.headings(["model.name", "optimizer.name"]) == ["model.name", "optimizer.name"]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws settings by ``draw_sweep``, and returns the figure."""
    made, empty_figure = [], plots.empty_figure

    def recorded(*size):
        made.append(empty_figure(*size))
        return made[-1]

    monkeypatch.setattr(plots, "empty_figure", recorded)

    def draw(settings):
        plots.draw_sweep(tmp_path, list(settings[0].point), [tables.flat(setting) for setting in settings])
        assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 5000
        return made[-1]

    return draw


def test_a_figure_of_names_and_of_a_diverged_setting(drawn):
    settings = [shown_setting({"chaos.term": term}, 3 * (term == "linear")) for term in ("chaos", "drift", "linear")]
    figure = drawn(settings)
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["chaos", "drift", "linear"]
    (bars,) = panel.containers
    expected = [100 * setting.accuracies["last_test_accuracy"].mean for setting in settings[:2]]
    np.testing.assert_allclose(bars.lines[0].get_xydata(), list(zip([0, 1], expected, strict=True)), atol=1e-9)
    assert figure.get_supxlabel() == "all seeds diverged: chaos.term linear"


def test_twenty_lines_of_a_figure_look_different(drawn):
    figure = drawn([shown_setting({"chaos.z0": z0, "seed of": n}) for z0 in (0.0, 1.0) for n in range(20)])
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 20 and len(figure.legends[0].get_texts()) == 20


def test_best_leaves_out_settings_with_diverged_members():
    def setting(z0, mean, diverged=0):
        return tables.Setting({"z0": z0}, 3, diverged, {"chosen_validation_accuracy": student([mean, mean])})

    selected = tables.best([setting(0, 0.5), setting(1, 0.9, diverged=1), setting(2, 0.7)])
    assert selected is not None and selected.point == {"z0": 2}
    assert tables.best([setting(0, 0.5, diverged=1)]) is None


def test_students_interval():
    interval = student([1.0, 2.0, 3.0, 4.0])
    assert interval.mean == 2.5
    assert interval.high is not None
    assert interval.high - interval.mean == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5)
    assert student([0.7]) == (0.7, None, None)
    with pytest.raises(ValueError, match="needs at least one value"):
        student([])
