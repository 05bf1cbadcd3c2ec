"""Single layers: the recurrent one against its equation, step by step, differentiated by JAX."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from csbp_jax import chaos, layers, neurons, surrogate
from csbp_jax.config import ConfigError

B, T, F = 4, 7, 5


def plain_recurrent(x, weights, neuron):
    """``(spikes, membrane, u)`` of a LIF with current ``x[t] + V s[t-1]``, one step after another."""
    s, v, rows = jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        u = neuron.decay * v + x[:, t] + s @ weights
        s = neuron.spike(u - neuron.threshold)
        r = lax.stop_gradient(s) if neuron.detach_reset else s
        v = {"hard": u * (1 - r), "soft": u - neuron.threshold * r}[neuron.reset]
        rows.append((s, u))
    return jnp.stack([s for s, _ in rows], 1), v, jnp.stack([u for _, u in rows], 1)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_feedback_and_its_gradients_equal_a_plain_loop(x64, reset, detach):
    rng = np.random.default_rng(0)
    x, weights = jnp.asarray(rng.normal(0.4, 1, (B, T, F))), jnp.asarray(rng.normal(0, 1, (F, F)))
    pull = [jnp.asarray(rng.normal(size=shape)) for shape in ((B, T, F), (B, F), (B, T, F))]

    def loss(run, outputs):
        def weighted(x, weights, decay):
            neuron = neurons.LIF(decay, 1.0, surrogate.arctan(2.0), reset, detach)
            out = run(x, weights, neuron)
            return sum((p * o).sum() for p, o in zip(pull[:outputs], out, strict=True)), out

        return jax.jit(jax.value_and_grad(weighted, (0, 1, 2), has_aux=True))(x, weights, 0.6)

    plain = loss(plain_recurrent, 3)
    traced = loss(lambda x, weights, neuron: layers.Feedback(neuron, weights).trace(x), 3)
    assert 0.1 < float(plain[0][1][0].mean()) < 0.9
    chex.assert_trees_all_close(traced, plain, rtol=1e-12, atol=1e-12)
    plain = loss(lambda *arguments: plain_recurrent(*arguments)[:2], 2)
    called = loss(lambda x, weights, neuron: layers.Feedback(neuron, weights)(x), 2)
    chex.assert_trees_all_close(called, plain, rtol=1e-12, atol=1e-12)


def test_a_recurrent_layer_feeds_back_what_its_weights_say(x64):
    layer, neuron = layers.Recurrent(F, name="rec"), neurons.LIF(0.25)
    x = jax.random.normal(jax.random.key(0), (B, T, 3))
    probe = layers.Probe(chaos.term, ("rec.norm", "rec.membrane", "rec.membrane_pre"), ("rec",))
    variables = layer.init(jax.random.key(1), x, False, neuron, probe)
    spikes, aux = layer.apply(variables, x, False, neuron, probe)
    current = x @ variables["params"]["dense"]["kernel"] / np.sqrt(1 + 1e-5)
    expected = plain_recurrent(current, variables["params"]["feedback"], neuron)
    chex.assert_trees_all_close((spikes, aux.membranes["rec"]), (expected[0], expected[2]), atol=1e-6)
    terms = [chaos.term(h) for h in (current, expected[1], expected[2])]
    chex.assert_trees_all_close([aux.terms[tap] for tap in probe.taps], terms, rtol=1e-6)


def test_a_neuron_without_trace_has_none_with_feedback_either():
    def relu(x, membrane=None):
        return jax.nn.relu(x), membrane

    layer, x = layers.Recurrent(F, name="rec"), jnp.ones((B, T, 3))
    variables = layer.init(jax.random.key(0), x, False, relu, layers.Probe(chaos.term))
    with pytest.raises(ConfigError, match=r"rec.membrane_pre: this neuron has no method trace"):
        layer.apply(variables, x, False, relu, layers.Probe(chaos.term, ("rec.membrane_pre",)))
