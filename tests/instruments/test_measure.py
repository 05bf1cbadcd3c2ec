"""All instruments on a small net, where the answer is known."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from csbp_jax import data, dynamics, learner
from csbp_jax.config import ConfigError, Optimizer, replaced
from csbp_jax.instruments import classify, measure, training_map
from csbp_jax.training import flip_meter
from csbp_jax.training.build import resolve
from tests.support.small_map import CALM, DENSE, STEPS_PER_EPOCH

PLAN = measure.Plan(6, 2, 2, (1e-8, 1e-3))


@pytest.fixture(scope="module")
def splits():
    return data.load(DENSE)


@pytest.fixture(scope="module")
def batches(splits):
    return training_map.batches(resolve(DENSE, splits), splits["train"], 2)


@pytest.fixture(scope="module")
def run(splits, batches):
    config = resolve(replaced(DENSE, "loss.name", "mse"), splits)
    return training_map.make(config, batches[0], STEPS_PER_EPOCH)


def with_rate(run, lr):
    """The map at another learning rate, which is traced: its programs stay the same."""

    def start(seed, fixed):
        state = run.start(seed, fixed)
        return state.replace(hparams=state.hparams | {"lr": np.float64(lr) + 0 * state.hparams["lr"]})

    return types.SimpleNamespace(
        recipe=run.recipe, step=run.step, readouts=run.readouts, flip_ratio=run.flip_ratio, start=start
    )


@pytest.mark.full
def test_a_run_that_does_not_move_is_neutral_in_all_instruments(run, batches):
    assert not np.array_equal(batches[0]["x"], batches[1]["x"])
    measured = measure.measure(with_rate(run, 0.0), batches, PLAN)
    np.testing.assert_allclose(measured["tangent"]["exponents"], 0, atol=1e-12)
    assert measured["neutral"] == 2 and measured["size"] == 1 and measured["counted"] == 4
    sized = measured["finite_size"]
    np.testing.assert_allclose([sized[name]["exponents"] for name in ("parameters", "logits")], 0, atol=1e-6)
    flipped = np.array(measured["apart"]["spikes"])[0] ** 2
    assert sized["spikes"][0] == flipped[0] == 0  # 1e-8 apart
    # The parameters keep their distance; with annealing z the moment, which is the gradient, changes its share of it.
    assert len(measured["cumulated"]) == 6 and np.max(np.abs(measured["cumulated"])) < 1
    distances = {name: np.array(values) for name, values in measured["apart"].items()}
    assert {name: values.shape for name, values in distances.items()} == {
        "deltas": (2,), "parameters": (7, 2), "logits": (7, 2), "spikes": (7, 2),
    }  # fmt: skip
    for name in ("parameters", "logits", "spikes"):
        np.testing.assert_allclose(distances[name], np.broadcast_to(distances[name][0], (7, 2)), rtol=1e-9)
    # Of the dynamical leaves, the moments are half.
    of_parameters = distances["parameters"]
    assert np.all((of_parameters > 0.3 * distances["deltas"]) & (of_parameters <= distances["deltas"]))
    assert np.all(distances["logits"] > 0) and np.all(distances["spikes"] ** 2 == np.round(distances["spikes"] ** 2))
    assert measured["flip_ratio"]["start"] == dict.fromkeys(flip_meter.PARTS, 0.0)
    assert classify.classify(measured) == "not decided"  # four steps show nothing


def test_a_run_whose_steps_are_skipped_runs_away(run, batches):
    """Its steps are not finite, so that its map is the identity, whose exponent is 0."""
    # One exponent, as of the annealed run, whose program it shares.
    measured = measure.measure(with_rate(run, 1e200), batches, dataclasses.replace(PLAN, exponents=1))
    assert measured["tangent"]["exponents"] == pytest.approx([0], abs=1e-15)
    assert classify.classify(measured) == "runs away"


def test_a_map_that_rounds_its_weights_is_not_measured(run, batches):
    """Two runs 1e-8 apart would differ by jumps of rounded weights, 2**-8 of a weight each."""
    rounding = replaced(run.recipe.config, "model.precision", "bfloat16")
    with pytest.raises(ConfigError, match=r"^model\.precision: bfloat16 is not possible"):
        measure.measure(training_map.make(rounding, batches[0], STEPS_PER_EPOCH), batches, PLAN)


def test_nothing_is_measured_on_a_tpu_which_has_no_float64(run, batches, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(ConfigError, match="JAX_PLATFORMS: TPUs have no float64"):
        measure.measure(run, batches, PLAN)


@pytest.mark.full
def test_adam_without_eps_root_has_no_exponent_where_inputs_are_dead(run, batches):
    probe = batches[0]
    adam = replaced(run.recipe.config, "optimizer", Optimizer(name="adam", lr=1e-3))
    assert not np.any(probe["x"][:, :, 0, 0])  # a pixel that is dark in all digits
    state = training_map.make(adam, probe, STEPS_PER_EPOCH).start(0, True)

    def classified(eps_root):
        run = training_map.make(replaced(adam, "optimizer.eps_root", eps_root), probe, STEPS_PER_EPOCH)
        exponents, errors, _ = dynamics.lyapunov(
            run.step, state, [probe] * 4, 1, dynamical_leaves=learner.dynamical_leaves(state)
        )
        return classify.classify(CALM | {"tangent": {"exponents": exponents.tolist(), "stderr": errors.tolist()}})

    assert classified(0.0) == "no exponent" != classified(1e-12)
