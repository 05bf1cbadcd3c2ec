"""What the release study tells of its exponents."""

import pytest

from experiments import release

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
    assert release.smallest(SMALL | {"exponents": exponents}) == expected


def test_the_page_tells_what_was_not_run_and_z_by_reduction():
    ratios = {"start": dict.fromkeys(("task", "chaos", "both"), 0.01)}
    content = {"cnn7": {"as released": {"flip_ratio": ratios}}, "small": {"digits, k = 1": SMALL}}
    lines = release.page(content).splitlines()
    assert lines[2] == "| as released, start | 0.01 | 0.01 | 0.01 | not run | not run |"
    assert lines[-1] == "| digits, k = 1 | 100 | 25 | 0.1 | 1 | 0.200 ± 0.010 |"
    nowhere = release.page({"small": {"net": SMALL | {"exponents": [0.0] * 4}}})
    assert nowhere.splitlines()[-1] == "| net | none up to 200 | | | 2 | |"


def test_the_released_config_is_changed_in_data_and_batch_alone():
    config = release.released()
    assert config.chaos.z0 == (15.0, 15.0) and config.chaos.scale == 10 and config.chaos.reduce == "mean"
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.momentum) == ("sgd", 0.1, 0.9)
    assert (config.model.name, config.batch_size, config.data.name) == ("cnn7", 8, "digits_events")
