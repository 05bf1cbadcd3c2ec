"""The integer LIF against a plain loop, and its network with binary spikes."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal
from jax import lax

from csbp_jax import models, neurons
from csbp_jax.config import Model, Neuron
from csbp_jax.neurons.integer import from_binary, to_binary
from csbp_jax.neurons.recurrent import Feedback

B, C, LEVELS = 3, 4, 3


def draw(*shape, seed=0, mean=1.0, std=1.5):
    return jnp.asarray(np.random.default_rng(seed).normal(mean, std, shape))


def plain(x, v, decay, threshold, detach_reset):
    """``(integers, membrane, u)``, one time step after another, with the straight-through gradient in [0, LEVELS]."""
    rows = []
    for x_t in jnp.moveaxis(x, 1, 0):
        u = decay * v + x_t
        passed = jnp.clip(u / threshold, 0, LEVELS)
        n = passed + lax.stop_gradient(jnp.round(passed) - passed)
        v = u - threshold * (lax.stop_gradient(n) if detach_reset else n)
        rows.append((n, u))
    return jnp.stack([n for n, _ in rows], 1), v, jnp.stack([u for _, u in rows], 1)


@pytest.mark.parametrize("T, detach_reset", [(3, False), (6, True), pytest.param(6, False, marks=pytest.mark.slow)])
def test_values_and_all_gradients_equal_a_plain_loop(x64, T, detach_reset):
    def make_gradients(run):
        def loss(arguments):
            outputs = run(*arguments)
            return sum((draw(*o.shape, seed=n) * o).sum() for n, o in enumerate(outputs)), outputs

        return jax.jit(jax.grad(loss, has_aux=True))

    def traced(x, v, decay, threshold):
        return neurons.ILIF(decay, threshold, LEVELS, detach_reset).trace(x, v)

    arguments = draw(B, T, C), draw(B, C, seed=5), jnp.linspace(0.3, 0.9, C), jnp.linspace(0.7, 1.3, C)
    with jax.numpy_rank_promotion("allow"):
        expected = make_gradients(functools.partial(plain, detach_reset=detach_reset))(arguments)
    assert {*np.unique(expected[1][0])} == {0, 1, 2, 3}
    assert_trees_all_close(make_gradients(traced)(arguments), expected, rtol=1e-12, atol=1e-12)


def test_halves_are_rounded_down_or_up():
    x = jnp.array([[0.5, 1.5, 2.5, -0.5, 9.0]])
    neuron = functools.partial(neurons.ILIF, decay=0.0, levels=3)
    assert neuron()(x)[0].tolist() == [[0, 1, 2, 0, 3]]
    assert neuron(at_threshold="fire")(x)[0].tolist() == [[1, 2, 3, 0, 3]]


def test_feedback_is_of_integers():
    x, weights = draw(B, 5, C), draw(C, C, seed=3, mean=0, std=0.3)

    @jax.jit
    def outputs(x):
        spikes, state = Feedback(neurons.ILIF(0.5), weights)(x)
        late = jnp.pad(spikes[:, :-1], ((0, 0), (1, 0), (0, 0)))
        return (spikes, state.inner), neurons.ILIF(0.5)(x + late @ weights)

    assert_trees_all_close(*outputs(x), atol=1e-5)


def test_binary_spikes_are_those_of_the_integers():
    n = jnp.asarray(np.random.default_rng(0).integers(0, LEVELS + 1, (B, 5, 2, C)), jnp.float32)
    binary = to_binary(n, LEVELS)
    assert binary.shape == (B, 5 * LEVELS, 2, C) and {*np.unique(binary)} == {0, 1}
    assert_trees_all_equal(from_binary(binary, LEVELS), n)


def test_a_network_whose_synapses_receive_binary_spikes_has_equal_outputs(x64):
    """With sums of multiples of a power of 2, so that their order does not matter."""
    neuron = Neuron(name="ilif", levels=LEVELS, decay=0.5)
    model = models.build(Model("small_conv", (4, 4, 1), 3, 2, features=(4, 4), pool="max", neuron=neuron))
    x = draw(2, 1, 4, 4, 1).round(2)
    variables = jax.tree.map(lambda a: jnp.round(32 * a) / 32, jax.jit(model.init)(jax.random.key(0), x))
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


@pytest.mark.parametrize(
    "neuron, message",
    [
        (neurons.ILIF(decay=-0.5), "ILIF: decay is -0.5, but must be from 0 to 1"),
        (neurons.ILIF(threshold=0), "ILIF: threshold is 0, but must be above 0"),
        (neurons.ILIF(levels=0), "ILIF: levels is 0, but must be a positive whole number"),
        (neurons.ILIF(levels=2.5), "ILIF: levels is 2.5, but must be a positive whole number"),  # type: ignore[arg-type]
    ],
)
def test_impossible_numbers_are_refused(neuron, message):
    with pytest.raises(ValueError, match=message):
        neuron(jnp.zeros((B, 3, C)))


def test_an_expansion_into_impossible_sub_steps_is_refused():
    for function in (to_binary, from_binary):
        with pytest.raises(ValueError, match=f"{function.__name__}: levels is 0, but must be a positive whole number"):
            function(jnp.zeros((B, 6, C)), 0)
    with pytest.raises(ValueError, match="from_binary: h has 7 sub-steps, but must have a multiple of levels, 3"):
        from_binary(jnp.zeros((B, 7, C)), LEVELS)
