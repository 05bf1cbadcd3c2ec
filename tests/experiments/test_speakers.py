"""The study of known and unknown speakers: every speaker is left out once, and the means are those of its seeds."""

import json

import numpy as np
import pytest

from csbp_jax.data.source import ArraySource
from experiments import speakers
from experiments.study import PRESETS
from tests.support.case_runs import table_of


@pytest.fixture
def content():
    accuracies = {
        case: {"csbp": [0.1 * i, 0.1 * i], "bp": [0.05 * i, 0.05 * i + 0.02]} for i, case in enumerate(speakers.CASES)
    }
    of_cases = {"ridge": dict.fromkeys(speakers.CASES, 0.25), "test_count": dict.fromkeys(speakers.CASES, 500)}
    return speakers.summary(table_of(accuracies)) | {"seeds": 2, "command": "COMMAND"} | of_cases


def test_the_mean_over_speakers_is_of_each_seed_and_without_the_known_ones(content):
    unknown = content["accuracy"][speakers.UNKNOWN]
    assert unknown["csbp"] == pytest.approx([0.35, 0.35]) and unknown["bp"] == pytest.approx([0.175, 0.195])


def test_differences_are_csbp_minus_plain_backpropagation(content):
    rows = dict(line.strip("| ").split(" | ", 1) for line in speakers.table(content).splitlines()[2:])
    assert list(rows) == [speakers.KNOWN, *speakers.SPEAKERS, speakers.UNKNOWN]
    assert rows["george"].startswith("500 | 10.00 (all equal) | 6.00 [")
    *_, difference, linear = rows["george"].split(" | ")
    assert difference.startswith("4.00 [") and linear == "25.0"
    assert "`COMMAND`" in speakers.page(content) and "has 90.0 to 90.0 %" in speakers.page(content)


def test_how_the_preset_was_chosen_is_not_said_of_other_settings(content):
    assert "The strength $z_0$ = 0.3\nwas chosen by validation" in speakers.page(content | {"fields": []})
    assert "was chosen" not in speakers.page(content | {"fields": ["--chaos.z0", "3"]})


def test_ridge_regression_learns_on_the_training_split_and_is_measured_on_the_test_split():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = rng.poisson(20.0 * np.eye(3)[y][:, None, :] + 1, (600, 4, 3))
    wrong = np.where(np.arange(100) < 25, (y[500:] + 1) % 3, y[500:])
    splits = {"train": ArraySource(x[:500], y[:500], 3), "test": ArraySource(x[500:], wrong, 3)}
    assert speakers.ridge(splits) == 0.75


def test_the_split_of_known_speakers_reaches_95_percent():
    content = json.loads((PRESETS / "fsdd_speakers" / "accuracy.json").read_text())
    assert content["test_count"][speakers.KNOWN] == 300
    assert all(min(arm) >= 0.95 for arm in content["accuracy"][speakers.KNOWN].values())
