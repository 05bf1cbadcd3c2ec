"""CBP's rule against its formula, what a step with a hook after the update reports, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import Own, learner, losses, models
from csbp_jax.config import Chaos, Config, ConfigError, Model, check, replaced
from csbp_jax.learner import kicks
from csbp_jax.training import build
from tests.support import small_net

DENSE = Config(
    model=Model(name="dense", input_shape=(6,), classes=3, time_steps=2, features=(5, 4)),
    chaos=Chaos(z0=(0.3, 0.2), beta=0.5, anneal="step", taps=("fc1.dense", "fc2.dense"), scale=2.0, term="cbp"),
)
CONV = dataclasses.replace(
    DENSE,
    model=Model(name="small_conv", input_shape=(4, 4, 2), classes=3, time_steps=2, features=(3, 4)),
    chaos=dataclasses.replace(DENSE.chaos, taps=("conv1.conv", "conv2.conv")),
)

DELAYED = replaced(replaced(DENSE, "model.time_steps", 3), "model.max_delay", 2)


def make(config):
    """``(recipe, state, batch)`` of gradient descent in float64."""
    recipe = learner.make_recipe(models.build(config.model), optax.scale(-1.0), losses.rate_cross_entropy, config)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.normal(size=(8, 1, *config.model.input_shape))),
        "y": jnp.asarray(rng.integers(0, 3, 8)),
    }
    return recipe, small_net.first_state(recipe), batch


@pytest.mark.parametrize("config", [DENSE, CONV, DELAYED], ids=["dense", "conv", "delayed"])
def test_kicks_are_the_formula_on_kernels_of_the_tapped_layers_alone(x64, config):
    recipe, state, batch = make(config)
    second = dataclasses.replace(state, step=jnp.int32(1))
    kicked, metrics = small_net.train_step(recipe, second, batch)
    none = jax.tree.map(jnp.zeros_like, state.hparams["z0"])
    plain, _ = small_net.train_step(recipe, dataclasses.replace(second, hparams=state.hparams | {"z0": none}), batch)
    tapped = {"tap": lambda h: h, "taps": config.chaos.taps, "mutable": ["batch_stats"]}
    (_, aux), _ = jax.jit(lambda v, x: recipe.model.apply(v, x, True, **tapped))(learner.weights_of(state), batch["x"])
    for z0, tap in zip(config.chaos.z0, config.chaos.taps, strict=True):
        h = np.asarray(aux.terms[tap])
        mean = (1 / (1 + np.exp(-h / 2.0))).reshape(-1, h.shape[-1]).mean(axis=0)
        layer, kind = tap.split(".")
        moved = kicked.params[layer][kind].pop("kernel") - plain.params[layer][kind].pop("kernel")
        np.testing.assert_allclose(moved, np.broadcast_to(z0 * 0.5 * (0.65 - mean), moved.shape), rtol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, kicked.params, plain.params)
    assert float(metrics["chaos_loss"]) == 0
    assert float(metrics["loss"]) == float(metrics["task_loss"])


def test_kicks_stay_out_of_the_metrics(x64):
    """A step with a hook after the update reports the numbers of a step without it, and only numbers."""
    recipe, state, batch = make(DENSE)
    assert recipe.after_update is kicks.kicked
    shapes = jax.eval_shape(small_net.train_step, recipe, state, batch)[1]
    plain = learner.make_recipe(recipe.model, recipe.tx, recipe.loss, replaced(DENSE, "chaos.term", "chaos"))
    assert plain.after_update is None
    expected = jax.eval_shape(small_net.train_step, plain, state, batch)[1]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda leaf: leaf.shape, expected)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(shapes))


def test_a_bias_is_kicked_like_its_kernel_and_nothing_else_is(x64):
    params = {"a": {"conv": {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.ones(4)}, "norm": {"scale": jnp.ones(4)}}}
    kick = jnp.arange(4.0)
    after = kicks.kicked(params, {"a.conv": kick})["a"]
    np.testing.assert_array_equal(after["conv"]["kernel"], np.broadcast_to(kick, (3, 3, 2, 4)))
    np.testing.assert_array_equal(after["conv"]["bias"], 1 + kick)
    np.testing.assert_array_equal(after["norm"]["scale"], params["a"]["norm"]["scale"])
    assert float(params["a"]["conv"]["bias"][1]) == 1  # as it was


@pytest.mark.parametrize("tap", ["fc1.norm", "fc1.membrane", "fc1.membrane_pre"])
def test_a_tensor_that_is_not_an_output_of_weights_is_refused(x64, tap):
    recipe, state, batch = make(replaced(replaced(DENSE, "chaos.taps", (tap,)), "chaos.z0", (1.0,)))
    with pytest.raises(ConfigError, match=rf"chaos\.taps: {tap} is not possible with chaos.term cbp.*LAYER\.dense"):
        jax.eval_shape(small_net.train_step, recipe, state, batch)


@pytest.mark.parametrize(("field", "value", "allowed"), [
    ("chaos.cut", (-1.0, 1.0), "None"),
    ("chaos.substeps", 2, "1"),
    ("chaos.reduce", "sum", "mean or neuron"),
    ("flip_every", 5, "0"),
])  # fmt: skip
def test_options_of_a_loss_are_refused(field, value, allowed):
    with pytest.raises(ConfigError, match=rf"^{field}: .* is not possible with chaos.term cbp; allowed is {allowed}$"):
        check(replaced(DENSE, field, value))
    assert check(replaced(DENSE, "chaos.reduce", "neuron"))


@pytest.mark.parametrize("term", ["cbp", "drift", "linear"])
def test_a_term_that_an_own_term_would_replace_is_refused(term):
    with pytest.raises(ConfigError, match=rf"^chaos\.term: {term} replaces the term, but own has its own; leave one"):
        build.build_recipe(replaced(DENSE, "chaos.term", term), Own(term=lambda config: None), 1)
