"""Neurons around neurons; test_states.py has feedback."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import neurons, surrogate
from csbp_jax.neurons.plif import PLIF, Scaled
from csbp_jax.neurons.recurrent import Feedback

B, T, F = 4, 7, 5


def draw(*shape, mean=0.4):
    return np.random.default_rng(0).normal(mean, 1, shape).astype(jnp.result_type(float))


@pytest.mark.parametrize("per_channel", [False, True])
def test_plif_and_its_gradients_are_those_of_a_lif_of_this_decay_and_gain(x64, per_channel):
    module = PLIF(0.5, per_channel=per_channel)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), F))
    assert shapes["params"]["w"].shape == ((F,) if per_channel else ())
    x, w = draw(B, T, F, mean=1.0), draw(*((F,) if per_channel else ()))

    def of_module(x, w) -> Any:
        neuron: Any = module.apply({"params": {"w": w}}, F)
        return neuron.trace(x)

    def of_lif(x, w):
        k = jax.nn.sigmoid(w)
        return neurons.LIF(1 - k, 1.0, surrogate.arctan(2.0), "hard", True).trace(jnp.broadcast_to(k, x.shape) * x)

    def gradients(run):
        def loss(x, w):
            outputs = run(x, w)
            return sum((draw(*leaf.shape) * leaf).sum() for leaf in outputs), outputs

        return jax.grad(loss, (0, 1), has_aux=True)

    actual, expected = jax.device_get(jax.jit(lambda x, w: (gradients(of_module)(x, w), gradients(of_lif)(x, w)))(x, w))
    assert 0.1 < expected[1][0].mean() < 0.9
    chex.assert_trees_all_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_plif_begins_at_its_decay():
    neuron = PLIF(0.75).init_with_output(jax.random.key(0), F)[0]
    assert neuron.gain.shape == ()  # of the layer, by default
    np.testing.assert_allclose(neuron.neuron.decay, 0.75, rtol=1e-6)
    np.testing.assert_allclose(neuron.gain, 0.25, rtol=1e-6)


def test_scaled_neurons_can_be_stacked():
    members = [Scaled(neurons.LIF(decay, at_threshold="fire"), 1 - decay) for decay in (0.5, 0.75)]
    x = draw(B, T, F, mean=1.0)
    stacked = jax.tree.map(lambda *values: np.array(values, np.float32), *members)

    @jax.jit
    def both(stacked, x):
        together = jax.vmap(lambda neuron, x: neuron(x)[0], in_axes=(0, None))(stacked, x)
        return together, jnp.stack([neuron(x)[0] for neuron in members])

    np.testing.assert_array_equal(*both(stacked, x))


@pytest.mark.parametrize("around", [lambda n: Scaled(n, jnp.array(1.0)), lambda n: Feedback(n, jnp.eye(F))])
def test_there_is_a_trace_only_where_the_neuron_inside_has_one(around):
    assert hasattr(around(neurons.LIF()), "trace")
    assert not hasattr(around(lambda x, membrane=None: (x, membrane)), "trace")
