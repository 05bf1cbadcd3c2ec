"""A network as an NNX module: equal logits, and training with the chaos loss, as of the Linen network itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chex import assert_trees_all_close
from flax import nnx

from examples import network_in_nnx

STEP, Z0 = 3, 5.0


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.random((16, 4, 64), np.float32) * 2), jnp.asarray(rng.integers(0, 10, 16))


def variables(net):
    """The parameters and running statistics as Linen's variables."""
    return {
        name: nnx.to_pure_dict(nnx.state(net, kind))
        for name, kind in (("params", nnx.Param), ("batch_stats", nnx.BatchStat))
    }


def linen_loss(network, params, batch_stats, x, y):
    """The example's loss, written with Linen's ``apply``."""
    (logits, aux), mutated = network.apply(
        {"params": params, "batch_stats": batch_stats}, x, True, taps=("fc1.membrane",), mutable=["batch_stats"]
    )
    value = optax.softmax_cross_entropy_with_integer_labels(logits.mean(1), y).mean()
    return value + Z0 * 0.98**STEP * aux.terms["fc1.membrane"], mutated["batch_stats"]


def test_loss_gradient_and_statistics_are_those_of_the_linen_network(batch):
    net = network_in_nnx.build()
    network, before = net.to_nnx__module, variables(net)
    value, gradient = nnx.jit(nnx.value_and_grad(network_in_nnx.loss))(net, *batch, STEP, Z0)
    expected = jax.jit(
        jax.value_and_grad(lambda p: linen_loss(network, p, before["batch_stats"], *batch), has_aux=True)
    )
    (expected_value, stats), expected_gradient = expected(before["params"])
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    assert_trees_all_close(nnx.to_pure_dict(gradient), expected_gradient, rtol=1e-5, atol=1e-7)
    assert_trees_all_close(variables(net)["batch_stats"], stats, rtol=1e-6)
    assert np.abs(stats["fc1"]["norm"]["mean"]).max() > 1e-3


def test_evaluation_is_equal_bit_for_bit_after_training(batch):
    x, y = batch
    net = network_in_nnx.build()
    optimizer = nnx.Optimizer(net, optax.adam(5e-3), wrt=nnx.Param)
    losses = [float(network_in_nnx.update(net, optimizer, x, y, step, 0.0)) for step in range(8)]
    assert losses[-1] < 0.8 * losses[0]
    trained = variables(net)
    logits, aux = nnx.jit(lambda net, x: net(x))(net, x)
    expected, expected_aux = jax.jit(net.to_nnx__module.apply)(trained, x)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(aux.rates["fc2"], expected_aux.rates["fc2"])
    assert 0 < float(aux.rates["fc2"]) < 1
    assert_trees_all_close(variables(net), trained, rtol=0)  # evaluation changes nothing


def test_the_example_learns():
    assert network_in_nnx.train(10.0, epochs=1) > 0.5
