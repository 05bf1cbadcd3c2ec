"""Neurons and their states against plain loops over time, differentiated by JAX."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal, assert_type
from jax import lax

from csbp_jax import neurons, surrogate
from csbp_jax.config import ConfigError
from csbp_jax.models.taps import Probe, run_neuron
from csbp_jax.neurons.chunked import in_chunks
from csbp_jax.neurons.recurrent import Feedback
from tests.support.memory import memory_of

B, C, LEVELS = 3, 4, 2
SPIKE = surrogate.arctan(2.0)


def draw(*shape, seed=0, mean=0.4, std=0.9):
    return np.random.default_rng(seed).normal(mean, std, shape).astype(jnp.result_type(float))


def fire(distance, at_threshold):
    spikes = SPIKE(distance)
    return spikes + lax.stop_gradient((distance >= 0) - spikes) if at_threshold == "fire" else spikes


def after_reset(u, s, amount, options):
    s = lax.stop_gradient(s) if options.get("detach_reset") else s
    return {"hard": u * (1 - s), "soft": u - amount * s, "none": u}[options.get("reset", "hard")]


def leaky(x, v, options, decay, threshold):
    u = decay * v + x
    s = fire(u - threshold, options.get("at_threshold"))
    return s, u, (after_reset(u, s, threshold, options),)


def integer(x, v, options, decay, threshold):
    """The straight-through gradient is 1 from 0 to LEVELS."""
    u = decay * v + x
    passed = jnp.clip(u / threshold, 0, LEVELS)
    n = passed + lax.stop_gradient(jnp.round(passed) - passed)
    return n, u, (after_reset(u, n, threshold, options | {"reset": "soft"}),)


def current_based(x, v, current, options, synapse_decay, decay, threshold):
    current = synapse_decay * current + x
    u = decay * v + current
    s = fire(u - threshold, options.get("at_threshold"))
    return s, u, (after_reset(u, s, threshold, options), current)


def adaptive(x, v, a, options, decay, threshold, adaptation, adaptation_decay):
    u = decay * v + x
    s = fire(u - (threshold + adaptation * a), options.get("at_threshold"))
    return s, u, (after_reset(u, s, threshold, options), adaptation_decay * a + s)


def complementary(x, v, m, options, decay, threshold):
    u = decay * v + x
    s = fire(u - threshold, options.get("at_threshold"))
    m = m / (1 + jnp.exp(-(1 - decay) * u)) + s
    r = lax.stop_gradient(s) if options.get("detach_reset") else s
    return s, u, (u - r * (threshold + 1 / (1 + jnp.exp(-m))), m)


def symplectic(x, v, w, options, decay, threshold, adaptation_decay, coupling, adaptation):
    u = decay * v + (1 - decay) * (x - w)
    s = fire(u - threshold, options.get("at_threshold"))
    v = after_reset(u, s, threshold, options)
    return s, u, (v, adaptation_decay * w + (1 - adaptation_decay) * 120 * (coupling * v + adaptation * s))


def euler(x, v, w, z, options, decay, threshold, adaptation_decay, coupling, adaptation):
    """As the code of Baronig et al. has it: adaptation follows the states of the step before."""
    u = decay * v + (1 - decay) * (x - w)
    s = fire(u - threshold, options.get("at_threshold"))
    w = adaptation_decay * w + (1 - adaptation_decay) * 60 * (coupling * v + adaptation * z)
    return s, u, (after_reset(u, s, threshold, options), w, s)


def bittar(x, v, w, options, decay, threshold, adaptation_decay, coupling, adaptation):
    """``w`` is the adaptation of this step."""
    u = decay * v + (1 - decay) * (x - w)
    s = fire(u - threshold, options.get("at_threshold"))
    return s, u, (after_reset(u, s, threshold, options), adaptation_decay * w + coupling * u + adaptation * s)


class Case(NamedTuple):
    """A neuron, its equations of one time step ``(x, *states, options, **constants)``, and constants to begin with."""

    neuron: Any
    step: Any
    constants: dict[str, float]
    states: int = 2
    form: str = ""


COUPLED = {"decay": 0.4, "threshold": 0.2, "adaptation_decay": 0.9, "coupling": 0.02, "adaptation": 0.03}
CASES = {
    "lif": Case(neurons.LIF, leaky, {"decay": 0.7, "threshold": 0.9}, 1),
    "ilif": Case(neurons.ILIF, integer, {"decay": 0.5, "threshold": 0.9}, 1),
    "cuba": Case(neurons.CuBaLIF, current_based, {"synapse_decay": 0.6, "decay": 0.7, "threshold": 1.1}),
    "clif": Case(neurons.CLIF, complementary, {"decay": 0.7, "threshold": 0.9}),
    "alif": Case(neurons.ALIF, adaptive, {"decay": 0.7, "threshold": 0.9, "adaptation": 0.4, "adaptation_decay": 0.8}),
    "symplectic adlif": Case(neurons.AdLIF, symplectic, COUPLED, 2, "symplectic"),
    "euler adlif": Case(neurons.AdLIF, euler, COUPLED, 3, "euler"),
    "bittar adlif": Case(neurons.AdLIF, bittar, COUPLED, 2, "bittar"),
}
NEURONS = pytest.mark.parametrize("name", CASES)
OF_CELLS = pytest.mark.parametrize("name", [name for name in CASES if name != "lif"])  # test_neurons.py has the LIF


def build(name, constants, **options):
    fixed: dict[str, Any] = {"levels": LEVELS} if name == "ilif" else {"spike": SPIKE}
    if CASES[name].form:
        fixed |= {"form": CASES[name].form, "detach_reset": False}
    return CASES[name].neuron(**constants, **(fixed | options))


def plain(name, x, state, constants, **options):
    """``(spikes, states, u)``, one time step after another."""
    rows = []
    for x_t in jnp.moveaxis(x, 1, 0):
        s, u, state = CASES[name].step(x_t, *state, options, **constants)
        rows.append((s, u))
    return jnp.stack([s for s, _ in rows], 1), tuple(state), jnp.stack([u for _, u in rows], 1)


def traced(name, x, state, constants, **options):
    neuron = build(name, constants, **options)
    structure = jax.tree.structure(jax.eval_shape(neuron, x)[1])
    spikes, state, u = neuron.trace(x, jax.tree.unflatten(structure, state))
    return spikes, tuple(jax.tree.leaves(state)), u


def gradients(run, *arguments):
    """Gradients of the weighted sum of all outputs in all arguments, and the outputs."""

    def loss(arguments):
        outputs = run(*arguments)
        leaves = jax.tree.leaves(outputs)
        return sum((draw(*leaf.shape, seed=9 + n) * leaf).sum() for n, leaf in enumerate(leaves)), outputs

    return jax.jit(jax.grad(loss, has_aux=True))(arguments)


def arguments_of(name, T, per_channel=False):
    constants = {
        key: value * np.linspace(0.8, 1.2, C) if per_channel else np.array(value)
        for key, value in CASES[name].constants.items()
    }
    return (
        draw(B, T, C),
        (draw(B, C, seed=3), np.abs(draw(B, C, seed=4)), np.ones((B, C)))[: CASES[name].states],
        constants,
    )


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reset": "soft"},
    {"reset": "none"},
    {"reset": "soft", "detach_reset": True},
    {"detach_reset": True, "at_threshold": "fire"},
]


FAST = ((3, 3), (4, 6))
"""Number of the options and time steps of the rows of each neuron that every run of the tests has."""


@pytest.mark.parametrize(
    "name, T, options",
    [
        pytest.param(name, T, options, marks=() if (number, T) in FAST else pytest.mark.slow)
        for name in CASES
        for T in (3, 6)
        for number, options in enumerate(OPTIONS)
        if name != "lif" and (name not in ("clif", "ilif") or "reset" not in options)
    ],
)
def test_values_and_all_gradients_equal_a_plain_loop(x64, name, T, options):
    arguments = arguments_of(name, T, per_channel=T == 6)
    with jax.numpy_rank_promotion("allow"):
        expected = gradients(functools.partial(plain, name, **options), *arguments)
    assert 0.1 < expected[1][0].mean() < 0.9
    assert all((np.abs(leaf) > 1e-3).any() for leaf in jax.tree.leaves(expected[0][0]))
    actual = gradients(functools.partial(traced, name, **options), *arguments)
    assert_trees_all_close(actual, expected, rtol=1e-12, atol=1e-12)


@NEURONS
def test_two_calls_chained_by_the_state_equal_one_and_those_of_chunks(x64, name):
    neuron, x = build(name, CASES[name].constants), draw(B, 9, C)

    @jax.jit
    def run_all(x):
        first, state = neuron(x[:, :3])  # unrolled
        second, state = neuron(x[:, 3:], state)  # a loop
        rest = jax.tree.map(jnp.zeros_like, state)
        chunked, spikes = in_chunks(lambda state, x: neuron(x, state)[::-1], rest, x, 4)
        return neuron(x), (jnp.concatenate([first, second], 1), state), (spikes, chunked)

    expected, chained, chunked = run_all(x)
    assert_trees_all_close(chained, expected, rtol=1e-12)
    assert_trees_all_close(chunked, expected, rtol=1e-12)


@NEURONS
def test_bfloat16_currents_have_float32_states_and_bfloat16_spikes_and_gradients(name):
    neuron, x = build(name, CASES[name].constants), draw(B, 5, C).astype(jnp.bfloat16)

    @jax.jit
    def run_all(x):
        gradient = jax.grad(lambda x: neuron(x)[0].astype(jnp.float32).sum())(x)
        return *neuron(x), gradient, neuron(x.astype(jnp.float32))

    spikes, state, gradient, wide = run_all(x)
    assert_type([spikes, gradient, *jax.tree.leaves(state)], [jnp.bfloat16] * 2 + [jnp.float32] * CASES[name].states)
    assert_trees_all_equal((spikes.astype(jnp.float32), state), wide)


@OF_CELLS
def test_the_gradient_of_a_bfloat16_current_is_rounded_once(name):
    """On its way back through time it is float32."""
    neuron, x = build(name, CASES[name].constants), 2 * draw(B, 9, C).astype(jnp.bfloat16)
    weights = draw(B, 9, C, seed=1).astype(jnp.bfloat16).astype(jnp.float32)
    gradient = jax.grad(lambda x: (weights * neuron(x)[0]).sum())
    rounded, wide = jax.jit(lambda x: (gradient(x), gradient(x.astype(jnp.float32)).astype(jnp.bfloat16)))(x)
    assert_trees_all_equal(rounded, wide)


@NEURONS
def test_constants_and_neurons_can_be_stacked(name):
    x, constants = draw(B, 5, C), CASES[name].constants
    members = [build(name, {k: factor * v for k, v in constants.items()}) for factor in (0.9, 1.1)]
    stacked = jax.tree.map(lambda *leaves: np.array(leaves, np.float32), *members)

    @jax.jit
    def both(stacked, members, x):
        return jax.vmap(lambda neuron: neuron(x)[0])(stacked), jnp.stack([neuron(x)[0] for neuron in members])

    together, separate = both(stacked, members, x)
    assert_trees_all_equal(together, separate)
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.full] * (n != "alif")) for n in CASES])
def test_feedback_carries_all_states(x64, name):
    neuron, weights, x = build(name, CASES[name].constants), draw(C, C, seed=5), draw(B, 6, C)

    def expected(x, weights):
        s, state, rows = jnp.zeros((B, C)), (jnp.zeros((B, C)),) * CASES[name].states, []
        for x_t in jnp.moveaxis(x, 1, 0):
            s, u, state = CASES[name].step(x_t + s @ weights, *state, {}, **CASES[name].constants)
            rows.append((s, u))
        return jnp.stack([s for s, _ in rows], 1), state, jnp.stack([u for _, u in rows], 1)

    def actual(x, weights):
        spikes, state, u = Feedback(neuron, weights).trace(x)
        return spikes, tuple(jax.tree.leaves(state.inner)), u

    assert_trees_all_close(gradients(actual, x, weights), gradients(expected, x, weights), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "alif" else pytest.mark.slow) for n in CASES])
def test_jvp_of_a_gradient_is_its_central_difference(x64, name):
    arguments, h = arguments_of(name, 5), 1e-6
    direction = jax.tree.map(lambda a: draw(*a.shape, seed=6, mean=0), arguments)
    low, high = (jax.tree.map(lambda a, d, sign=sign: a + sign * h * d, arguments, direction) for sign in (-1, 1))

    def loss(arguments):
        spikes, state, u = traced(name, *arguments)
        return (spikes.mean(1) ** 2).sum() + jnp.sin(u).sum() + sum((leaf**2).sum() for leaf in state), spikes

    gradient = jax.grad(loss, has_aux=True)
    compiled = jax.jit(gradient)
    (of_low, spikes_of_low), (of_high, spikes_of_high) = compiled(low), compiled(high)
    assert_trees_all_equal(spikes_of_low, spikes_of_high)  # no spike comes or goes
    difference = jax.tree.map(lambda a, b: (b - a) / (2 * h), of_low, of_high)
    tangent = jax.jit(lambda a, d: jax.jvp(lambda a: gradient(a)[0], (a,), (d,))[1])(arguments, direction)
    assert_trees_all_close(tangent, difference, rtol=1e-6, atol=1e-6)


@OF_CELLS
def test_between_the_passes_is_a_float32_sequence_of_each_state(name):
    x = np.zeros((B, 6, 500), jnp.bfloat16)
    vjp = jax.jit(lambda x: jax.vjp(lambda x: build(name, CASES[name].constants)(x)[0], x))
    leaves = [leaf for leaf in jax.tree.leaves(jax.eval_shape(vjp, x)[1]) if leaf.size == x.size]
    assert [leaf.dtype.name for leaf in leaves] == ["float32"] * CASES[name].states
    # The trace, which is not asked for, costs nothing.
    outputs = CASES[name].states * 2 * x.nbytes + x.nbytes
    assert memory_of(vjp, x).output_size_in_bytes < outputs + 5 * 4 * B * 500


def test_taps_are_of_the_membrane_alone():
    probe = Probe(jnp.sum, ("layer.membrane", "layer.membrane_pre"), ("layer",))
    neuron = neurons.ALIF(0.7)

    @jax.jit
    def actual_and_expected(x):
        spikes, aux = run_neuron("layer", {}, x, neuron, probe)
        expected, state, u = neuron.trace(x)
        terms = {"layer.membrane": state.membrane.sum(), "layer.membrane_pre": u.sum()}
        return (spikes, aux.membranes["layer"], aux.terms), (expected, u, terms)

    assert_trees_all_equal(*actual_and_expected(draw(B, 5, C)))


def test_a_state_without_a_membrane_has_no_tap_of_it():
    def neuron(x, state=None):
        return x, {"current": x[:, 0]}

    _, aux = run_neuron("layer", {}, draw(B, 5, C), neuron, Probe(jnp.sum))
    assert aux.names == ("layer.membrane_pre",)
    with pytest.raises(ConfigError, match=r"layer.membrane_pre: this neuron has no method trace\(x, state=None\)"):
        run_neuron("layer", {}, draw(B, 5, C), neuron, Probe(jnp.sum, ("layer.membrane_pre",)))


def test_membrane_of_a_state():
    v, other = jnp.ones(2), jnp.zeros(2)
    for state in (v, neurons.AdaptiveState(v, other), {"membrane": v, "other": other}):
        assert neurons.membrane_of(state) is v
    assert neurons.membrane_of((other, other)) is None and neurons.membrane_of({"other": other}) is None
