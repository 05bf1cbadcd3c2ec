"""The laboratory on a small net: what it must find where the answer is known, and its words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import configs, controls, data, dynamics, learner
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import classify, measure, training_map
from csbp_jax.training import flip_meter
from csbp_jax.training.compiled import resolve

DENSE = dataclasses.replace(
    configs.load("digits"),
    batch_size=48,
    chaos=Chaos(z0=(4.0,), beta=0.5, anneal="step", taps=("fc1.dense",), scale=1.0, reduce="neuron"),
    optimizer=Optimizer(name="sgd", lr=0.0, momentum=0.0, schedule="constant"),
    model=dataclasses.replace(configs.load("digits").model, name="dense", features=(4,), time_steps=2),
)
NAN = float("nan")
CALM = {
    "tangent": {"exponents": [-0.1, -0.2], "stderr": [0.01, 0.01]},
    "finite_size": {"exponents": [-0.1, 0.0], "stderr": [0.01, 0.01]},
    "cumulated": [0.0, 0.5],
    "counted": 200,
    "size": 1.2,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return data.load(DENSE, tmp_path_factory.mktemp("data"))


def test_a_run_that_does_not_move_is_neutral_in_all_instruments(parts):
    config = resolve(DENSE, parts)
    given = training_map.batches(config, parts["train"], 2)
    assert not np.array_equal(given[0]["x"], given[1]["x"])
    found = measure.measure(training_map.make(config, given[0], 26), given, measure.Plan(6, 2, 2, (1e-8, 1e-3)))
    np.testing.assert_allclose(found["tangent"]["exponents"], 0, atol=1e-12)
    assert found["neutral"] == 2 and found["size"] == 1 and found["counted"] == 4
    sized = found["finite_size"]
    np.testing.assert_allclose([sized[name]["exponents"] for name in ("parameters", "logits")], 0, atol=1e-6)
    apart = np.array(found["apart"]["spikes"])[0] ** 2
    assert sized["spikes"][0] == apart[0] == 0  # 1e-8 apart
    # The parameters keep their distance; with annealing z the moment, which is the gradient, changes its share of it.
    assert len(found["cumulated"]) == 6 and np.max(np.abs(found["cumulated"])) < 1
    apart = {name: np.array(values) for name, values in found["apart"].items()}
    assert {name: values.shape for name, values in apart.items()} == {
        "deltas": (2,), "parameters": (7, 2), "logits": (7, 2), "spikes": (7, 2),
    }  # fmt: skip
    for name in ("parameters", "logits", "spikes"):
        np.testing.assert_allclose(apart[name], np.broadcast_to(apart[name][0], (7, 2)), rtol=1e-9)
    # Of what feeds back, the moments are half.
    assert np.all((apart["parameters"] > 0.3 * apart["deltas"]) & (apart["parameters"] <= apart["deltas"]))
    assert np.all(apart["logits"] > 0) and np.all(apart["spikes"] ** 2 == np.round(apart["spikes"] ** 2))
    assert found["flip_ratio"]["start"] == dict.fromkeys(flip_meter.PARTS, 0.0)
    assert classify.classify(found) == "contracting or neutral"


def test_z_in_plain_units_has_the_ratio_that_was_asked_for(parts):
    config = resolve(replaced(replaced(DENSE, "optimizer.lr", 0.1), "chaos.unit", "flip"), parts)
    probe = training_map.batches(config, parts["train"], 1)[0]
    plain = training_map.in_plain_units(config, probe, 26)
    assert plain.chaos.unit == "plain"
    run = training_map.make(plain, probe, 26)
    assert run.flip_ratio("chaos", run.start(config.seed, True), probe) == pytest.approx(4, rel=2e-2)
    assert training_map.in_plain_units(plain, probe, 26) == plain


def test_z_is_held_only_where_it_should_be(parts):
    config = resolve(DENSE, parts)
    run = training_map.make(config, training_map.batches(config, parts["train"], 1)[0], 26)
    assert float(run.start(0, True).hparams["beta"]) == 1
    assert float(run.start(0, False).hparams["beta"]) == 0.5


def test_a_term_in_sub_steps_has_no_flip_ratio(parts):
    config = resolve(replaced(DENSE, "optimizer.lr", 0.1), parts)
    probe = training_map.batches(config, parts["train"], 1)[0]
    ratios = []
    for substeps in (1, 10):
        run = training_map.make(replaced(config, "chaos.substeps", substeps), probe, 26)
        ratios.append(run.flip_ratio("both", run.start(0, True), probe))
    assert ratios[0] > 0 and np.isnan(ratios[1])


def test_controls_differ_from_the_config_in_the_term_alone():
    found = training_map.conditions(DENSE, substeps=7)
    assert found.pop("as given") == DENSE
    changed = {name: dataclasses.replace(config, chaos=DENSE.chaos) for name, config in found.items()}
    assert all(config == DENSE for config in changed.values())
    assert [c.chaos.z0 for c in found.values()] == [(0.0,), (4.0,), (4.0,), (4.0,)]
    assert [(c.chaos.term, c.chaos.substeps) for c in list(found.values())[1:]] == [
        ("drift", 1), ("linear", 1), ("chaos", 7),
    ]  # fmt: skip


def test_adams_second_moments_are_not_moved(parts):
    config = resolve(replaced(DENSE, "optimizer.name", "adam"), parts)
    run = training_map.make(config, training_map.batches(config, parts["train"], 1)[0], 26)
    state = run.start(0, True)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    mask = learner.without_second_moments(state)
    moved = sum(leaf.size for leaf, m in zip(jax.tree.leaves(state), jax.tree.leaves(mask), strict=True) if m)
    assert moved == 2 * parameters  # and the first moments


def test_a_run_that_cannot_take_its_steps_runs_away(parts):
    """They are skipped, so that its map is the identity, whose exponent is 0."""
    config = resolve(replaced(replaced(DENSE, "optimizer.lr", 1e200), "loss.name", "mse"), parts)
    given = training_map.batches(config, parts["train"], 1)
    found = measure.measure(training_map.make(config, given[0], 26), given, measure.Plan(6, 2, 1, (1e-3,)))
    assert found["tangent"]["exponents"] == [0.0] and classify.classify(found) == "runs away"


def test_adam_without_eps_root_has_no_exponent_where_inputs_are_dead(parts):
    config = resolve(replaced(DENSE, "optimizer", Optimizer(name="adam", lr=1e-3)), parts)
    probe = training_map.batches(config, parts["train"], 1)[0]
    assert not np.any(probe["x"][:, :, 0, 0])  # a pixel that is dark in all digits

    def said(eps_root):
        run = training_map.make(replaced(config, "optimizer.eps_root", eps_root), probe, 26)
        state = run.start(0, True)
        found = dynamics.lyapunov(run.step, state, [probe] * 4, 1, dynamical_leaves=learner.dynamical_leaves(state))
        return classify.classify(CALM | {"tangent": {"exponents": found[0].tolist(), "stderr": found[1].tolist()}})

    assert said(0.0) == "no exponent" != said(1e-12)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, "contracting or neutral"),
        ({"size": 1e4}, "runs away"),
        ({"size": NAN}, "runs away"),
        ({"tangent": {"exponents": [0.05, 0.0], "stderr": [0.01, 0.01]}}, "chaotic"),
        ({"tangent": {"exponents": [0.03, 0.0], "stderr": [0.01, 0.01]}}, "contracting or neutral"),
        ({"finite_size": {"exponents": [-0.1, 0.2], "stderr": [0.01, 0.01]}}, "finite-size sensitive"),
        ({"tangent": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}}, "weakly expanding"),
        ({"tangent": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}, "counted": 300}, "chaotic"),
        ({"finite_size": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}}, "weakly expanding"),
        ({"cumulated": [1.0, 7.0, -3.0]}, "transiently expanding"),
        ({"cumulated": [5.5, 5.0]}, "transiently expanding"),
        ({"cumulated": [4.0, -1.0, 3.5]}, "contracting or neutral"),
        ({"cumulated": [-20.0, -30.0, -10.0, 0.0]}, "transiently expanding"),
        ({"cumulated": [-20.0, -30.0, -26.0]}, "contracting or neutral"),
        ({"tangent": {"exponents": [NAN, NAN], "stderr": [NAN, NAN]}, "cumulated": [NAN, NAN]}, "no exponent"),
    ],
)
def test_words(change, expected):
    assert classify.classify(CALM | change) == expected


def test_a_force_is_as_large_as_the_terms_pushes_in_the_twin(parts):
    """Tensor by tensor and step by step; and so are the steps it makes."""
    config = resolve(replaced(DENSE, "optimizer.lr", 0.1), parts)
    given, silent = training_map.batches(config, parts["train"], 2), replaced(config, "chaos.z0", (0.0,))
    twin = training_map.make(config, given[0], 26)
    run = training_map.make(silent, given[0], 26, lambda tx: optax.chain(controls.gaussian(), tx))
    start = training_map.forced(run, twin, given, 3).start(1, True)
    state, pushes = twin.start(1, True), []
    for batch in (given[0], given[1], given[0]):
        pushes.append(twin.push(state, batch)["fc1"]["dense"]["kernel"])
        state = twin.step(state, batch)
    sizes = start.hparams["forcing"]["fc1"]["dense"]["kernel"]
    np.testing.assert_allclose(sizes, [jnp.sqrt(jnp.mean(push**2)) for push in pushes], rtol=1e-4)
    still = training_map.make(silent, given[0], 26)
    forced, free = (
        one.step(begun, given[0]).params["fc1"]["dense"]["kernel"]
        for one, begun in ((run, start), (still, still.start(1, True)))
    )
    assert jnp.sqrt(jnp.mean((forced - free) ** 2)) == pytest.approx(0.1 * float(sizes[0]), rel=0.2)
