"""Faulty spikes and inexact weights: rates, sizes and errors that they state, and nothing else changed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax import models
from csbp_jax.config import Model
from csbp_jax.evaluation.robustness import spike_faults, weight_errors
from csbp_jax.models.taps import Aux

DENSE = Model(name="dense", input_shape=(6,), classes=3, time_steps=5, features=(7, 4))
X = jnp.asarray(2 * np.random.default_rng(0).normal(size=(12, 1, 6)), jnp.float32)
KEYS = jax.random.split(jax.random.key(1), 12)


@functools.cache
def network(config=DENSE):
    """A network and its variables."""
    net = models.build(config)
    return net, jax.jit(net.init)(jax.random.key(0), X)


faulty = jax.jit(spike_faults.faulty)
with_noise = jax.jit(weight_errors.with_noise)


def disturbed(variables, keys, lost, added, levels=1, x=X, config=DENSE):
    """Logits and Aux of a network with faults, and the names of the layers that have them."""
    apply, layers = spike_faults.with_faults(network(config)[0].apply, keys, lost, added, levels)
    return jax.jit(apply)(variables, x), layers


@pytest.mark.parametrize(("lost", "added"), [(0.05, 0.0), (0.0, 0.05), (1.0, 0.0), (0.0, 1.0)])
def test_spikes_are_lost_and_added_at_the_rates(lost, added):
    spikes = (np.random.default_rng(2).random((40, 500)) < 0.3).astype(np.float32)
    out = np.asarray(faulty(jax.random.key(3), spikes, lost, added))
    fired, faults = spikes == 1, out != spikes
    assert set(np.unique(out)) <= {0, 1}
    for where, rate in ((fired, lost), (~fired, added)):
        assert stats.binomtest(int(faults[where].sum()), int(where.sum()), rate).pvalue > 0.001


def test_every_layer_is_reached_and_none_changes_without_faults():
    net, variables = network()
    (logits, aux), layers = disturbed(variables, KEYS, 0.0, 0.0)
    assert layers == ["fc1", "fc2"] and spike_faults.reachable(net.apply, variables, X)
    expected, expected_aux = jax.jit(net.apply)(variables, X)
    assert np.array_equal(logits, expected) and aux.rates == expected_aux.rates


def test_without_any_spike_the_logits_are_those_of_silence_and_depend_on_no_key():
    _, variables = network()
    (logits, _), _ = disturbed(variables, KEYS, 1.0, 0.0)
    bias = variables["params"]["readout"]["bias"]
    assert np.allclose(logits, jnp.broadcast_to(bias, (12, 5, 3)))


@pytest.mark.full
def test_faults_of_an_example_do_not_depend_on_the_others():
    _, variables = network()
    (all_of_them, _), _ = disturbed(variables, KEYS, 0.2, 0.2)
    (some, _), _ = disturbed(variables, KEYS[8:], 0.2, 0.2, x=X[8:])
    assert np.allclose(all_of_them[8:], some, atol=1e-6)


@pytest.mark.full
def test_layers_that_fire_integers_have_faults_too():
    ilif = dataclasses.replace(DENSE, neuron=dataclasses.replace(DENSE.neuron, name="ilif"))
    _, variables = network(ilif)
    levels = DENSE.neuron.levels
    (full, _), _ = disturbed(variables, KEYS, 0.0, 1.0, levels, config=ilif)
    kernel, bias = variables["params"]["readout"]["kernel"], variables["params"]["readout"]["bias"]
    assert np.allclose(full, jnp.broadcast_to(levels * kernel.sum(0) + bias, (12, 5, 3)), atol=1e-5)


def test_a_network_of_other_layers_is_not_reached():
    _, variables = network()
    foreign = Aux(rates={"layer": jnp.zeros(())})
    assert not spike_faults.reachable(lambda *_: (jnp.zeros((12, 5, 3)), foreign), variables, X)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv1": {"conv": {"kernel": rng.normal(size=(3, 3, 40, 5)).astype(np.float32)}},
        "rec1": {"feedback": rng.normal(size=(300, 4)).astype(np.float32)},
        "norm": {"scale": np.ones((4, 5), np.float32), "bias": np.zeros(5, np.float32)},
        "readout": {"kernel": np.zeros((6, 2), np.float32), "bias": np.ones(2, np.float32)},
    }


def test_noise_has_the_stated_size_in_each_output_filter():
    params = weights()
    scaled = params | {
        "rec1": {"feedback": params["rec1"]["feedback"] * np.array([[1.0, 10.0, 0.01, 3.0]], np.float32)}
    }
    noisy = with_noise(jax.random.key(0), scaled, 0.05)
    for exact, changed in ((scaled["conv1"]["conv"]["kernel"], noisy["conv1"]["conv"]["kernel"]),
                           (scaled["rec1"]["feedback"], noisy["rec1"]["feedback"])):  # fmt: skip
        axes, n = tuple(range(exact.ndim - 1)), exact.size // exact.shape[-1]
        ratio = np.sqrt(np.mean(np.square(changed - exact), axes) / np.mean(np.square(exact), axes)) / 0.05
        assert (np.abs(ratio - 1) < 4 / np.sqrt(2 * n)).all()
    for path in ("norm", "readout"):
        assert jax.tree.all(jax.tree.map(np.array_equal, noisy[path], scaled[path]))


def test_draws_of_noise_differ_and_scale_with_the_strength():
    params = weights()
    first, second = (with_noise(jax.random.key(k), params, 0.1) for k in (0, 1))
    half = with_noise(jax.random.key(0), params, 0.05)
    kernel, *others = (tree["conv1"]["conv"]["kernel"] for tree in (params, first, second, half))
    assert not np.allclose(others[0], others[1])
    assert np.allclose(others[0] - kernel, 2 * (others[2] - kernel), atol=1e-5)


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 2])
def test_rounding_is_off_by_half_a_step_at_most(bits):
    """Against NumPy, and with no more values than the bits allow."""
    params = weights()
    rounded = weight_errors.rounded(jax.random.key(0), params, bits)
    for exact, changed in ((params["conv1"]["conv"]["kernel"], rounded["conv1"]["conv"]["kernel"]),
                           (params["rec1"]["feedback"], rounded["rec1"]["feedback"])):  # fmt: skip
        exact, changed = (np.asarray(w, np.float64).reshape(-1, w.shape[-1]) for w in (exact, changed))
        step = np.abs(exact).max(0) / (2 ** (bits - 1) - 1)
        assert (np.abs(changed - exact) <= step / 2 * (1 + 1e-5)).all()
        numbers = changed / step
        assert np.allclose(numbers, np.round(numbers), atol=1e-4) and np.abs(numbers).max() < 2 ** (bits - 1) - 0.99
        assert np.allclose(np.abs(changed).max(0), np.abs(exact).max(0), rtol=1e-6)
    for path in ("norm", "readout"):
        assert jax.tree.all(jax.tree.map(np.array_equal, rounded[path], params[path]))
