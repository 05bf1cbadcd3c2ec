"""The ties of the integer LIF, and its network with binary spikes; test_states.py has the neuron."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from chex import assert_trees_all_close, assert_trees_all_equal

from csbp_jax import models, neurons
from csbp_jax.config import Model, Neuron
from csbp_jax.neurons.integer import from_binary, to_binary

B, C, LEVELS = 3, 4, 3


def draw(*shape, seed=0, mean=1.0, std=1.5):
    return np.random.default_rng(seed).normal(mean, std, shape)


def test_halves_are_rounded_down_or_up():
    x = np.array([[0.5, 1.5, 2.5, -0.5, 9.0]], np.float32)
    neuron = functools.partial(neurons.ILIF, decay=0.0, levels=3)
    down, up = jax.jit(lambda x: (neuron()(x)[0], neuron(at_threshold="fire")(x)[0]))(x)
    assert down.tolist() == [[0, 1, 2, 0, 3]] and up.tolist() == [[1, 2, 3, 0, 3]]


def test_binary_spikes_are_those_of_the_integers():
    n = np.random.default_rng(0).integers(0, LEVELS + 1, (B, 5, 2, C)).astype(np.float32)
    binary = jax.jit(to_binary, static_argnums=1)(n, LEVELS)
    assert binary.shape == (B, 5 * LEVELS, 2, C) and {*np.unique(binary)} == {0, 1}
    assert_trees_all_equal(jax.jit(from_binary, static_argnums=1)(binary, LEVELS), n)


def test_a_network_whose_synapses_receive_binary_spikes_has_equal_outputs(x64):
    """With sums of multiples of a power of 2, so that their order does not matter."""
    neuron = Neuron(name="ilif", levels=LEVELS, decay=0.5)
    model = models.build(Model("small_conv", (4, 4, 1), 3, 2, features=(4, 4), pool="max", neuron=neuron))
    x = draw(2, 1, 4, 4, 1).round(2)
    variables = jax.tree.map(lambda a: np.round(32 * np.asarray(a)) / 32, jax.jit(model.init)(jax.random.key(0), x))
    inputs = []

    def binary_inputs(call, args, kwargs, context):
        synapse = context.module
        if context.method_name != "__call__" or not isinstance(synapse, nn.Conv | nn.Dense) or args[0].shape[1] == 1:
            return call(*args, **kwargs)  # norms and neurons, and the synapse of the image
        inputs.append(args[0])
        spikes = to_binary(args[0], LEVELS)
        bias = synapse.get_variable("params", "bias", jnp.zeros(1)).reshape(*(1,) * (spikes.ndim - 1), -1)
        return from_binary(call(spikes) - bias, LEVELS) + bias

    def run(variables, x) -> Any:
        inputs.clear()
        return *model.apply(variables, x), list(inputs)

    expected, aux, _ = jax.jit(run)(variables, x)
    with nn.intercept_methods(binary_inputs):
        logits, binary_aux, received = jax.jit(lambda variables, x: run(variables, x))(variables, x)
    assert len(received) == 2 and all({*np.unique(n)} <= {0, 1, 2, 3} for n in received)
    assert max(n.max() for n in received) == 3 and min(aux.rates.values()) > 0.1
    assert_trees_all_close(logits, expected, rtol=0, atol=1e-12)
    assert_trees_all_close(binary_aux.rates, aux.rates, rtol=1e-12)
