"""The price list of the studies of claims: what is counted, and what it is made of."""

import json

import pytest

from csbp_jax import configs
from csbp_jax.runtime import hardware
from experiments.claims import generalisation, price
from experiments.study import RESULTS

DIGITS = generalisation.DATA_SETS["digits"]


def parts(use=DIGITS):
    model = {"input_shape": (8, 8, 1), "time_steps": 4}
    config = generalisation.small_net(configs.load("digits"), use, model)
    return list(price.parts_of_generalisation(config, use, (180, 359)))


def test_runs_and_steps_are_those_of_the_study():
    """Two arms of 11 conditions: 16 settings of P and 8 of the others on 3 seeds, and 64 tests, of P twice."""
    assert sum(part.runs for part in parts()) == 2 * (16 * 3 + 10 * 8 * 3 + 12 * 64)
    assert {part.name: part.runs for part in parts()}["sam"] == 2 * (8 * 3 + 64)
    assert all(part.steps == 30 * 10 for part in parts())
    assert all(part.examples == 30 * 180 + 2 * 359 + 200 for part in parts())
    forest = list(price.parts_of_forest(price.ForestOptions()))
    assert len(forest) == 9 and all(part.runs == 32 + 3 * 32 and part.steps == 60 * 100 for part in forest)


def test_sums_and_the_estimate():
    small = {"runs": 10, "steps": 100, "examples": 50, "step": 1e6, "example": 1e3, "step seconds": 0.036}
    small |= {"example seconds": 0.0}
    peak = price.SHARE * hardware.PEAK_FLOPS[price.GPU]
    large = small | {"step": 7200 * peak, "example": 0.0}
    sums = price.total([small])
    assert (sums["runs"], sums["steps"], sums["operations"]) == (10, 1000, pytest.approx(1000 * 1e6 + 500 * 1e3))
    assert sums["core hours"] == pytest.approx(0.01)
    assert sums["GPU hours"] == pytest.approx(1000 * price.FASTEST / 3600, rel=1e-3)
    assert price.total([large])["GPU hours"] == pytest.approx(2000)
    assert price.total([large])["dollars"] == pytest.approx(2000 * price.DOLLARS)


@pytest.mark.slow
def test_sam_counts_two_gradients():
    counted = {part.name: price.count(part) for part in parts() if part.name in ("plain", "sam")}
    assert counted["sam"]["step"] == pytest.approx(2 * counted["plain"]["step"], rel=0.2)
    assert all(numbers["step seconds"] > numbers["example seconds"] > 0 for numbers in counted.values())


def test_the_price_list_is_made_from_the_committed_counts():
    folder = RESULTS / "claims"
    content = json.loads((folder / "price.json").read_text())
    assert price.page(content) + "\n" == (folder / "price.md").read_text()
