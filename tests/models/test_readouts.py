"""Read-outs over time: as a loop in NumPy says, of whole, cut and padded sequences, and in a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csbp_jax
from csbp_jax import models
from csbp_jax.config import ConfigError
from csbp_jax.models import readouts
from csbp_jax.models.streaming import stream
from csbp_jax.xla.lengths import mean_over_time
from tests.support.small_runs import QUIET, SMALL

OUTPUTS = np.random.default_rng(0).normal(size=(3, 7, 5))
LENGTHS = [7, 4, 1]


def softmax(o):
    e = np.exp(o - o.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


EXPECTED = {
    "mean": lambda o: o.mean(axis=0),
    "max": lambda o: o.max(axis=0),
    "last": lambda o: o[-1],
    "softmax": lambda o: softmax(o).sum(axis=0),
}


@pytest.mark.parametrize("read_out", EXPECTED)
def test_the_mean_over_time_is_the_read_out_whatever_the_padding_is(x64, read_out):
    padded = np.where(np.arange(7)[None, :, None] < np.array(LENGTHS)[:, None, None], OUTPUTS, 1e3)
    lengths = jnp.array(LENGTHS)
    read = mean_over_time(readouts.over_time(jnp.asarray(padded), read_out, lengths), lengths)
    expected = [EXPECTED[read_out](o[:n]) for o, n in zip(OUTPUTS, LENGTHS, strict=True)]
    np.testing.assert_allclose(read, expected, rtol=1e-12, atol=1e-12)
    whole = readouts.over_time(jnp.asarray(OUTPUTS), read_out).mean(axis=1)
    np.testing.assert_allclose(whole, [EXPECTED[read_out](o) for o in OUTPUTS], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("read_out", EXPECTED)
def test_the_decision_after_some_time_steps_is_that_of_the_read_out_of_these(x64, read_out):
    outputs = np.asarray(readouts.over_time(jnp.asarray(OUTPUTS), read_out))
    for steps in range(1, 8):
        decisions = outputs[:, :steps].mean(axis=1).argmax(axis=-1)
        assert decisions.tolist() == [EXPECTED[read_out](o[:steps]).argmax() for o in OUTPUTS]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_leaky_integrator_is_the_loop(x64, decay):
    expected, u = [], np.zeros((3, 5))
    for t in range(7):
        u = decay * u + (1 - decay) * OUTPUTS[:, t]
        expected.append(u)
    np.testing.assert_allclose(readouts.leaky(jnp.asarray(OUTPUTS), decay), np.stack(expected, axis=1), rtol=1e-12)


@pytest.mark.parametrize("read_out", EXPECTED)
def test_its_gradient_is_that_of_the_formula(x64, read_out):
    """By central differences, away from ties of the maximum."""
    weights = np.random.default_rng(1).normal(size=(3, 5))

    def loss(outputs):
        return jnp.sum(weights * readouts.over_time(readouts.leaky(outputs, 0.5), read_out).mean(axis=1))

    gradient, step = jax.grad(loss)(jnp.asarray(OUTPUTS)), 1e-6
    for index in np.ndindex(2, 7, 2):
        up, down = (OUTPUTS.copy() for _ in range(2))
        up[index] += step
        down[index] -= step
        difference = (loss(jnp.asarray(up)) - loss(jnp.asarray(down))) / (2 * step)
        np.testing.assert_allclose(gradient[index], difference, atol=1e-8)


@pytest.mark.parametrize("read_out", ["max", "last", "softmax"])
def test_a_network_with_it_trains_and_is_refused_in_chunks(tmp_path, read_out):
    config = SMALL.replace(**{"model.read_out": read_out, "model.read_out_decay": 0.5, "epochs": 1})
    result = csbp_jax.train(config, root=tmp_path, name="r", console=QUIET())
    assert 0 < result["last"]["test_accuracy"] < 1 and np.isfinite(result["last"]["test_loss"])
    network, x = models.build(config.model), jnp.zeros((1, 2, 8, 8, 1))
    variables = network.init(jax.random.key(0), x)
    with pytest.raises(ConfigError, match=r"model\.read_out: only the mean of all time steps"):
        stream(network, variables, x)
