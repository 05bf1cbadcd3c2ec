"""The training of a config as a map: its start, its flip ratio, its controls, its forces."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import controls, data, learner
from csbp_jax.cli.main import main
from csbp_jax.config import ConfigError, Optimizer, check, replaced
from csbp_jax.data.source import ArraySource
from csbp_jax.instruments import training_map
from csbp_jax.learner import optimizer
from csbp_jax.training import flip_meter
from csbp_jax.training.build import resolve
from tests.support.inverted import Inverted
from tests.support.small_map import DENSE, STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def splits():
    return data.load(DENSE)


@pytest.fixture(scope="module")
def config(splits):
    return resolve(DENSE, splits)


@pytest.fixture(scope="module")
def batches(config, splits):
    return training_map.batches(config, splits["train"], 2)


@pytest.fixture(scope="module")
def probe(batches):
    return batches[0]


@pytest.fixture(scope="module")
def run(config, probe):
    return training_map.make(config, probe, STEPS_PER_EPOCH)


def ends(config, probe, *starts):
    """The state after six steps of each start, fixed or not, at two steps an epoch."""
    run, states = training_map.make(config, probe, 2), []
    step = jax.jit(run.step)
    for fixed in starts:
        state = run.start(0, fixed)
        for _ in range(6):
            state = step(state, probe)
        states.append(state)
    return states


@pytest.fixture(scope="module")
def at_a_constant_rate(config, probe):
    """``(config, its fixed start after six steps)``"""
    config = dataclasses.replace(config, epochs=2, chaos=dataclasses.replace(config.chaos, substeps=2))
    return config, *ends(config, probe, True)


@pytest.fixture(scope="module")
def plain(config, probe):
    return training_map.at_flip_ratio(config, 4, probe, STEPS_PER_EPOCH)


def test_a_config_at_a_flip_ratio_has_it(config, probe, run, plain):
    assert replaced(plain, "chaos.z0", config.chaos.z0) == config
    state = run.start(config.seed, True)
    state = state.replace(hparams=state.hparams | {"z0": {"fc1.dense": jnp.float32(plain.chaos.z0[0])}})
    assert run.flip_ratio("chaos", state, probe) == pytest.approx(4, rel=2e-2)


@pytest.mark.full
def test_a_flip_ratio_is_at_the_peak_rate_with_the_term_as_a_whole(config, probe, plain):
    other = replaced(replaced(config, "optimizer.warmup_epochs", 1), "chaos.substeps", 10)
    warm = training_map.at_flip_ratio(replaced(other, "epochs", 2), 4, probe, STEPS_PER_EPOCH)
    assert warm.chaos.z0[0] == pytest.approx(plain.chaos.z0[0], rel=2e-2)


def test_a_term_without_positive_curvature_has_no_flip(config, probe):
    with pytest.raises(ConfigError, match=r"chaos.z0: the term has no flip at the first step"):
        # All of h lies beyond the cut, where the term is level.
        training_map.at_flip_ratio(replaced(config, "chaos.cut", (50.0, 60.0)), 1, probe, STEPS_PER_EPOCH)


@pytest.mark.slow
def test_a_command_turns_flips_into_the_z0_to_use(tmp_path, capsys, refused):
    line = "lr digits --model.name dense --model.features 4 --model.time-steps 2 --chaos.taps fc1.dense "
    line += f"--optimizer.name sgd --data-dir {tmp_path} --flips"
    assert main([*line.split(), "0.5"]) == 0
    first = float(capsys.readouterr().out.removeprefix("chaos.z0 ").partition(":")[0])
    assert main([*line.split(), "1"]) == 0
    assert float(capsys.readouterr().out.split()[1].rstrip(":")) == pytest.approx(2 * first, rel=2e-2)
    for wrong, message in (("0", "--flips: 0.0 is not possible"), ("1 --chaos.taps --chaos.z0 0", "chaos.taps: empty")):
        assert message in refused(*line.split(), *wrong.split())


@pytest.mark.parametrize(("name", "arguments"), [("step", 2), ("push", 2), ("flip_ratio", 2), ("readouts", 1)])
def test_products_of_float32_are_not_rounded_on_any_device(config, probe, run, monkeypatch, name, arguments):
    # Of the ratio, the function that is differentiated.
    monkeypatch.setattr(flip_meter, "make", lambda gradients, *_: gradients)
    function = getattr(training_map.make(config, probe, STEPS_PER_EPOCH), name)
    text = jax.jit(function).lower(*(run.start(0, True), probe)[:arguments]).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize(("field", "value"), [("optimizer.name", "lion"), ("weights", "w.pth")])
def test_a_sign_has_no_tangent_and_a_start_is_not_silently_of_other_weights(config, probe, field, value):
    with pytest.raises(ConfigError, match=rf"^{field}: {value} is not possible in a map"):
        training_map.make(replaced(config, field, value), probe, STEPS_PER_EPOCH).start(0, True)


def test_each_batch_of_a_stream_is_encoded_with_a_key_of_its_own(config, splits):
    image = splits["train"][0]["x"]
    source = ArraySource(np.repeat(image[None], 96, axis=0), np.zeros(96, np.int32), 10)
    first, second = training_map.batches(replaced(config, "data.encode", "rate"), source, 2)
    assert not np.array_equal(first["x"], second["x"])


def test_batches_are_not_augmented_by_their_source(config, splits, batches):
    drawn = training_map.batches(config, Inverted(splits["train"]), 2)
    chex.assert_trees_all_equal(drawn, batches)


def test_z_is_held_only_in_a_fixed_start(run):
    assert float(run.start(0, True).hparams["beta"]) == 1
    assert float(run.start(0, False).hparams["beta"]) == 0.5


@pytest.mark.full
@pytest.mark.parametrize(("schedule", "warmup_epochs"), [("cosine", 0), ("step", 1), ("constant", 1)])
def test_the_learning_rate_is_held_at_its_peak_in_a_fixed_start(probe, at_a_constant_rate, schedule, warmup_epochs):
    """A rate that falls to 0 would bring any map to rest."""
    constant, expected = at_a_constant_rate
    scheduled = dataclasses.replace(constant.optimizer, schedule=schedule, warmup_epochs=warmup_epochs, step_epochs=1)
    held, free = ends(dataclasses.replace(constant, optimizer=scheduled), probe, True, False)
    np.testing.assert_allclose(
        held.params["fc1"]["dense"]["kernel"], expected.params["fc1"]["dense"]["kernel"], rtol=1e-5
    )
    assert held.step == 6 and optimizer.steps_taken(free.opt_state, free.step - 1) == 6
    chex.assert_trees_all_equal_structs(held, free)  # one compilation, and one mask


# Without a warm-up the rate only falls; with one, it rises and falls.
@pytest.mark.full
@pytest.mark.parametrize("warmup_epochs", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_adams_flip_ratio_at_a_held_rate_is_that_of_a_constant_one(config, probe, warmup_epochs):
    def ratios(schedule, warmup_epochs):
        adam = Optimizer(name="adam", lr=1e-3, eps_root=1e-8, schedule=schedule, warmup_epochs=warmup_epochs)
        run = training_map.make(dataclasses.replace(config, epochs=2, optimizer=adam), probe, 4)
        step, first = jax.jit(run.step), run.start(0, True)
        last = step(step(first, probe), probe)
        return [run.flip_ratio("both", state, probe) for state in (first, last)]

    before_the_first_step, expected = ratios("constant", 0)
    assert np.isnan(before_the_first_step) and expected > 0
    np.testing.assert_allclose(ratios("cosine", warmup_epochs), [np.nan, expected], rtol=3e-2)


def test_a_term_in_substeps_has_no_flip_ratio(config, probe, run):
    state = run.start(0, True)
    assert run.flip_ratio("both", state, probe) > 0
    in_substeps = training_map.make(replaced(config, "chaos.substeps", 10), probe, STEPS_PER_EPOCH)
    assert np.isnan(in_substeps.flip_ratio("both", state, probe))


def test_the_spikes_of_an_integer_neuron_have_an_entry_each(config, probe):
    """Else the squared distance of two integers, which is to count spikes that differ, would square their number."""
    run = training_map.make(replaced(config, "model.neuron.name", "ilif"), probe, STEPS_PER_EPOCH)
    spikes = jax.jit(run.readouts)(run.start(0, True))["spikes"]
    examples, time_steps, neurons = 48, 2, 4
    assert spikes.shape == (examples * time_steps * neurons * config.model.neuron.levels,)
    assert set(np.unique(spikes)) == {0, 1}


def test_conditions_differ_from_the_config_in_the_term_alone():
    conditions = training_map.conditions(DENSE, substeps=7)
    assert conditions.pop("as given") == DENSE
    changed = {name: dataclasses.replace(config, chaos=DENSE.chaos) for name, config in conditions.items()}
    assert all(config == DENSE for config in changed.values())
    assert [c.chaos.z0 for c in conditions.values()] == [(0.0,), (4.0,), (4.0,), (4.0,)]
    assert [(c.chaos.term, c.chaos.substeps) for c in list(conditions.values())[1:]] == [
        ("drift", 1), ("linear", 1), ("chaos", 7),
    ]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [("optimizer.accumulate", 2), ("optimizer.layer_decay", 0.5)])
def test_conditions_are_those_that_the_config_allows(field, value):
    conditions = training_map.conditions(replaced(DENSE, field, value))
    assert [*map(check, conditions.values())] == [*conditions.values()]
    assert list(conditions) == ["as given", "z = 0", "drift", "linear pull"]


def test_adams_second_moments_are_not_perturbed(config, probe):
    run = training_map.make(replaced(config, "optimizer.name", "adam"), probe, STEPS_PER_EPOCH)
    state = jax.eval_shape(lambda: run.start(0, True))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    mask = learner.without_second_moments(state)
    perturbed = sum(leaf.size for leaf, m in zip(jax.tree.leaves(state), jax.tree.leaves(mask), strict=True) if m)
    assert perturbed == 2 * parameters  # and the first moments


def test_a_force_is_as_large_as_the_terms_pushes_in_the_control_run(config, batches, run):
    """Tensor by tensor and step by step; so are the steps that it makes."""
    without_term = replaced(config, "chaos.z0", (0.0,))
    forced = training_map.make(
        without_term, batches[0], STEPS_PER_EPOCH, lambda tx: optax.chain(controls.gaussian(), tx)
    )
    start = training_map.forced(forced, run, batches, 3).start(1, True)
    state, pushes = run.start(1, True), []
    push, step = jax.jit(run.push), jax.jit(run.step)
    for batch in (batches[0], batches[1], batches[0]):
        pushes.append(push(state, batch)["fc1"]["dense"]["kernel"])
        state = step(state, batch)
    sizes = start.hparams["forcing"]["fc1"]["dense"]["kernel"]
    np.testing.assert_allclose(sizes, [np.sqrt(np.mean(np.square(push))) for push in pushes], rtol=1e-4)
    no_force = jax.tree.map(np.zeros_like, start.hparams["forcing"])
    forced_step = jax.jit(forced.step)
    with_force, without_force = (
        np.asarray(forced_step(first, batches[0]).params["fc1"]["dense"]["kernel"])
        for first in (start, dataclasses.replace(start, hparams=start.hparams | {"forcing": no_force}))
    )
    step_size = np.sqrt(np.mean((with_force - without_force) ** 2))
    assert step_size == pytest.approx(0.1 * float(sizes[0]), rel=0.2)


@pytest.mark.parametrize(("field", "value"), [("chaos.substeps", 10), ("optimizer.sam_radius", 0.1)])
def test_a_force_is_not_silently_of_another_size_than_the_pushes(config, probe, run, field, value):
    control_run = training_map.make(replaced(config, field, value), probe, STEPS_PER_EPOCH)
    with pytest.raises(ConfigError, match=f"^{field}: "):
        training_map.forced(run, control_run, [probe], 2)
