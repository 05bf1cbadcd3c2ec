"""Mixed precision: what is bfloat16 and what is not in every family, exact counts, gradients, and a resumed run."""

import dataclasses
import functools
import io
import re
import shutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import chaos, configs, learner, losses, models, neurons
from csbp_jax.config import Chaos, Config, Model, Neuron
from csbp_jax.learner import optimizer
from csbp_jax.models import layers, norms
from csbp_jax.models.taps import Probe
from csbp_jax.neurons.plif import Scaled
from csbp_jax.neurons.recurrent import Feedback
from csbp_jax.reporting.terminal import Console
from csbp_jax.training.loop import train

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
B, T, C = 4, 3, 3
PLIF = Neuron(decay=0.5, surrogate="arctan", surrogate_param=2.0, detach_reset=True, learn="channel")


def model(name, pixels=8, channels=2, **options):
    return Model(name, (pixels, pixels, channels), classes=C, time_steps=T, precision="bfloat16", **options)


# With how many products before the read-out.
FAMILIES = {
    "small_conv": (model("small_conv", features=(5, 4), norm="tebn"), 2),
    "dense": (model("dense", features=(5, 4), norm="bntt"), 2),
    "recurrent": (model("recurrent", features=(5,), neuron=PLIF), 2),
    "cnn6": (model("cnn6", 16, width=1 / 32), 5),
    "resnet19_tet": (model("resnet19_tet", 8, 3, width=1 / 32, norm="tdbn"), 21),
    "resnet19_tebn": (model("resnet19_tebn", 8, 3, width=1 / 32), 20),
    "sew_resnet18": (model("sew_resnet18", 32, 3, width=1 / 32, connect="iand"), 20),
    "sew_7b": (model("sew_7b", 8, width=1 / 8, neuron=PLIF), 5),
}  # fmt: skip
# Deep ones are slow to trace.
SLOW = ("resnet19_tet", "resnet19_tebn", "sew_resnet18")
FAST = ("small_conv", "recurrent")
EVERY_FAMILY = pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow if name in SLOW else pytest.mark.full)
        for name in FAMILIES
    ],
)


def network(config):
    """That of the config; a 7B-Net is cut to two stages."""
    built = models.build(config)
    return built.copy(stages=(32, 32)) if config.name == "sew_7b" else built


def inputs(config):
    """A still picture where there are three channels."""
    steps = 1 if config.input_shape[-1] == 3 else T
    return np.random.default_rng(1).normal(size=(B, steps, *config.input_shape)).astype(np.float32)


@functools.cache
def known(family):
    """What the family's network hands out, as shapes."""
    config, _ = FAMILIES[family]
    return jax.eval_shape(lambda x: network(config).init_with_output(jax.random.key(0), x)[0][1], inputs(config))


@EVERY_FAMILY
def test_products_are_bfloat16_but_for_the_read_out(family):
    config, synapses = FAMILIES[family]
    net, x = network(config), inputs(config)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    text = jax.jit(lambda v, x: net.apply(v, x)[0]).lower(variables, x).as_text()
    operands = re.findall(r"stablehlo\.(?:convolution|dot_general).*: \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\)", text)
    assert operands.count(("f32", "f32")) == 1
    # A convolution of an image smaller than its kernel is a product for each tap.
    assert operands.count(("bf16", "bf16")) == len(operands) - 1 >= synapses


@EVERY_FAMILY
def test_spikes_are_bfloat16_and_all_that_is_handed_out_or_kept_is_float32(family):
    config, _ = FAMILIES[family]
    tapped = []

    def tap(h):
        tapped.append(h.dtype)
        return chaos.term(h)

    names, rates = known(family).names, known(family).rates
    init = functools.partial(network(config).init_with_output, tap=tap, taps=names, inspect=tuple(rates))
    (logits, aux), variables = jax.eval_shape(init, jax.random.key(0), inputs(config))
    assert len(tapped) == len(names) and set(tapped) == {FLOAT32}
    assert {spikes.dtype for spikes in aux.spikes.values()} == {BFLOAT16}
    kept = (logits, aux.terms, aux.rates, aux.membranes, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {FLOAT32}


@pytest.mark.full
@EVERY_FAMILY
def test_a_training_step_leaves_a_state_of_the_same_dtypes(family):
    config, _ = FAMILIES[family]
    run = Config(model=config, chaos=Chaos(z0=(3.0,), taps=known(family).names[:1]))
    tx = optimizer.build(run.optimizer, epochs=1, steps_per_epoch=1)
    init, train_step, eval_step = learner.make(network(config), tx, losses.rate_cross_entropy, run, 1)
    state = jax.eval_shape(init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)} == {FLOAT32}
    batch = {"x": inputs(config), "y": jnp.arange(B) % C}
    after, metrics = jax.eval_shape(train_step, state, batch)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert metrics["task_loss"].dtype == metrics["chaos_loss"].dtype == metrics["grad_norm"].dtype == FLOAT32
    assert jax.eval_shape(eval_step, state, batch | {"mask": jnp.ones(B, bool)})["loss"].dtype == FLOAT32


