"""The figure of all contrasts shows the numbers of the pages."""

import pathlib

import pytest

from csbp_jax.reporting import plots
from experiments import forest, study

GROUPS = forest.groups()


DEEP, XOR = "Deep, all labels, small and underfit", "Spiking XOR"
FEW, PLUGGED_IN = "Few labels", "Plugged into other methods, few labels"


@pytest.mark.parametrize(("group", "row", "column", "page"), [
    (DEEP, 0, "plain", "stage_a/README.md"),
    (XOR, 0, "plain", "xor/README.md"),
    (XOR, 0, "drift", "xor/README.md"),
    (FEW, 0, "plain", "arms/README.md"),
    (FEW, 5, "drift", "few_labels/README.md"),
    (PLUGGED_IN, 0, "plain", "plug_in/README.md"),
    (PLUGGED_IN, 0, "drift", "plug_in/README.md"),
    (PLUGGED_IN, 1, "plain", "plug_in/README.md"),
    ("Small tasks, all labels", 3, "plain", "nmnist/README.md"),
])  # fmt: skip
def test_a_row_has_the_interval_of_its_page(group, row, column, page):
    mean, low, high = getattr(GROUPS[group][row], column)
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    words = " ".join((study.RESULTS / page).read_text().split())
    assert text in words or text.replace("+", "") in words


def test_intervals_are_of_95_percent_where_a_study_has_those_of_equality_too():
    """xor/escape/table.md has +39.2 +- 3.1 and -0.9 +- 1.3 beside 90 % intervals."""
    row = forest.stuck_points()
    for interval, (mean, half) in zip((row.plain, row.drift), ((39.2, 3.1), (-0.9, 1.3)), strict=True):
        assert interval is not None
        assert [interval.low, interval.high] == pytest.approx([mean - half, mean + half], abs=0.1)


def test_few_labels_are_those_over_draws_once_all_draws_are_there(monkeypatch):
    def contrast(other, verdict):
        return {"arm": "CSBP", "other": other, "difference": 1.0, "low": 0.5, "high": 1.5, "verdict": verdict}

    found = {"digits": ["better", "equal"], "N-MNIST": ["", ""]}
    contrasts = {name: list(map(contrast, ("plain", "drift"), words)) for name, words in found.items()}
    monkeypatch.setattr(forest, "read", {"arms/arms.json": {"contrasts": contrasts}}.__getitem__)
    interval = forest.Interval(1.0, 0.5, 1.5)
    assert forest.few("digits") == forest.Row("digits", interval, interval, over_draws=True)
    assert forest.few("N-MNIST") == forest.once("N-MNIST") and not forest.once("N-MNIST").over_draws
    assert forest.few("MNIST") == forest.once("MNIST")


def test_a_difference_beyond_the_axis_is_an_arrow_with_its_number(tmp_path):
    interval = forest.Interval(39.0, 36.0, 42.0)
    within = forest.Interval(1.0, 0.0, 2.0)
    forest.draw(
        {"XOR": [forest.Row("beyond", interval), forest.Row("over draws", within, over_draws=True)]}, tmp_path / "a.png"
    )
    assert plots.caption_of((tmp_path / "a.png").read_bytes()).startswith("differences")
    assert pathlib.Path(tmp_path / "a.pdf").stat().st_size > 1000
