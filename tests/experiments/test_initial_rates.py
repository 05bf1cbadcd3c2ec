"""The study of initial firing rates: its page is that of its data, which say what the page says."""

import json

import numpy as np
import pytest

from experiments import initial_rates
from experiments.study import RESULTS


@pytest.fixture(scope="module")
def content():
    return json.loads((RESULTS / "initial_rates" / "initial_rates.json").read_text())


def test_the_page_is_that_of_its_data(content):
    assert (RESULTS / "initial_rates" / "README.md").read_text() == initial_rates.page(content)


def test_the_page_says_that_a_norm_keeps_rates_in_the_band_only_where_it_does(content):
    first, *others = content["rows"]
    outside = [{**row, "rates": [[0.0] * 12]} if row["condition"] == "batch norm" else row for row in others]
    assert "Batch norm" in initial_rates.page(content)
    assert "Batch norm" not in initial_rates.page(content | {"rows": [first, *outside]})


def test_rates_are_within_the_band_with_a_norm_or_an_initial_rate_and_die_out_with_neither(content):
    rows = {(row["data"], row["network"], row["condition"]): np.array(row["rates"]) for row in content["rows"]}
    assert len(rows) == 12 and all(rates.shape == (content["seeds"], 12) for rates in rows.values())
    low, high = initial_rates.BAND
    for (*_, condition), rates in rows.items():
        if condition == "no norm":
            assert rates[:, 4:].max() < low
        else:
            assert low <= rates.min() and rates.max() <= high
