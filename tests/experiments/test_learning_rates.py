"""The study of learning rates: its sub-steps, its times, and the endpoints of its plan."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.learning_rates import __main__ as rates
from experiments.learning_rates import systems
from experiments.study import RESULTS
from tests.support import small_net

SGD = small_net.Optimizer(name="sgd", lr=0.4, momentum=0.0, schedule="constant")
PLAIN = small_net.Config(model=small_net.CONFIG.model, chaos=small_net.Chaos(), optimizer=SGD)


def test_sub_steps_are_as_many_steps_of_a_smaller_rate_on_the_same_batch(x64):
    recipe = small_net.recipe(PLAIN)
    state, batch = small_net.first_state(recipe), small_net.batch()
    stepped = jax.jit(systems.descend(recipe, 4))(state, batch)
    small = systems.with_rate(state, jnp.float64(0.1))
    for _ in range(4):
        small, _ = small_net.train_step(recipe, small, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), stepped.params, small.params)
    assert float(stepped.hparams["lr"]) == 0.4
    direct, _ = small_net.train_step(recipe, state, batch)
    assert not np.allclose(direct.params["readout"]["kernel"], stepped.params["readout"]["kernel"])


@pytest.mark.slow
def test_a_system_learns_and_its_quantities_are_those_of_a_single_run(monkeypatch):
    monkeypatch.setattr(systems, "MAPS", {"fixed": (64, 1)})
    monkeypatch.setattr(systems, "HELD", 2)
    monkeypatch.setattr(systems, "ACCURACY", 0.15)
    monkeypatch.setattr(systems, "LATER", slice(2, 4))
    system = systems.make("sigmoid", "fixed")
    states = systems.begin(system, 2)
    lr = systems.flip_rate(system, states)
    row = systems.measure(system, "direct", states, lr, 12)
    assert row["flip"]["start"][0] + row["flip"]["start"][1] == pytest.approx(2, rel=2e-2)
    assert np.isfinite(row["exponent"]).all() and np.isfinite(row["growth"]).all() and row["not finite"] == 0
    state = systems.with_rate(systems.member(states, 1), jnp.float32(lr))
    accuracies = []
    for _ in range(12):
        state = system.steps["direct"](state, system.batches[0])
        accuracies.append(np.asarray(system.accuracy(jax.tree.map(lambda leaf: leaf[None], state))))
    assert row["time"][1] == systems.held(np.array(accuracies))[0]


def test_a_time_is_reached_and_held():
    accuracies = np.full((30, 3), 0.5)
    accuracies[3, 0] = accuracies[12:, 0] = 0.95
    accuracies[:, 1] = 0.9
    # The mean of steps 12 to 21 is 0.905.
    np.testing.assert_array_equal(systems.held(accuracies), [12, 1, np.inf])
    np.testing.assert_array_equal(systems.first_passage(accuracies), [4, 1, np.inf])
    np.testing.assert_array_equal(systems.held(accuracies[:5]), [np.inf] * 3)


def test_the_fastest_rate_counts_only_where_all_starts_reach_the_accuracy():
    assert rates.fastest(np.array([[40.0, 50.0], [20.0, 30.0], [1.0, np.nan]])) == 1
    assert rates.fastest(np.full((2, 2), np.nan)) is None


def test_the_zero_is_the_first_from_negative_to_positive():
    assert rates.zero(np.array([[-0.3], [-0.1], [0.1], [-0.2], [0.5]])) == pytest.approx(1.5)
    assert np.isnan(rates.zero(np.array([[0.1], [0.2], [-0.1]])))


@pytest.mark.parametrize(
    "times, exponents, verdict",
    [
        ((40, 20, 10, 30), (-0.2, -0.1, 0.3, 0.5), "coincides"),
        ((10, 20, 30, 40), (-0.3, -0.2, -0.1, 0.5), "does not"),
        ((40, 20, 10, 30), (0.1, 0.2, 0.3, 0.5), "no zero"),
        ((np.nan,) * 4, (-0.2, -0.1, 0.3, 0.5), "no rate counts"),
    ],
)
def test_coincidence_of_the_fastest_rate_and_the_zero(times, exponents, verdict):
    noise = 0.01 * np.random.default_rng(0).normal(size=(4, 8))
    result = rates.coincidence(np.array(times)[:, None] * np.exp(noise), np.array(exponents)[:, None] + noise)
    assert result["verdict"] == verdict


@pytest.mark.parametrize(
    "ratio, spread, verdict",
    [(1.5, 0.01, "slower"), (0.5, 0.01, "faster"), (1.0, 0.02, "equal"), (1.0, 1.0, "not decided")],
)
def test_sub_steps_against_direct_steps(ratio, spread, verdict):
    direct = np.linspace(10.0, 20.0, 8)
    substeps = ratio * direct * np.exp(spread * np.tile([1.0, -1.0], 4))
    pair = rates.ratio_of_times(direct, substeps)
    assert pair is not None
    assert pair["ratio"] == pytest.approx(ratio) and pair["verdict"] == verdict
    assert pair["low"] < ratio < pair["high"]
    assert rates.ratio_of_times(direct, np.where(direct > 15, np.nan, substeps)) is None


def test_the_page_is_made_of_the_committed_results():
    content = json.loads((RESULTS / "learning_rates" / "learning_rates.json").read_text())
    assert len(content["systems"]) == 4
    for results in content["systems"].values():
        assert rates.is_finished(results) and results["endpoints"]["ratios"] == rates.endpoints(results)["ratios"]
    assert rates.page(content) + "\n" == (RESULTS / "learning_rates" / "table.md").read_text()
