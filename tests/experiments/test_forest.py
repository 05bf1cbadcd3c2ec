"""The figure of all contrasts shows the numbers of the pages."""

import json
import pathlib

import pytest

from csbp_jax.reporting import plots
from experiments import forest

RESULTS = forest.ROOT / "docs" / "results"
ROWS = {row.label: (row.plain, row.drift) for rows in forest.groups().values() for row in rows}


@pytest.mark.parametrize("label, column, page", [
    ("best of 24 tries, settings of 8 draws", 0, "README.md"),
    ("best of 24 tries, settings of 8 draws", 1, "README.md"),
    ("nine methods, digits as events", 0, "plug_in/README.md"),
    ("nine methods, CIFAR-10, 8x8", 0, "plug_in/README.md"),
    ("nine methods, digits as events", 1, "plug_in/README.md"),
])  # fmt: skip
def test_a_row_has_the_interval_of_its_page(label, column, page):
    interval = ROWS[label][column]
    assert interval is not None
    mean, low, high = interval
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert any(form in (RESULTS / page).read_text() for form in (text, text.replace("+", "")))


def test_intervals_are_of_95_percent_where_the_record_has_those_of_equality_too():
    """xor/escape/table.md has +39.2 +- 3.1 and -0.9 +- 1.3 beside 90 % intervals."""
    for interval, (mean, half) in zip(ROWS["stuck points that are left"], ((39.2, 3.1), (-0.9, 1.3)), strict=True):
        assert interval is not None
        assert [interval.low, interval.high] == pytest.approx([mean - half, mean + half], abs=0.1)


def test_the_regime_of_the_paper_comes_first_and_is_empty_until_it_is_tested():
    (_, rows), *_ = forest.groups().items()
    assert rows == [forest.Row("CNN7 with TEBN, CIFAR-10: not yet tested")]


def test_few_labels_are_those_over_draws_once_all_draws_are_there(tmp_path, monkeypatch):
    def contrast(other, verdict):
        return {"arm": "CSBP", "other": other, "difference": 1.0, "low": 0.5, "high": 1.5, "verdict": verdict}

    found = {"digits": ["better", "equal"], "N-MNIST": ["", ""]}
    content = {name: list(map(contrast, ("plain", "drift"), words)) for name, words in found.items()}
    (tmp_path / "arms.json").write_text(json.dumps({"contrasts": content}))
    monkeypatch.setattr(forest, "ARMS", tmp_path / "arms.json")
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