def test_a_layer_rounds_its_product_and_its_neurons_current_and_nothing_between():
    layer, neuron = layers.ConvNormLIF(5, use_bias=True, dtype=jnp.bfloat16, name="c"), neurons.LIF(0.25)
    x = np.random.default_rng(0).normal(size=(B, T, 6, 6, 2)).astype(np.float32)
    probe = Probe(lambda h: h, ("c.conv", "c.norm", "c.membrane"))
    variables = jax.jit(lambda x: layer.init(jax.random.key(1), x, True, neuron, probe))(x)

    # Else XLA may leave out a rounding to bfloat16 that is widened again.
    @functools.partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
    def outputs_and_expected(variables, x):
        (spikes, aux), _ = layer.apply(variables, x, True, neuron, probe, mutable=["batch_stats"])
        kernel, bias = (variables["params"]["conv"][name] for name in ("kernel", "bias"))
        product = jax.lax.conv_general_dilated(
            x.reshape(-1, 6, 6, 2).astype(jnp.bfloat16),
            kernel.astype(jnp.bfloat16),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        h = product.astype(jnp.float32).reshape(B, T, 6, 6, 5) + bias.reshape(1, 1, 1, 1, 5)
        space = {"axis": (0, 1, 2, 3), "keepdims": True}
        normalised = (h - h.mean(**space)) / jnp.sqrt(h.var(**space) + 1e-5)
        fired, membrane = neuron(aux.terms["c.norm"].astype(jnp.bfloat16))
        return spikes, aux.terms, (h, normalised, fired, membrane)

    spikes, terms, (h, normalised, fired, membrane) = outputs_and_expected(variables, x)
    np.testing.assert_array_equal(terms["c.conv"], h)
    np.testing.assert_allclose(terms["c.norm"], normalised, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal((spikes, terms["c.membrane"]), (fired, membrane))


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_alone_is_handed_out_in_float32(bias):
    layer, probe = layers.Linear(5, jnp.bfloat16, bias, name="fc"), Probe(lambda h: h, ("fc.dense",))
    x = jnp.ones((B, T, C), jnp.bfloat16)
    (h, aux), _ = jax.eval_shape(lambda x: layer.init_with_output(jax.random.key(0), x, True, None, probe), x)
    assert h.dtype == aux.terms["fc.dense"].dtype == FLOAT32


def test_sums_of_many_spikes_are_exact():
    current = np.full((1, 5, 1000), 2.0, np.float32)
    current[:, :, 819:] = 0.0
    current[0, 0, 819] = 2.0
    layer, probe = layers.Spike(dtype=jnp.bfloat16, name="s"), Probe(chaos.term)
    run = jax.jit(lambda current: layer.init_with_output(jax.random.key(0), current, True, neurons.LIF(0.0), probe)[0])
    spikes, aux = run(current)
    assert spikes.dtype == BFLOAT16 and round(float(aux.rates["s"]) * 5000, 2) == 5 * 819 + 1
    picture = np.ones((1, 1, 65, 63, 1), jnp.bfloat16)
    picture[0, 0, 0, 0] = 0
    assert round(float(jax.jit(layers.space_mean)(picture)[0, 0, 0]) * 65 * 63, 2) == 65 * 63 - 1


def test_gradients_of_a_bias_a_learned_gain_and_feedback_add_up_in_float32():
    ones = jnp.ones((1, 4097, 1), jnp.bfloat16)
    layer = layers.Linear(1, jnp.bfloat16, name="fc")
    variables = jax.jit(lambda x: layer.init(jax.random.key(0), x, True, None, Probe(chaos.term)))(ones)

    def linear(variables):
        return layer.apply(variables, ones, True, None, Probe(chaos.term))[0].sum()

    def fires_always(x, membrane=None):
        return 1 + (x - jax.lax.stop_gradient(x)), membrane

    def gain(k):
        return Scaled(fires_always, k)(ones, None)[0].astype(jnp.float32).sum()

    def feedback(weights):
        return Feedback(fires_always, weights)(ones)[0].astype(jnp.float32).sum()

    assert jax.jit(jax.grad(linear))(variables)["params"]["dense"]["bias"] == 4097
    assert jax.jit(jax.grad(gain))(jnp.float32(1)) == 4097
    assert jax.jit(jax.grad(feedback))(jnp.zeros((1, 1)))[0, 0] == 4096  # nothing comes back at the first step


def identity_norm(name) -> Any:
    return norms.NoNorm(name=name)


def test_a_term_far_weaker_than_the_task_is_not_rounded_away():
    half = np.random.default_rng(0).normal(size=(1, 4096, 1, 1, 1)).astype(np.float32)
    task = np.concatenate([half, -half], 1)
    layer = layers.ConvNorm(1, 1, norm=identity_norm, dtype=jnp.bfloat16, name="c")
    x, probe = np.ones_like(task), Probe(lambda h: 2.0**-10 * h.sum(), ("c.conv",))
    variables = jax.jit(lambda x: layer.init(jax.random.key(1), x, True, None, probe))(x)

    def objective(variables):
        result: Any = layer.apply(variables, x, True, None, probe)
        h, aux = result
        return (task * h).sum() + aux.terms["c.conv"]

    # The task's own gradient is 0; the term's is 2**-10 from each of 2**13 elements.
    np.testing.assert_allclose(jax.jit(jax.grad(objective))(variables)["params"]["conv"]["kernel"], 8, rtol=0.1)


def with_the_same_spikes(family):
    """Objective and its gradient in both precisions, for the first weights with which the spikes of both are equal."""
    config, _ = FAMILIES[family]
    nets = [network(dataclasses.replace(config, precision=precision)) for precision in ("float32", "bfloat16")]
    x, options = inputs(config), {"taps": known(family).names[:1], "inspect": tuple(known(family).rates)}

    def objective(params, net, variables):
        (logits, aux), _ = net.apply(variables | {"params": params}, x, True, **options, mutable=["batch_stats"])
        (term,) = aux.terms.values()
        return losses.rate_cross_entropy(logits, jnp.arange(B) % C) + 3 * term, aux.spikes

    @jax.jit
    def both(key):
        variables = nets[0].init(key, x)
        return [jax.value_and_grad(objective, has_aux=True)(variables["params"], net, variables) for net in nets]

    for seed in range(50):
        ((loss, fired), gradient), ((narrow_loss, narrow_fired), narrow_gradient) = both(jax.random.key(seed))
        same = jax.tree.map(lambda a, b: bool((a == b).all()), fired, narrow_fired)
        if all(spikes.any() for spikes in fired.values()) and all(same.values()):
            return (loss, gradient), (narrow_loss, narrow_gradient)
    raise AssertionError("the spikes of both precisions differ for all of 50 seeds")


@pytest.mark.full
@pytest.mark.parametrize(
    "family", ["recurrent", *(pytest.param(name, marks=pytest.mark.slow) for name in ("small_conv", "sew_7b"))]
)
def test_with_the_same_spikes_gradients_are_those_of_float32_to_four_percent(family):
    (loss, gradient), (narrow_loss, narrow_gradient) = with_the_same_spikes(family)
    np.testing.assert_allclose(narrow_loss, loss, rtol=2e-3)
    error = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b), narrow_gradient, gradient)
    assert 0 < max(jax.tree.leaves(error)) < 0.04


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    config = dataclasses.replace(configs.load("digits"), epochs=2, batch_size=64, checkpoint_every=1)
    small = dataclasses.replace(config.model, features=(4,), time_steps=2, precision="bfloat16")
    run = functools.partial(
        train, dataclasses.replace(config, model=small), root=tmp_path, console=Console(file=io.StringIO())
    )
    whole = run(name="whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    shutil.rmtree(max((tmp_path / "cut" / "checkpoints").iterdir(), key=lambda path: int(path.name)))
    assert run(name="cut")["params_sha256"] == whole["params_sha256"]
