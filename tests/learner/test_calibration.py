"""Initial weights scaled to a firing rate, and the regulariser that holds rates within a band."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import configs, data, learner, losses
from csbp_jax.config import Chaos, Data, Loss, Optimizer, check
from csbp_jax.data.images import sources
from csbp_jax.learner import objective
from csbp_jax.models.basic import Dense
from csbp_jax.neurons import LIF
from csbp_jax.training import compiled
from tests.support import small_net

PLAIN = Chaos(z0=(0.0,), taps=())
calibrate = jax.jit(learner.calibrate, static_argnums=0)


def deep(norm, rate=None, name="dense", features=(32,) * 4):
    config = configs.load("digits")
    model = dataclasses.replace(config.model, name=name, features=features, norm=norm, init_rate=rate)
    return check(dataclasses.replace(config, chaos=PLAIN, model=model))


def initial_rates(config, examples=300):
    """Firing rates of each layer at the start, on the test split of digits, normalised by its own statistics."""
    splits = data.load(config)
    run = compiled.compile_run(config, splits["train"], 10)
    state = run.init(jax.random.key(config.seed))
    batch = splits["test"].take(np.arange(examples), np.zeros((examples, 0), np.float32))
    x = run.prepare_eval(jax.random.key(0), jax.tree.map(jnp.asarray, batch))["x"]

    @jax.jit
    def rates(state, x):
        (_, aux), _ = run.recipe.model.apply(learner.weights_of(state), x, True, mutable=["batch_stats"])
        return aux.rates

    return {layer: float(rate) for layer, rate in rates(state, x).items()}


def test_four_layers_without_norms_fall_silent_and_with_an_initial_rate_do_not():
    silent = initial_rates(deep("none"))
    assert len(silent) == 4 and silent["fc4"] < 0.001
    rates = initial_rates(deep("none", 0.2))
    assert len(rates) == 4 and all(rate == pytest.approx(0.2, abs=0.04) for rate in rates.values()), rates


@functools.cache
def calibrated(name):
    """The first weights of a run with an augmentation, or with a source that does not augment."""
    config = deep("none", 0.2, features=(16,))
    config = dataclasses.replace(config, data=Data(augment=(name or "crop",)))
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    steps = sources.host_steps(config, (8, 8), lambda: np.zeros(1)) if name else []
    source = sources.ImageArraySource(x, np.zeros(40, int), 10, steps)
    return jax.jit(compiled.compile_run(config, source, 1).pure_init)(jax.random.key(0)).params


@pytest.mark.parametrize("name", ["crop", "flip", "random_erasing"])
def test_rates_are_measured_on_examples_that_are_not_augmented(name):
    jax.tree.map(np.testing.assert_array_equal, calibrated(name), calibrated(None))


@pytest.mark.slow
def test_twelve_layers_of_the_defaults_are_within_the_band():
    """Batch norm needs no initial rate."""
    for name, features in (("dense", (128,) * 12), ("small_conv", (16,) * 12)):
        assert all(0.02 <= rate <= 0.5 for rate in initial_rates(deep("batch", None, name, features)).values())
    assert all(0.1 <= rate <= 0.3 for rate in initial_rates(deep("none", 0.2, "small_conv", (16,) * 12)).values())


def small(rate=0.2, **fields):
    model = dataclasses.replace(small_net.CONFIG.model, features=(64, 48), norm="none", init_rate=rate)
    return dataclasses.replace(small_net.CONFIG, chaos=PLAIN, model=model, **fields)


# With a moving average, of which one test speaks: the others share its programs.
CALIBRATED = small(optimizer=Optimizer(name="sgd", lr=0.1, ema=0.9))


@functools.partial(jax.jit, static_argnums=0)
def rates_of(recipe, state, x):
    _, aux = recipe.model.apply(learner.weights_of(state), x, False, **objective.neuron_override(state))
    return aux.rates


def test_the_neuron_of_each_member_of_a_sweep_has_the_rate():
    """Decay and threshold are traced: members of one program have different weights, and the same rates."""
    recipe, x = small_net.recipe(small()), small_net.batch(size=64)["x"]

    @jax.jit
    @jax.vmap
    def member(decay, threshold):
        state = learner.init(recipe, jax.random.key(0), {"neuron": LIF(decay, threshold)})
        state = learner.calibrate(recipe, state, x)
        return rates_of(recipe, state, x), state.params["fc2"]["dense"]["kernel"]

    rates, kernels = member(jnp.array([0.0, 0.9, 0.25]), jnp.array([1.0, 1.0, 3.0]))
    for rate in rates.values():
        np.testing.assert_allclose(rate, 0.2, atol=0.005)
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[0], kernels[2])


def test_rates_are_measured_in_float64_too(x64):
    recipe, x = small_net.recipe(small()), small_net.batch(size=64)["x"]
    state = calibrate(recipe, small_net.first_state(recipe), x)
    rates = rates_of(recipe, state, x)
    assert rates["fc1"].dtype == jnp.float64
    assert all(rate == pytest.approx(0.2, abs=0.01) for rate in rates.values()), rates


def test_only_the_size_of_the_weights_changes_and_the_moving_average_follows():
    recipe, x = small_net.recipe(CALIBRATED), small_net.batch(size=64)["x"]
    start = small_net.init(recipe, jax.random.key(0))
    state = calibrate(recipe, start, x)
    for layer in ("fc1", "fc2"):
        factors = np.divide(*(s.params[layer]["dense"]["kernel"] for s in (state, start)))
        np.testing.assert_allclose(factors, factors.flat[0], rtol=1e-5)
        assert not np.isclose(factors.flat[0], 1, rtol=0.01)
    np.testing.assert_array_equal(state.params["readout"]["kernel"], start.params["readout"]["kernel"])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state.ema["params"], state.params))


def test_sparse_inputs_get_half_of_the_rate_that_they_can_have_and_no_input_leaves_the_weights():
    recipe = small_net.recipe(CALIBRATED)
    start = small_net.init(recipe, jax.random.key(0))
    sparse = np.zeros((64, 1, 6), np.float32)
    sparse[:4] = small_net.batch(size=4)["x"]
    rates = rates_of(recipe, calibrate(recipe, start, sparse), sparse)
    # In 4 of 64 examples about half of the currents are positive.
    assert rates["fc1"] == pytest.approx(0.5 * 0.5 * 4 / 64, rel=0.3)
    silent = calibrate(recipe, start, np.zeros((64, 1, 6), np.float32))
    np.testing.assert_array_equal(silent.params["fc1"]["dense"]["kernel"], start.params["fc1"]["dense"]["kernel"])


def test_rates_are_measured_without_dropout():
    class Dropping(Dense):
        def body(self, x, train, run):
            return super().body(nn.Dropout(0.5, deterministic=not train)(x), train, run)

    plain, x = small_net.recipe(CALIBRATED), small_net.batch(size=64)["x"]
    recipe = dataclasses.replace(plain, model=Dropping(features=(64, 48), classes=3, time_steps=2, norm="none"))
    start = small_net.init(plain, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, calibrate(recipe, start, x).params, calibrate(plain, start, x).params)


def test_the_regulariser_is_the_mean_squared_distance_from_the_band():
    rates = {"a": np.float32(0.1), "b": np.float32(0.3), "c": np.float32(0.9)}
    assert jax.jit(losses.rates_outside)(rates, 0.2, 0.5) == pytest.approx((0.1**2 + 0.4**2) / 3)


def test_the_regulariser_counts_to_the_plain_gradient():
    config = small(None, loss=Loss(firing=10.0, firing_low=0.4))
    recipe = small_net.recipe(config)
    state, batch = small_net.init(recipe, jax.random.key(0)), small_net.batch()
    separate = small_net.gradients(recipe, state, batch)
    (_, outcome), gradient = jax.jit(objective.value_and_grad, static_argnums=0)(recipe, state, batch)
    expected = 10 * losses.rates_outside(outcome.metrics["rates"], 0.4, 0.5)
    assert outcome.metrics["firing_loss"] == pytest.approx(float(expected)) and expected > 0
    assert "firing_loss" not in jax.eval_shape(small_net.train_step, small_net.recipe(small(None)), state, batch)[1]
    for a, b in zip(jax.tree.leaves(separate["task"]), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
