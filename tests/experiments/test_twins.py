"""The study of twins: its fits on courses of known growth, its streams, its twins and its verdicts."""

import json
import pathlib

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import twins

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "results" / "twins"
RECORDS = 4001
STEPS = twins.EVERY * np.arange(RECORDS)
NORM, NO_SPIKES = np.full(RECORDS, 3.0), np.zeros(RECORDS)


def test_the_rate_of_an_exponential_is_measured_until_it_is_far_or_a_spike_differs():
    distance = np.minimum(1e-7 * np.exp(0.02 * STEPS), 1.0)
    assert twins.exponential_rate(distance, NORM, NO_SPIKES) == pytest.approx(0.02)
    jumps = np.where(STEPS >= 400, 1e-2, distance)
    assert twins.exponential_rate(jumps, NORM, np.where(STEPS >= 400, 1.0, 0.0)) == pytest.approx(0.02)
    assert twins.exponential_rate(jumps, NORM, np.where(STEPS >= 150, 1.0, 0.0)) is None  # too short
    assert twins.exponential_rate(0 * distance, NORM, NO_SPIKES) is None


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_growth_exponent_of_a_power_law(alpha):
    lags = np.maximum(STEPS - 1000, 1)
    distance = np.where(STEPS < 1000, 1e-7, 0.1 * lags**alpha)
    assert twins.growth_exponent(distance, NORM) == pytest.approx(alpha, abs=1e-9)


def test_the_growth_exponent_of_random_walks_is_a_half():
    generator = np.random.default_rng(0)
    walks = np.cumsum(generator.normal(size=(RECORDS, 8, 100)), axis=0)
    distance = np.linalg.norm(walks, axis=2)
    alphas = [twins.growth_exponent(distance[:, i], NORM) for i in range(8)]
    assert np.mean(np.array(alphas, float)) == pytest.approx(0.5, abs=0.05)


def test_a_phase_that_is_not_reached_has_no_growth_exponent():
    assert twins.growth_exponent(np.full(RECORDS, 1e-7), NORM) is None
    assert twins.growth_exponent(np.repeat([1e-7, 1.0], [RECORDS - 100, 100]), NORM) is None  # too short


def test_streams_visit_each_example_once_per_epoch():
    batches = twins.stream(50, 1, 7)
    assert batches.shape == (7, 16) and batches.max() < 50
    for epoch in (batches[:3], batches[3:6]):
        assert len(np.unique(epoch)) == 48
    assert not np.array_equal(batches[:3], batches[3:6])
    np.testing.assert_array_equal(batches, twins.stream(50, 1, 7))


@pytest.mark.slow
def test_twins_begin_as_far_apart_as_they_should_and_copies_do_not_part():
    with jax.enable_x64(True):
        source = twins.load("data")
        run = twins.make(source, twins.CONDITIONS["CSBP, 0.25 flips"])
        first, near, ulp = (ravel_pytree(p)[0] for p in _each(twins.twins_of(run.start(0, fixed=True), 0).params))
        assert float(np.linalg.norm(near - first)) == pytest.approx(1e-7)
        np.testing.assert_array_equal(ulp, np.nextafter(first, np.inf))
        courses = twins.follow(run, source, 2, 10)
        assert courses["parameters"].shape == (3, 2, 2) and courses["norm"].shape == (3, 2)
        np.testing.assert_allclose(courses["parameters"][0, :, 0], 1e-7)
        assert (courses["parameters"][1:] > 0).all() and (courses["parameters"] < 1e-6).all()


def _each(stacked):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(3)]


def result(rate, exponent, alpha):
    """Results of a condition whose eight starts scatter a little around these values."""
    scatter = 1e-4 * np.linspace(-1, 1, 8)
    course = [None] * 8 if alpha is None else list(alpha + 100 * scatter)
    return {"exponent": list(exponent + scatter), "1e-7": {"rate": list(rate + 2 * scatter), "alpha": course}}


@pytest.mark.parametrize(
    ("rate", "exponent", "alpha", "verdicts"),
    [
        (0.02, 0.0205, 0.5, ("confirmed", "confirmed")),
        (0.02, 0.03, 0.1, ("refuted", "refuted")),
        (0.0, 0.0, None, ("refuted", "not reached")),
        (0.02, 0.0222, 0.6, ("not decided", "not decided")),
    ],
)
def test_verdicts(rate, exponent, alpha, verdicts):
    assert tuple(twins.verdict(result(rate, exponent, alpha)).values()) == verdicts


def test_the_primary_family_compares_csbp_with_the_others():
    conditions = {name: result(0.01, 0.01, None) for name in twins.PRIMARY}
    csbp = conditions["CSBP, 0.25 flips"] = result(0.02, 0.02, None)
    csbp["1e-7"]["rate"].reverse()
    primary = twins.conclusions(conditions)["primary"]
    assert set(primary) == set(twins.PRIMARY)
    assert all(pair["mean"] == pytest.approx(0.01) and pair["low"] > 0.009 for pair in primary.values())


def test_the_page_is_that_of_the_data():
    content = json.loads((FOLDER / "twins.json").read_text())
    table = (FOLDER / "table.md").read_text()
    assert twins.page(content) + "\n" == table and table in (FOLDER / "README.md").read_text()
    made = twins.conclusions(content["conditions"])
    assert made["verdicts"] == content["verdicts"] and set(made["primary"]) == set(content["primary"])
    for name, pair in made["primary"].items():
        assert pair == pytest.approx(content["primary"][name])
