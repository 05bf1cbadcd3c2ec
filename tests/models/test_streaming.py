"""Networks applied chunk by chunk, with the states of all neurons carried, against the whole sequence."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import models
from csbp_jax.config import ConfigError, Model, Neuron
from csbp_jax.models import graph
from csbp_jax.surrogate import triangle

T = 11
IMAGE, FEATURES = (8, 8, 2), (24,)
CASES = {
    "dense": Model(name="dense", input_shape=FEATURES, features=(32, 16), norm="batch", neuron=Neuron(decay=0.9)),
    "recurrent": Model(name="recurrent", input_shape=FEATURES, features=(32, 24), neuron=Neuron(decay=0.9)),
    "small_conv": Model(name="small_conv", input_shape=IMAGE, features=(8, 12), neuron=Neuron(decay=0.8)),
    "adaptive, recurrent": Model(
        name="recurrent", input_shape=FEATURES, features=(32,), neuron=Neuron(name="alif", decay=0.9, adaptation=0.4)
    ),
    "current-based": Model(
        name="dense", input_shape=FEATURES, features=(32, 16), neuron=Neuron(name="cuba", decay=0.9, synapse_decay=0.5)
    ),
    "coupled, recurrent": Model(
        name="recurrent",
        input_shape=FEATURES,
        features=(32,),
        neuron=Neuron(name="adlif", decay=0.5, threshold=0.2, coupling=0.1, form="euler"),
    ),
    "learned decay": Model(name="dense", input_shape=FEATURES, features=(32,), neuron=Neuron(decay=0.5, learn="layer")),
    "bfloat16": Model(name="recurrent", input_shape=FEATURES, features=(32,), precision="bfloat16"),
    "sliding": Model(name="dense", input_shape=FEATURES, features=(32, 16), neuron=Neuron(name="sliding_psn", order=3)),
    "delays": Model(
        name="dense", input_shape=FEATURES, features=(32, 16), time_steps=T, max_delay=4, neuron=Neuron(decay=0.9)
    ),
    # So wide that XLA's order of summation depends on the number of rows of a product.
    "wide": Model(name="recurrent", input_shape=(700,), features=(256,), neuron=Neuron(decay=0.9)),
    "shortcuts": Model(
        name="sew_7b", input_shape=(128, 128, 2), width=0.04, time_steps=T, neuron=Neuron(decay=0.9, threshold=0.5)
    ),
    "attention": Model(
        name="spikformer_cifar",
        input_shape=IMAGE,
        embed=16,
        depth=2,
        heads=2,
        patch=2,
        neuron=Neuron(decay=0.9, threshold=0.3, at_threshold="fire"),
    ),
    "complementary": Model(
        name="recurrent", input_shape=FEATURES, features=(32,), neuron=Neuron(name="clif", decay=0.9)
    ),
    "integer": Model(name="recurrent", input_shape=FEATURES, features=(32,), neuron=Neuron(name="ilif", decay=0.5)),
}
SLOW = ("dense", "shortcuts", "attention", "complementary", "integer")
FAST = ("recurrent", "sliding", "delays")


@functools.cache
def prepared(name) -> tuple[Any, Any, np.ndarray]:
    """A network whose running statistics are those of its input, its variables, and a sequence."""
    config = CASES[name]
    network = models.build(config)
    shape = (1 if name == "wide" else 2, T, *config.input_shape)
    x = np.random.default_rng(0).poisson(0.7, shape).astype(np.float32)

    @jax.jit
    def variables_of(x):
        def with_later_statistics(variables, _):
            _, mutated = network.apply(variables, x, True, mutable=["batch_stats"])
            return {**variables, **mutated}, None

        return jax.lax.scan(with_later_statistics, network.init(jax.random.key(0), x), length=10)[0]

    return network, variables_of(x), x


@functools.cache
def compiled_stream(name):
    return jax.jit(functools.partial(models.stream, prepared(name)[0]))


def in_chunks(stream, variables, x, lengths):
    """The logits of a sequence that arrives in chunks of these lengths, and the last states."""
    states, logits, start = None, [], 0
    for length in lengths:
        chunk, states = stream(variables, x[:, start : start + length], states)
        logits.append(chunk)
        start += length
    assert start == x.shape[1]
    return np.concatenate(logits, 1), states


def marks(name):
    return [] if name in FAST else [pytest.mark.slow] if name in SLOW else [pytest.mark.full]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_chunks_of_any_lengths_equal_the_whole_sequence_bit_for_bit(name):
    network, variables, x = prepared(name)
    stream = compiled_stream(name)
    whole, _ = stream(variables, x)
    for lengths in ([1] * T, [1, 5, 5]):
        logits, _ = in_chunks(stream, variables, x, lengths)
        np.testing.assert_array_equal(logits, whole)
    applied, aux = jax.jit(network.apply)(variables, x)
    assert sum(float(rate) > 0.02 for rate in aux.rates.values()) > len(aux.rates) / 2
    np.testing.assert_allclose(whole, applied, rtol=1e-5, atol=1e-5)


def test_the_states_are_those_after_the_last_step_and_a_forgotten_one_changes_the_result():
    _, variables, x = prepared("recurrent")
    stream = compiled_stream("recurrent")
    logits, states = in_chunks(stream, variables, x, [T])
    assert list(states) == ["rec1", "rec2"] and states["rec1"].spikes.shape == (2, 32)
    _, chunked = in_chunks(stream, variables, x, [5, 1, 5])
    for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_array_equal(a, b)
    first, carried = stream(variables, x[:, :5], None)
    without_spikes = carried | {"rec1": carried["rec1"]._replace(spikes=0 * carried["rec1"].spikes)}
    for forgetful in (without_spikes, carried | {"rec2": jax.tree.map(jnp.zeros_like, carried["rec2"])}):
        rest, _ = stream(variables, x[:, 5:10], forgetful)
        assert not np.array_equal(rest, logits[:, 5:10])
    np.testing.assert_array_equal(first, logits[:, :5])


def test_examples_of_a_batch_can_be_at_different_places_of_their_sequences():
    """The batch is the first axis of every state: rows may be exchanged, or set to rest."""
    _, variables, x = prepared("recurrent")
    stream = compiled_stream("recurrent")
    _, states = stream(variables, x[:, :5], None)
    first = np.array([True, False])
    restarted = jax.tree.map(lambda leaf: np.where(first.reshape(2, *(1,) * (leaf.ndim - 1)), leaf, 0), states)
    logits, _ = stream(variables, x[:, :5], restarted)
    fresh, _ = stream(variables, x[:, :5], None)
    np.testing.assert_array_equal(logits[1], fresh[1])
    assert not np.array_equal(logits[0], fresh[0])


def test_states_of_another_network_or_batch_are_refused():
    network, variables, x = prepared("recurrent")
    _, states = jax.eval_shape(functools.partial(models.stream, network), variables, x)
    states = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), states)
    cases: list[Any] = [({"rec1": states["rec1"]}, x), (states, x[:1]), ([states["rec1"]], x)]
    for wrong, chunk in cases:
        with pytest.raises(
            ValueError, match=r"stream: states are of another network or batch; pass those of the chunk"
        ):
            models.stream(network, variables, chunk, wrong)


def test_a_chunk_without_a_time_step_is_refused():
    network, variables, x = prepared("recurrent")
    chunks: list[Any] = [x[:, :0], x[0, 0]]
    for chunk in chunks:
        with pytest.raises(ValueError, match=r"stream: x has shape \(.*\), but must be \[B, t, ...\] with t >= 1"):
            models.stream(network, variables, chunk)


def test_networks_that_cannot_be_streamed_are_refused():
    x = jnp.zeros((1, 2, *FEATURES))
    for norm in ("tebn", "bntt"):
        network = models.build(Model(name="dense", input_shape=FEATURES, features=(4,), norm=norm))
        with pytest.raises(ConfigError, match=f"stream: not possible with model.norm {norm}, whose parameters are per"):
            models.stream(network, {}, x)
    parallel = models.build(Model(name="dense", input_shape=FEATURES, time_steps=2, neuron=Neuron(name="psn")))
    with pytest.raises(ConfigError, match="PSN: x has 1 time steps, but the weights are for all 2 steps at once"):
        jax.eval_shape(lambda x: models.stream(parallel, parallel.init(jax.random.key(0), x), x), x)
    described = graph.GraphNetwork(graph=graph.Graph("input", FEATURES, ()), spike=triangle())
    with pytest.raises(ConfigError, match="stream: not possible for a network of an NIR graph"):
        models.stream(described, {}, x)
