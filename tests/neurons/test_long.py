"""Chunks of time: equal to the unchunked sequence, in the memory of a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from csbp_jax.neurons import lif
from csbp_jax.neurons.chunked import in_chunks
from tests.support.memory import memory_of

B, INPUTS, HIDDEN, CLASSES = 4, 30, 24, 5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(jnp.result_type(float))


def weights():
    shapes = ((INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES))
    return [draw(*shape, seed=n) * (3 / shape[0]) ** 0.5 for n, shape in enumerate(shapes)]


def net(weights):
    """Two layers of neurons and a read-out, as a step over time."""

    def step(membranes, x):
        after = []
        for w, membrane in zip(weights[:2], membranes, strict=True):
            x, membrane = lif(x @ w, 0.9, membrane=membrane)
            after.append(membrane)
        return after, x @ weights[2]

    return step, [jnp.zeros((B, HIDDEN))] * 2


def loss(weights, x, length=None):
    step, state = net(weights)
    membranes, logits = in_chunks(step, state, x, length) if length else step(state, x)
    return (logits.mean(axis=1) ** 2).sum(), (membranes, logits)


gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)


@pytest.mark.parametrize(
    "length",
    [7, pytest.param(64, marks=pytest.mark.full), *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 20))],
)
def test_outputs_and_gradients_equal_those_without_chunks(x64, length):
    x = draw(B, 20, INPUTS, seed=3)
    (expected, outputs), (gradients, chunked) = gradient(weights(), x, None), gradient(weights(), x, length)
    assert_trees_all_close(chunked, outputs, rtol=0, atol=1e-12)
    assert_trees_all_close(gradients, expected, rtol=0, atol=1e-12)
    assert all(abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))


@pytest.mark.full
def test_a_thousand_steps_need_at_most_twice_the_temporaries_of_64():
    def temporaries(T, length):
        step = jax.jit(jax.grad(lambda w, x: loss(w, x, length)[0]))
        return memory_of(step, weights(), jnp.zeros((B, T, INPUTS))).temp_size_in_bytes

    short = temporaries(64, None)
    assert temporaries(1000, 50) <= 2 * short
    assert temporaries(1000, None) > 10 * short
