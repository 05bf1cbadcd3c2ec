"""Tables, terminal output and figures of a sweep."""

import csv
import io
import re

import numpy as np
import pytest

from csbp_jax import sweep
from csbp_jax.reporting import fonts, plots, plots_sweep
from csbp_jax.reporting.pairs import paired_difference
from csbp_jax.reporting.statistics import student_of_shares
from csbp_jax.reporting.terminal import Console
from csbp_jax.sweep import driver, tables


def shown_setting(point, diverged=0, control=None, verdict=None):
    rng = np.random.default_rng(0)
    accuracies = {name: student_of_shares(list(rng.random(3))) for name in tables._ACCURACIES}
    differences = {}
    if control and diverged < 3:
        values, of_control = (dict(enumerate(rng.random(3) / 100)) for _ in range(2))
        paired = paired_difference(values, of_control)
        assert paired is not None
        differences = dict.fromkeys(tables.SHOWN, paired._replace(verdict=verdict))
    return tables.Setting(point, 3, diverged, accuracies if diverged < 3 else {}, control, differences)


def test_the_table_has_a_column_for_each_field_and_cuts_nothing_in_80_columns(tmp_path):
    fields = ("model.neuron.surrogate_param", "chaos.z0.fc1.membrane", "optimizer.name")

    def rows(settings):
        out = io.StringIO()
        driver._print_settings(Console(file=out, width=80), tmp_path, settings, sweep.Comparison())
        lines = out.getvalue().splitlines()
        assert "…" not in out.getvalue() and max(len(line) for line in lines if not line.startswith("note")) <= 80
        return [line for line in lines if line.startswith("│")], out.getvalue()

    settings = [
        shown_setting(dict(zip(fields, point, strict=True)), diverged, "model.neuron.surrogate_param 1.0")
        for point, diverged in (((0.25, 10.0, "adamw"), 0), ((0.5, 30.0, "sgd"), 3))
    ]
    number = r"\+?\d+.\d\d \[-?\d+.\d\d, \+?\d+.\d\d\]"
    lines, text = rows([setting._replace(point=dict(list(setting.point.items())[::2])) for setting in settings])
    assert re.match(rf"│ 0.25 +│ adamw │ +{number} │ +{number} │ +3 │", lines[0])
    assert re.match(r"│ 0.5 +│ sgd +│ +diverged │ +diverged │ +0 of 3 │", lines[1])
    assert re.match(rf"│ 0.25 +│ adamw │ +{number} │ +{number} │ +3 │", lines[2])
    assert "model.neuron.surrogate_param 0.5, optimizer.name sgd: no paired difference, it or its control" in text
    # Where the fields need more room, they are one text, folded between words.
    lines, _ = rows(settings)
    text = " ".join(line.split("│")[1].strip() for line in lines)
    assert "chaos.z0.fc1.membrane 10.0," in text and "optimizer.name adamw" in text
    assert any(re.search(rf"│ +{number} │ +{number} │ +3 │", line) for line in lines)
    assert tables.headings(fields) == ["surrogate param", "z0.fc1.membrane", "name"]
    assert tables.headings(["model.name", "optimizer.name"]) == ["model.name", "optimizer.name"]


