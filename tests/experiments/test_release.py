"""Rows and conditions of the release study."""

import numpy as np
import pytest

from experiments.release import cnn7, small
from experiments.release.__main__ import page

SMALL = {
    "ratios": [0.0, 0.5, 1.0, 2.0],
    "z_mean": [0.0, 50.0, 100.0, 200.0],
    "elements": 1000,
    "channels": 4,
    "exponents": [0.0, 0.03, 0.2, 0.3],
    "stderr": [0.0, 0.01, 0.01, 0.2],
}


@pytest.mark.parametrize(
    "exponents, expected", [([0.0, 0.03, 0.2, 0.3], 2), ([0.0, 0.05, 0.2, 0.3], 1), ([0.3, 0.1, 0.2, 0.3], None)]
)
def test_the_smallest_chaotic_strength_is_above_its_error_and_above_no_term(exponents, expected):
    assert small.smallest(SMALL | {"exponents": exponents}) == expected


def test_the_page_names_missing_runs_and_gives_z_by_reduction():
    ratios = {"start": dict.fromkeys(("task", "chaos", "both"), 0.01)}
    norms = {"norm": [2.0, 1.0], "others": [[1.0, 2.5], [1.0, 1.0, 2000.0]]}
    released = {"as released": {"flip_ratio": ratios} | norms, "z = 0": {"norm": [1.0, 1.0]}}
    content = {"cnn7": released, "small": {"digits, k = 1": SMALL}}
    lines = page(content).splitlines()
    others = "2.5 times in 2, 2e+03 times in 3"
    assert lines[2] == f"| as released, start | 0.01 | 0.01 | 0.01 | 2 | 0.5 times | {others} | not run | not run |"
    assert lines[3] == "| z = 0, start | not run | not run | not run | 2 | 1 times | not run | not run | not run |"
    assert lines[-1] == "| digits, k = 1 | 100 | 25 | 0.1 | 1 | 0.200 ± 0.010 |"
    calm = page({"small": {"net": SMALL | {"exponents": [0.0] * 4}}})
    assert calm.splitlines()[-1] == "| net | none up to 200 |  |  | 2 |  |"


def test_the_released_config_differs_only_in_data_and_batch_size():
    config = cnn7.released()
    assert config.chaos.z0 == (15.0, 15.0) and config.chaos.scale == 10 and config.chaos.reduce == "mean"
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.momentum) == ("sgd", 0.1, 0.9)
    assert (config.model.name, config.batch_size, config.data.name) == ("cnn7", 8, "digits_events")


def test_cnn7_is_measured_with_the_term_its_drift_and_without():
    conditions = cnn7.conditions(cnn7.released())
    assert {name: (config.optimizer.lr, config.chaos.z0, config.chaos.term) for name, config in conditions.items()} == {
        "as released": (0.1, (15.0, 15.0), "chaos"),
        "as released, z = 0": (0.1, (0.0,), "chaos"),
        "as released, drift": (0.1, (15.0, 15.0), "drift"),
        "rate 0.01": (pytest.approx(0.01), (15.0, 15.0), "chaos"),
        "rate 0.01, z = 0": (pytest.approx(0.01), (0.0,), "chaos"),
    }


def test_a_run_that_ran_away_has_local_exponents_and_no_exponent():
    away = cnn7.exponents((None, None, np.array([[0.1], [0.2], [np.inf]])))
    assert away == {"exponent": None, "stderr": None, "local": [0.1, 0.2, None]}
    assert cnn7.exponent_text(away) == "none: ran away"
    assert cnn7.growth_text({"local": [9.0] * 20 + [0.5] * 50 + [None]}) == "+0.50"
    calm = cnn7.exponents((None, None, np.r_[np.full(100, 5.0), np.full(200, 0.25)][:, None]))
    assert calm["exponent"] == pytest.approx(0.25) and len(calm["local"]) == 300


def test_new_strengths_join_the_known_in_order():
    known = {"ratios": [0.0, 1.0], "z_mean": [0.0, 9.0], "exponents": [0.0, 0.1], "stderr": [0.0, 0.01]}
    new = {"ratios": [0.5], "z_mean": [4.5], "exponents": [0.05], "stderr": [0.02], "elements": 8, "channels": 2}
    merged = small.merged(known, new)
    assert merged["ratios"] == [0.0, 0.5, 1.0] and merged["exponents"] == [0.0, 0.05, 0.1] and merged["elements"] == 8
    assert small.merged({"ratios": [], "exponents": [], "stderr": []}, new) == new
