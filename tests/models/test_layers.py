"""Single layers: recurrence, parameters of PLIF, sums of currents, static input, pooling, initial weights."""

import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import chaos, neurons
from csbp_jax.config import ConfigError
from csbp_jax.models import layers
from csbp_jax.models.taps import Aux, Probe
from csbp_jax.neurons.plif import PLIF
from csbp_jax.neurons.recurrent import Feedback

B, T, F = 4, 7, 5
NO_PROBE = Probe(chaos.term)


def test_a_recurrent_layer_feeds_back_through_its_weights(x64):
    layer, neuron = layers.Recurrent(F, name="rec"), neurons.LIF(0.25)
    x = np.random.default_rng(0).normal(size=(B, T, 3))
    probe = Probe(chaos.term, ("rec.norm", "rec.membrane", "rec.membrane_pre"), ("rec",))

    @jax.jit
    def outputs_and_expected(x):
        outputs, variables = layer.init_with_output(jax.random.key(1), x, False, neuron, probe)
        current = x @ variables["params"]["dense"]["kernel"] / np.sqrt(1 + 1e-5)
        expected = Feedback(neuron, variables["params"]["feedback"]).trace(current)
        return outputs, expected, [chaos.term(h) for h in (current, expected[1].membrane, expected[2])]

    (spikes, aux), expected, terms = outputs_and_expected(x)
    assert isinstance(aux, Aux)
    chex.assert_trees_all_close((spikes, aux.membranes["rec"]), (expected[0], expected[2]), atol=1e-6)
    chex.assert_trees_all_close([aux.terms[tap] for tap in probe.taps], terms, rtol=1e-6)
    assert spikes.sum() > 0


@pytest.mark.parametrize("layer", [layers.ConvNormLIF, layers.Dense, layers.Recurrent, layers.Spike])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_learned_decay_is_a_parameter_of_each_layer(layer, per_channel):
    neuron = PLIF(per_channel=per_channel)
    x = np.ones((B, T, 4, 4, 3) if layer is layers.ConvNormLIF else (B, T, 3), np.float32)
    variables = jax.eval_shape(lambda: layer(F).init(jax.random.key(0), x, False, neuron, NO_PROBE))
    channels = 3 if layer is layers.Spike else F
    assert variables["params"]["neuron"]["w"].shape == ((channels,) if per_channel else ())


def test_a_spike_layer_repeats_a_static_current_which_can_be_tapped():
    current = np.random.default_rng(0).normal(size=(B, 1, F)).astype(np.float32)
    layer, probe = layers.Spike(T, name="sum"), Probe(jnp.sum, ("sum.current",))

    @jax.jit
    def outputs(current):
        output, _ = layer.init_with_output(jax.random.key(0), current, False, neurons.LIF(), probe)
        return output, neurons.lif(jnp.repeat(current, T, 1))[0]

    (spikes, aux), expected = outputs(current)
    chex.assert_trees_all_equal(spikes, expected)
    np.testing.assert_allclose(aux.terms["sum.current"], T * current.sum(), rtol=1e-5)


@pytest.mark.parametrize("inspect", [(), ("fc",)])
def test_the_operations_of_a_neuron_have_its_scope_in_both_passes(inspect):
    layer, probe = layers.Dense(F, name="fc"), Probe(chaos.term, inspect=inspect)
    x = np.ones((B, T, 3), np.float32)
    variables = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, False, neurons.LIF(), probe))

    def total(variables):
        return layer.apply(variables, x, False, neurons.LIF(), probe)[0].sum()

    text = jax.jit(jax.grad(total)).lower(variables).as_text(debug_info=True)
    assert re.search(r'"jit\(total\)/jvp\([^"]*/neuron/', text)
    assert re.search(r'"jit\(total\)/transpose\(jvp\([^"]*/neuron/', text)


def test_a_strided_convolution_pads_both_sides_equally():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4, 1)
    layer = layers.ConvNorm(1, stride=2, kernel_init=jax.nn.initializers.ones, name="c")
    current, _ = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x, False, None, NO_PROBE)[0])(x)
    np.testing.assert_allclose(current[0, 0, :, :, 0], [[10, 24], [51, 90]], rtol=1e-4)  # sums around pixels 0 and 2


@pytest.mark.parametrize("pool", [layers.pool, layers.max_pool])
def test_pooling_an_image_that_is_too_small_is_an_error(pool):
    assert jax.eval_shape(pool, np.ones((1, 1, 5, 2, 3), np.float32)).shape == (1, 1, 2, 1, 3)
    with pytest.raises(ConfigError, match=r"model.input_shape: too small for this network; before .* 1x2"):
        jax.eval_shape(pool, np.ones((1, 1, 1, 2, 3), np.float32))


def test_initial_weights_have_the_published_distributions():
    shape, fan_in, fan_out = (3, 3, 40, 60), 360, 540
    bound = 1 / math.sqrt(fan_in)

    @jax.jit
    def draw(key):
        return layers.TORCH(key, shape), layers.HE_FAN_OUT(key, shape), layers.torch_bias(fan_in)(key, (9999,))

    torch, he, bias = map(np.asarray, draw(jax.random.key(0)))
    for uniform in (torch, bias):
        assert np.abs(uniform).max() <= bound
        np.testing.assert_allclose(uniform.std(), bound / math.sqrt(3), rtol=0.02)
        np.testing.assert_allclose(uniform.mean(), 0, atol=0.02 * bound)
    np.testing.assert_allclose(he.std(), math.sqrt(2 / fan_out), rtol=0.02)


def test_votes_of_a_class_are_neighbouring_outputs():
    outputs = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    np.testing.assert_allclose(jax.jit(layers.vote, static_argnums=1)(outputs, 3), [[[1, 4]]])


def test_drop_path_drops_the_branch_of_whole_examples_and_keeps_its_mean():
    x = np.ones((2000, T, F), np.float32)
    layer = layers.DropPath(0.4)

    @jax.jit
    def train(seed):
        return layer.apply({}, x, True, rngs={"dropout": jax.random.key(seed)})

    y = np.asarray(train(0))
    assert {*np.unique(y)} == {0, np.float32(1 / 0.6)}
    assert (y == y[:, :1, :1]).all()
    np.testing.assert_allclose((y[:, 0, 0] > 0).mean(), 0.6, atol=0.04)  # 3.7 standard errors
    assert (train(0) == y).all() and (train(1) != y).any()
    assert layer.apply({}, x, False) is x
    assert layers.DropPath(0.0).apply({}, x, True) is x  # needs no key


def test_the_rate_of_drop_path_is_linear_in_depth():
    np.testing.assert_allclose(layers.drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert layers.drop_path_rates(0.3, 1) == (0.3,)  # the only block is the last one
