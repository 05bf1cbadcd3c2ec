"""The study of ergodicity: its systems, their equivalent copies, its measures and its verdicts."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest

from csbp_jax.runtime.hardware import float64
from experiments import one_neuron
from experiments.cbp import exponents
from experiments.cbp import net as cbp
from experiments.ergodic import lags, measure, pages, systems
from tests.experiments.test_ergodic_series import draw

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "results" / "ergodic"
XOR, CBP = systems.spiking_xor(), systems.cbp_xor()


@pytest.fixture(autouse=True, scope="module")
def _x64():
    with float64():
        yield


def exchanged(params, inputs, hidden):
    """The net with its inputs and its hidden neurons in another order."""
    w1, b1, w2 = params["w1"][inputs][:, hidden], params["b1"][hidden], params["w2"][hidden]
    return params | {"w1": w1, "b1": b1, "w2": w2}


@pytest.mark.parametrize("system", [XOR, CBP], ids=["XOR", "CBP"])
def test_copies_are_the_observables_of_exchanged_nets(system):
    params, *others = system.start(3, 20.0, None)
    params = {name: 3 * tensor for name, tensor in params.items()}
    observe = jax.jit(system.observe)
    values = np.asarray(observe((params, *others)))
    orders = itertools.product(([0, 1], [1, 0]), repeat=2)
    for copy, (inputs, hidden) in zip(system.copies, orders, strict=True):
        moved = exchanged(params, np.array(inputs), np.array(hidden))
        np.testing.assert_allclose(observe((moved, *others)), values[copy], rtol=1e-12)
    assert len(system.names) == len(values) == 14


def test_steps_are_those_of_the_studies_they_come_from():
    key = jax.random.key(0)
    state = CBP.start(1, 24.0, None)
    ours = jax.jit(CBP.step)(state, key)[0]
    theirs = jax.jit(exponents.push, static_argnums=0)(cbp.Kind(), state[:2], None)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), ours, theirs)
    neuron = systems.neuron()
    weights, z = state = neuron.start(2, 8.6, None)
    expected, _ = jax.jit(one_neuron.update, static_argnames="time_steps")(weights, z, 1.0, time_steps=20)
    np.testing.assert_allclose(jax.jit(neuron.step)(state, key)[0], expected, rtol=1e-9)


def test_noise_has_the_size_of_each_tensor():
    sizes = {"w1": 1.0, "b1": 2.0, "w2": 0.0, "b2": 3.0}
    system = systems.cbp_xor(cbp.Kind(kick=None), noisy=True)
    state = system.start(0, 24.0, sizes)
    keys = jax.random.split(jax.random.key(1), 2000)
    moved = jax.jit(jax.vmap(lambda key: system.step(state, key)[0]))(keys)
    for name, size in sizes.items():
        np.testing.assert_allclose(moved[name].std(axis=0), size, rtol=0.1, atol=1e-12)


def test_aligned_orbits_are_equivalent_copies():
    orbit = np.random.default_rng(0).normal(size=(100, 14)) + np.arange(14)
    orbits = np.stack([orbit[:, copy] for copy in XOR.copies])
    for copy in measure.aligned(orbits, XOR.copies):
        np.testing.assert_array_equal(copy, orbit)


def test_a_record_counts_the_pushes_and_the_functions():
    record = measure.record(CBP, 24.0, 16, 20)
    assert record.functions is not None and record.pushes is not None
    assert record.orbits.shape == (16, 20, 14) and record.functions.shape == (16, 20)
    np.testing.assert_allclose(record.orbits[:, -1, 8], record.states[0]["b2"][:, 0])
    kick = np.abs(np.diff(record.orbits[:, :, 8], axis=1))  # with the task's gradient, which is far smaller
    assert record.pushes["b2"] == pytest.approx(np.sqrt(np.mean(kick**2)), rel=0.2)


def test_visits_are_counted():
    functions = np.array([[0, 0, 6, 6], [3, 3, 3, 3]], np.uint8)
    result = measure.visits(functions)
    assert result["distinct"] == [2, 1] and result["union"] == 3 and result["xor"] == [0.5, 0]
    np.testing.assert_allclose(result["effective"], [2, 1])
    assert result["steps_per_change"] == [4, 4]
    assert result["steps"] == [1, 2, 3] and result["curve"] == [1, 1, 1.5]


def test_noise_is_random_like_and_chaos_is_not():
    white, logistic, cycle = (draw(name, 5) for name in ("white noise", "logistic, r = 4", "period 8"))
    assert measure.random_like(white)["random_like"]
    chaos = measure.random_like(logistic)
    assert chaos["k"] > 0.9 and chaos["entropy_p"] <= 0.025 and not chaos["random_like"]
    assert not measure.random_like(cycle)["random_like"]


@pytest.mark.parametrize(
    ("passes", "groups", "verdict"),
    [
        ([True] * 20, [64], "confirmed"),
        ([True] * 19 + [False], [64], "confirmed"),
        ([True] * 18 + [False] * 2, [64], "not decided"),
        ([True] * 20, [63, 1], "refuted"),
    ],
)
def test_verdicts_on_ergodicity(passes, groups, verdict):
    assert measure.verdict_ergodic([{"passes": p} for p in passes], groups) == verdict


def test_verdicts_on_a_claim():
    assert pages.claim_verdict(["confirmed", "confirmed"]) == "confirmed"
    assert pages.claim_verdict(["confirmed", "refuted"]) == pages.claim_verdict(["bounded", "not decided"]) == "bounded"
    # Refuted in at least one and confirmed in none, as the plan says: bounded elsewhere does not prevent it.
    assert pages.claim_verdict(["bounded", "refuted"]) == pages.claim_verdict(["refuted", "not decided"]) == "refuted"
    assert pages.claim_verdict(["not decided"]) == pages.claim_verdict([]) == "not decided"
    more, less = {"mean": 2.0, "p_holm": 1e-4}, {"mean": -2.0, "p_holm": 1e-4}
    texts = [pages.verdict_visits({"a": a, "b": b}) for a, b in ((more, more), (more, less), (less, less))]
    assert texts == ["confirmed", "bounded", "refuted"]
    series = [{"random_like": True}] * 9 + [{"random_like": False}]
    assert measure.verdict_random(series) == "confirmed" and measure.verdict_random(series[5:]) == "bounded"
    assert measure.verdict_random(series[8:]) == "refuted" and measure.verdict_random([]) == "not decided"


def test_conclusions_follow_from_the_data():
    content = json.loads((FOLDER / "ergodic.json").read_text())
    for conditions in content["systems"].values():
        for result in conditions.values():
            if "observables" in result:
                assert result["ergodic"] == measure.verdict_ergodic(result["observables"], result["groups"])
    made = json.loads(json.dumps(pages.conclusions(content["systems"])))
    assert made["verdicts"] == content["verdicts"] and made["overall"] == content["overall"]


@pytest.mark.full
def test_a_chaotic_map_looks_random_at_a_distance_and_a_generator_at_once():
    """The known answers of the plan by lag."""

    def passing(name, lag):
        return sum(
            measure.random_like(series, seed)["random_like"] for seed, series in enumerate(lags.series_of(name, lag, 4))
        )

    assert [passing("logistic map, r = 4", lag) for lag in (1, 12)] == [0, pytest.approx(4, abs=1)]
    assert passing("Park and Miller's generator", 1) >= 3
    x = lags.series_of("Henon's map", 1, 2)
    np.testing.assert_allclose(x[:, 2:], 1 - 1.4 * x[:, 1:-1] ** 2 + 0.3 * x[:, :-2], atol=1e-9)
    x = lags.series_of("Henon's map", 3, 2)
    assert x.shape == (2, 1000)


def test_a_system_passes_from_the_lag_from_which_on_all_shares_are_high():
    def of(*passing):
        series = {str(lag): [True] * n + [False] * (10 - n) for lag, n in zip(lags.LAGS, passing, strict=True)}
        return {"time": 2.0, "random_like": series}

    assert lags.passes_from(of(0, 9, 3, 9, 10, 9)) == 6 and lags.passes_from(of(0, 0, 10, 10, 10, 8)) is None
    row = lags.page({"systems": {"map": of(0, 9, 3, 9, 10, 9)}}).splitlines()[-1]
    assert row == "| map | 10 | 2 | 0 | 90 | 30 | 90 | 100 | 90 | lag 6 |"