def test_a_sweep_without_a_control_says_so(tmp_path):
    out = io.StringIO()
    settings = [shown_setting({"optimizer.lr": lr}) for lr in (0.1, 0.2)]
    driver._print_settings(Console(file=out, width=80), tmp_path, settings, sweep.Comparison())
    assert "note: no setting is another's control, equal but for chaos.z0 0" in out.getvalue()
    assert "difference from" not in out.getvalue()


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws settings by ``draw_sweep``, and returns the figure."""
    made, empty_figure = [], plots.empty_figure

    def recorded(*size):
        made.append(empty_figure(*size))
        return made[-1]

    monkeypatch.setattr(plots_sweep, "empty_figure", recorded)

    def draw(settings, margin=None):
        rows = [tables.flat(setting) for setting in settings]
        plots_sweep.draw_sweep(tmp_path, list(settings[0].point), rows, margin)
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


def test_long_names_below_a_figure_do_not_overlap(drawn, monkeypatch):
    monkeypatch.setattr(fonts, "_FALLBACKS", ())
    names = ("triangle", "rectangle", "sigmoid", "fast_sigmoid", "piecewise_exp", "\u661f")
    figure = drawn([shown_setting({"model.neuron.surrogate": name}) for name in names])
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == [*names[:-1], r"\u661f"]
    assert {label.get_rotation() for label in labels} == {45}


def test_twenty_lines_of_a_figure_look_different(drawn):
    figure = drawn([shown_setting({"chaos.z0": z0, "seed of": n}) for z0 in (0.0, 1.0) for n in range(20)])
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == 20 and len(figure.legends[0].get_texts()) == 20


def test_best_leaves_out_settings_with_diverged_members():
    def setting(z0, mean, diverged=0):
        accuracies = {"chosen_validation_accuracy": student_of_shares([mean, mean])}
        return tables.Setting({"z0": z0}, 3, diverged, accuracies, None, {})

    selected = tables.best([setting(0, 0.5), setting(1, 0.9, diverged=1), setting(2, 0.7)])
    assert selected is not None and selected.point == {"z0": 2}
    assert tables.best([setting(0, 0.5, diverged=1)]) is None


def test_a_figure_over_decades_with_differences(drawn):
    """A logarithmic axis, on which 0 is a tick of its own, and intervals within 0 and 100 %."""
    settings = [
        shown_setting({"chaos.z0": z0}, control="chaos.z0 0.0" if z0 else None) for z0 in (0.0, 3.0, 10.0, 30.0)
    ]
    figure = drawn(settings, margin=2)
    accuracy, _, difference, _ = figure.axes
    assert difference.get_xscale() == "symlog"
    assert [tick.get_text() for tick in difference.get_xticklabels()] == ["0", "3", "10", "30"]
    left, *others = difference.transData.transform([(z0, 0) for z0 in (0, 3, 10, 30)])[:, 0]
    assert np.allclose(np.diff(others) / (others[2] - others[0]), 0.5, atol=0.03) and left < others[0] - 20
    low, high = accuracy.get_ylim()
    assert -5 < low < high < 105
    (bars,) = difference.containers
    expected = 100 * settings[1].differences["last_test_accuracy"].difference.mean
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [(z0, expected) for z0 in (3, 10, 30)])
    assert "paired" in difference.get_ylabel()


@pytest.mark.parametrize(
    ("values", "scale"),
    [((0.001, 0.01, 0.1), "log"), ((0.0, 1.0, 2.0, 3.0), "linear"), ((-1.0, 1.0, 10.0), "linear"), ((5.0,), "linear")],
)
def test_an_axis_is_logarithmic_over_a_decade_of_positive_values(drawn, values, scale):
    assert drawn([shown_setting({"chaos.z0": value}) for value in values]).axes[0].get_xscale() == scale


@pytest.mark.parametrize("diverged", [0, 1, 3])
def test_a_setting_is_read_back_from_its_row(tmp_path, diverged):
    setting = shown_setting({"chaos.z0": "3.0"}, diverged, "chaos.z0 0.0", "better")
    tables.write_csv(tmp_path / "settings.csv", [tables.flat(setting)])
    with open(tmp_path / "settings.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert tables.from_flat(row, ["chaos.z0"]) == setting


def test_pairs_leave_out_diverged_seeds_of_either():
    points = [{"chaos.z0": z0, "seed": seed} for z0 in (0.0, 3.0) for seed in range(3)]
    values = [0.5, 0.6, 0.7, 0.55, 0.66, 0.77]
    rows = [{"diverged": False, **dict.fromkeys(tables._ACCURACIES, value)} for value in values]
    rows[0], rows[5] = {"diverged": True}, {"diverged": True}
    plain, chaotic = tables.settings(points, rows, [None, 0], margin=1)
    paired = chaotic.differences["last_test_accuracy"]
    assert paired.pairs == 1 and paired.difference.mean == pytest.approx(0.06) and paired.verdict == "not decided"
    assert chaotic.control == "chaos.z0 0.0" and plain.differences == {}
    rows[4] = {"diverged": True}
    _, chaotic = tables.settings(points, rows, [None, 0])
    assert chaotic.differences == {} and chaotic.control is not None
