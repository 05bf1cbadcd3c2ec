"""Neurons around neurons: feedback and PLIF against plain loops differentiated by JAX."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax import neurons, surrogate
from csbp_jax.neurons.plif import PLIF, Scaled
from csbp_jax.neurons.recurrent import Feedback

B, T, F = 4, 7, 5
SLOW = pytest.mark.slow


def plain(x, current, neuron):
    """``(spikes, membrane, u)`` of a LIF with ``u[t] = decay v + current(x[t], v, s[t-1])``, one step after another."""
    s, v, rows = jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        u = neuron.decay * v + current(x[:, t], s)
        s = neuron.spike(u - neuron.threshold)
        r = lax.stop_gradient(s) if neuron.detach_reset else s
        v = {"hard": u * (1 - r), "soft": u - neuron.threshold * r}[neuron.reset]
        rows.append((s, u))
    return jnp.stack([s for s, _ in rows], 1), v, jnp.stack([u for _, u in rows], 1)


def value_and_gradients(run, outputs, *arguments):
    """Of a weighted sum of the first ``outputs`` of spikes, membrane and trace, in all arguments."""
    rng = np.random.default_rng(1)
    pull = [jnp.asarray(rng.normal(size=shape)) for shape in ((B, T, F), (B, F), (B, T, F))]

    def weighted(*arguments):
        out = run(*arguments)[:outputs]
        return sum((p * o).sum() for p, o in zip(pull, out, strict=False)), out

    return jax.jit(jax.value_and_grad(weighted, tuple(range(len(arguments))), has_aux=True))(*arguments)


def draw(*shape, mean=0.4):
    return jnp.asarray(np.random.default_rng(0).normal(mean, 1, shape))


@pytest.mark.parametrize(
    "outputs, reset, detach",
    [
        # The trace has all outputs of the call, so that the fast tests need the call only once.
        pytest.param(outputs, reset, detach, marks=() if outputs == 3 or (reset, detach) == ("hard", False) else SLOW)
        for outputs in (2, 3)
        for reset in ("hard", "soft")
        for detach in (False, True)
    ],
)
def test_feedback_and_its_gradients_equal_a_plain_loop(x64, reset, detach, outputs):
    def expected(x, weights, decay):
        neuron = neurons.LIF(decay, 1.0, surrogate.arctan(2.0), reset, detach)
        return plain(x, lambda x_t, s: x_t + s @ weights, neuron)

    def actual(x, weights, decay):
        neuron = neurons.LIF(decay, 1.0, surrogate.arctan(2.0), reset, detach)
        fed = Feedback(neuron, weights)
        spikes, state, *u = fed.trace(x) if outputs == 3 else fed(x)
        return spikes, state.membrane, *u

    arguments = (draw(B, T, F), draw(F, F), jnp.float64(0.6))
    wanted = value_and_gradients(expected, outputs, *arguments)
    assert 0.1 < float(wanted[0][1][0].mean()) < 0.9
    chex.assert_trees_all_close(value_and_gradients(actual, outputs, *arguments), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "outputs, per_channel",
    [(2, False), (3, True), pytest.param(2, True, marks=SLOW), pytest.param(3, False, marks=SLOW)],
)
def test_plif_and_its_gradients_equal_a_plain_loop(x64, outputs, per_channel):
    module = PLIF(0.5, per_channel=per_channel)
    assert module.init(jax.random.key(0), F)["params"]["w"].shape == ((F,) if per_channel else ())

    def expected(x, w):
        k = jax.nn.sigmoid(w)
        return plain(x, lambda x_t, s: k * x_t, neurons.LIF(1 - k, 1.0, surrogate.arctan(2.0), "hard", True))

    def actual(x, w):
        neuron: Any = module.apply({"params": {"w": w}}, F)
        return neuron.trace(x) if outputs == 3 else neuron(x)

    with jax.numpy_rank_promotion("allow"):
        arguments = (draw(B, T, F, mean=1.0), draw(*((F,) if per_channel else ())))
        wanted = value_and_gradients(expected, outputs, *arguments)
        assert 0.1 < float(wanted[0][1][0].mean()) < 0.9
    chex.assert_trees_all_close(value_and_gradients(actual, outputs, *arguments), wanted, rtol=1e-12, atol=1e-12)


def test_plif_begins_at_its_decay():
    neuron = PLIF(0.75).init_with_output(jax.random.key(0), F)[0]
    np.testing.assert_allclose(neuron.neuron.decay, 0.75, rtol=1e-6)
    np.testing.assert_allclose(neuron.gain, 0.25, rtol=1e-6)


def test_a_scaled_neuron_goes_on_from_a_membrane():
    neuron, x = Scaled(neurons.LIF(0.5), jnp.array(2.0)), draw(B, T, F).astype(jnp.float32)

    @jax.jit
    def run_both(x):
        first, membrane = neuron(x[:, :3])
        second, membrane = neuron(x[:, 3:], membrane)
        return (jnp.concatenate([first, second], 1), membrane), neuron(x)

    chex.assert_trees_all_close(*run_both(x), rtol=1e-6)


def test_scaled_neurons_can_be_stacked():
    members = [Scaled(neurons.LIF(decay, at_threshold="fire"), 1 - decay) for decay in (0.5, 0.75)]
    x = draw(B, T, F, mean=1.0)
    stacked = jax.tree.map(lambda *values: jnp.array(values), *members)
    spikes, _ = jax.jit(jax.vmap(lambda neuron, x: neuron(x), in_axes=(0, None)))(stacked, x)
    for of_member, neuron in zip(spikes, members, strict=True):
        np.testing.assert_array_equal(of_member, neuron(x)[0])


@pytest.mark.parametrize("around", [lambda n: Scaled(n, jnp.array(1.0)), lambda n: Feedback(n, jnp.eye(F))])
def test_there_is_a_trace_only_where_the_neuron_inside_has_one(around):
    assert hasattr(around(neurons.LIF()), "trace")
    assert not hasattr(around(lambda x, membrane=None: (x, membrane)), "trace")


def test_plif_refuses_a_decay_without_a_logarithm():
    with pytest.raises(ValueError, match=r"PLIF: decay is 1.0, but must be between 0 and 1"):
        PLIF(decay=1.0).init(jax.random.key(0), 2)
