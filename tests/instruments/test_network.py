"""Exponents of a network's own state: of layers without a loop by formula, of recurrent ones by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import instruments, models
from csbp_jax.config import ConfigError, Model, Neuron
from csbp_jax.instruments import network as module
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.runs.restore import restore
from csbp_jax.runtime.hardware import float64


def built(seed=0, **options):
    network = models.build(Model(input_shape=(6,), **options))
    x = np.random.default_rng(seed).normal(size=(2, 40, 6))
    return network, x, network.init(jax.random.key(seed), jnp.asarray(x[:, :1], jnp.float32), False)


def test_silent_neurons_forget_by_their_decay():
    network, x, variables = built(name="dense", features=(5, 4), neuron=Neuron(decay=0.7, threshold=1e6))
    measured = instruments.network_exponents(network, x, variables, n=9)
    np.testing.assert_allclose(measured.tangent.exponents, np.log(0.7), rtol=1e-6)
    np.testing.assert_allclose(measured.finite_size.exponents, np.log(0.7), rtol=1e-6)
    assert measured.finite_size.exponents.shape == (2, 3)


def test_without_a_loop_the_exponents_are_those_of_single_neurons():
    """Soft reset: ``dv[t]/dv[t-1] = decay (1 - g(u[t] - 1))``."""
    decay = 0.9
    network, x, variables = built(
        name="dense", features=(5, 4), neuron=Neuron(decay=decay, reset="soft", surrogate="sigmoid", surrogate_param=2)
    )
    measured = instruments.network_exponents(network, x, variables, n=9)
    with float64():
        _, aux = network.apply(to_default_precision(variables), jnp.asarray(x), False, inspect=("fc1", "fc2"))
        u = np.concatenate([aux.membranes["fc1"], aux.membranes["fc2"]], axis=-1)
    logistic = 1 / (1 + np.exp(-2 * (u - 1)))
    single = np.log(np.abs(decay * (1 - 2 * logistic * (1 - logistic)))).mean(axis=1)
    # QR needs time to sort directions that differ little; their sum, the logarithm of the determinant, needs none.
    np.testing.assert_allclose(measured.tangent.exponents.sum(1), single.sum(1), rtol=1e-6)
    np.testing.assert_allclose(measured.tangent.exponents, -np.sort(-single), atol=0.06)
    assert np.ptp(single) > 0.1


@pytest.mark.parametrize("feedback", [0.0, 1.0, 4.0])
def test_only_a_strong_loop_makes_a_network_chaotic_and_then_only_differences_that_flip_spikes_grow(feedback):
    """Without a loop, a default neuron forgets by its decay at least, whatever the weights are."""
    network, x, variables = built(name="recurrent", features=(64,), neuron=Neuron(decay=0.9))
    variables["params"]["rec1"]["feedback"] *= feedback
    measured = instruments.network_exponents(network, x, variables, warmup=10, deltas=(1e-6, 1.0))
    small, large = measured.finite_size.exponents.T
    assert np.all(small < 0)
    assert np.all((large > 0.1) == (feedback == 4)) and np.all((measured.tangent.exponents > 0.05) == (feedback == 4))
    if not feedback:
        assert np.all(measured.tangent.exponents <= np.log(0.9) + 1e-9)


@pytest.mark.parametrize("neuron", [{}, {"name": "alif", "reset": "soft"}, {"name": "cuba"}])
def test_the_tangent_is_the_jacobian_of_the_reverse_pass(neuron):
    """Of a recurrent layer, whose state has the last spikes, too, multiplied up over all time steps."""
    network, x, variables = built(name="recurrent", features=(3,), neuron=Neuron(decay=0.9, **neuron))
    size = 9 if neuron else 6
    measured = instruments.network_exponents(network, x[:1, :8], variables, n=size)
    with float64():
        step, variables = module.time_step(network), to_default_precision(variables)
        state = jax.tree.map(jnp.zeros_like, step(variables, {}, jnp.asarray(x[0, 0])))
        growth = []
        directions = np.linalg.qr(np.asarray(jax.random.normal(jax.random.key(0), (size, size), float)))[0]
        for x_t in jnp.asarray(x[0, :8]):
            jacobian = jax.jacrev(step, 1)(variables, state, x_t)
            leaves = jax.tree.leaves(jacobian)
            rows = len(jax.tree.leaves(state))
            blocks = [[leaf.reshape(3, 3) for leaf in leaves[rows * i : rows * (i + 1)]] for i in range(rows)]
            directions, triangle = np.linalg.qr(np.block(blocks) @ directions)
            growth.append(np.log(np.maximum(np.abs(np.diag(triangle)), np.finfo(float).tiny)))
            state = step(variables, state, x_t)
    vanished = np.min(growth, axis=0) < -25
    expected = np.mean(growth, axis=0)
    np.testing.assert_allclose(measured.tangent.exponents[0][~vanished], expected[~vanished], rtol=1e-5)
    assert np.all(measured.tangent.exponents[0][vanished] < -3) and not vanished[0]


def test_a_run_has_its_own_variables():
    run = restore("digits")
    x = np.random.default_rng(0).uniform(size=(1, 14, *run.config.model.input_shape))
    of_run = instruments.network_exponents("digits", x, warmup=8)
    network = models.build(run.config.model)
    of_network = instruments.network_exponents(network, x, run.variables, warmup=8)
    jax.tree.map(np.testing.assert_array_equal, of_run, of_network)
    assert of_run.tangent.exponents[0, 0] <= np.log(run.config.model.neuron.decay) + 0.01


def test_what_is_not_possible_is_refused_in_one_line():
    network, x, variables = built(name="dense", features=(4,))
    with pytest.raises(TypeError, match="variables are those of a network"):
        instruments.network_exponents(network, x)
    with pytest.raises(TypeError, match="variables are those of a network"):
        instruments.network_exponents("digits", x, variables)
    with pytest.raises(ConfigError, match=r"model.precision: bfloat16 is not possible"):
        rounding, x, variables = built(name="dense", features=(4,), precision="bfloat16")
        instruments.network_exponents(rounding, x, variables)
    with pytest.raises(ConfigError, match=r"stream: not possible with model\.norm tebn"):
        numbered, x, variables = built(name="dense", features=(4,), norm="tebn")
        instruments.network_exponents(numbered, x, learner_variables(numbered))


def learner_variables(network):
    return network.init(jax.random.key(0), jnp.zeros((2, network.time_steps, 6)), False)
