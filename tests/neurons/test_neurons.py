"""The neuron through time against reference values and a plain loop over time differentiated by JAX."""

import contextlib
import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_shape, assert_trees_all_close, assert_trees_all_equal, assert_type
from jax import lax

from csbp_jax import surrogate
from csbp_jax.neurons import ILIF, LIF, CuBaLIF, lif, lif_trace
from csbp_jax.runtime.hardware import float64
from csbp_jax.xla.platform import traced_for
from tests.support.memory import memory_of

B, C = 3, 4
# Else XLA may leave out a rounding to bfloat16 that is widened again.
ROUNDING = {"xla_allow_excess_precision": False}
UNROLLED_AND_LOOP = pytest.mark.parametrize("T", [3, 5])
RESETS = pytest.mark.parametrize("reset", ["hard", "soft", "none"])
# The reset is one rule in both forms.
RESETS_UNROLLED_AND_LOOP = pytest.mark.parametrize(
    ("reset", "T"),
    [
        *[("hard", 3), ("soft", 5), pytest.param("none", 5, marks=pytest.mark.full)],
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("hard", 5), ("soft", 3), ("none", 3)]),
    ],
)
SPIKES = {
    "triangle_1": surrogate.triangle(1.0),
    "triangle_0.5": surrogate.triangle(0.5),
    "rectangle_1": surrogate.rectangle(1.0),
    "sigmoid_4": surrogate.sigmoid(4.0),
    "atan_2": surrogate.arctan(2.0),
    "fast_sigmoid_10": surrogate.fast_sigmoid(10.0),
}


def plain_lif(x, decay, threshold, *, spike=surrogate.triangle(), reset="hard", detach_reset=False, membrane=None):
    """What ``lif_trace`` computes, one step after another."""
    v = jnp.zeros_like(x[:, 0]) if membrane is None else membrane
    decay, threshold = jnp.broadcast_to(decay, v.shape), jnp.broadcast_to(threshold, v.shape)
    spikes, trace = [], []
    for x_t in jnp.moveaxis(x, 1, 0):
        u = decay * v + x_t
        s = spike(u - threshold)
        r = lax.stop_gradient(s) if detach_reset else s
        v = {"hard": u * (1 - r), "soft": u - threshold * r, "none": u}[reset]
        spikes.append(s)
        trace.append(u)
    return jnp.stack(spikes, 1), v, jnp.stack(trace, 1)


def draw(*shape, seed=0, mean=0.3, std=0.9):
    return np.random.default_rng(seed).normal(mean, std, shape).astype(jnp.result_type(float))


def make_gradients(neuron, **static):
    """``(arguments, weights) -> (gradients, outputs)`` of the weighted sum of the outputs, in all arguments."""

    def loss(arguments, weights):
        outputs = neuron(**arguments, **static)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, o: (w * o).sum(), weights, outputs))), outputs

    return jax.jit(jax.grad(loss, has_aux=True))


def assert_close(actual, expected, tolerance, axes=None):
    """Within ``tolerance`` of the largest entry of each array (along ``axes``, where cases are stacked)."""

    def scaled(array, by):
        return np.asarray(array, np.float64) / np.abs(by).max(axes, keepdims=True)

    actual = jax.tree.map(scaled, actual, expected)
    assert_trees_all_close(actual, jax.tree.map(scaled, expected, expected), rtol=0, atol=tolerance)


# --- reference values


@pytest.fixture(scope="module")
def reference_cases(reference):
    """{(reset, detach, surrogate): the 6 cases of other decays and thresholds, stacked}; a case is [B, T, ...]."""
    data = reference("neuron")
    groups: dict[Any, Any] = {}
    for n in range(144):
        decay, threshold, *group = data[f"{n:03d}/meta"]
        case = {name: data[f"{n:03d}/{name}"] for name in ("x", "v0", "ws", "wv", "spikes", "v", "dx", "dv0", "dtau")}
        case |= {name: np.moveaxis(case[name], 0, 1) for name in ("x", "ws", "spikes", "dx")}
        groups.setdefault(tuple(group), []).append(case | {"decay": float(decay), "threshold": float(threshold)})
    assert [len(cases) for cases in groups.values()] == [6] * 24
    return {group: jax.tree.map(lambda *leaves: np.stack(leaves), *cases) for group, cases in groups.items()}


@functools.partial(jax.jit, static_argnums=(7, 8))
def run_cases(x, membrane, decay, threshold, ws, wv, spike, reset, detach):
    def loss(x, membrane, decay, threshold, ws, wv):
        outputs = lif(x, decay, threshold, spike=spike, reset=reset, detach_reset=detach, membrane=membrane)
        return (ws * outputs[0]).sum() + (wv * outputs[1]).sum(), outputs

    return jax.vmap(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(x, membrane, decay, threshold, ws, wv)


def reference_parameters():
    """All combinations, some of which are slow; in `make test`, all resets with one surrogate."""
    for dtype, tolerance, decay_tolerance in (("float64", 1e-12, 1e-12), ("float32", 1e-5, 1e-4)):
        for name, detach, reset in itertools.product(SPIKES, (False, True), ("hard", "soft")):
            first = (name == "triangle_1", (reset, detach) == ("hard", False))
            fast = (
                any(first) if dtype == "float64" else name == "triangle_1" and reset == ("soft" if detach else "hard")
            )
            kind = "detached" if detach else "attached"
            yield pytest.param(
                *(reset, detach, name, dtype, tolerance, decay_tolerance),
                id=f"{reset}-{kind}-{name}-{dtype}",
                marks=() if fast and name == "triangle_1" else pytest.mark.full if fast else pytest.mark.slow,
            )


@pytest.mark.parametrize("reset, detach, name, dtype, tolerance, decay_tolerance", list(reference_parameters()))
def test_spikes_and_gradients_equal_reference(reference_cases, reset, detach, name, dtype, tolerance, decay_tolerance):
    case = reference_cases[reset, str(detach), name]
    with float64() if dtype == "float64" else contextlib.nullcontext():
        arguments = [np.asarray(case[k], dtype) for k in ("x", "v0", "decay", "threshold", "ws", "wv")]
        (dx, dv0, ddecay), (spikes, membrane) = run_cases(*arguments, SPIKES[name], reset, detach)
    assert_type([spikes, membrane, dx, dv0, ddecay], dtype)
    assert_trees_all_equal(spikes, case["spikes"].astype(dtype))
    assert_close((membrane, dv0), (case["v"], case["dv0"]), tolerance, axes=(1, 2))
    assert_close(dx, case["dx"], tolerance, axes=(1, 2, 3))
    assert_trees_all_close(np.float64(ddecay), case["dtau"], rtol=decay_tolerance)


# --- the plain loop


SLOW_PLAIN = [("hard", True, 3), ("hard", False, 5), ("soft", False, 3), ("soft", True, 5), ("none", False, 3)]


@pytest.mark.parametrize(
    "reset, detach, T, per_channel",
    [
        pytest.param(reset, detach, T, T == 5, marks=pytest.mark.slow if (reset, detach, T) in SLOW_PLAIN else ())
        for reset, detach in [("hard", False), ("hard", True), ("soft", False), ("soft", True), ("none", False)]
        for T in (3, 5)
    ],
)
def test_values_and_all_gradients_equal_the_plain_loop(x64, reset, detach, T, per_channel):
    static = {"spike": surrogate.arctan(), "reset": reset, "detach_reset": detach}
    decay, threshold = (np.linspace(0.2, 1, C), np.linspace(0.6, 1.2, C)) if per_channel else (0.5, 0.8)
    arguments = {"x": draw(B, T, C), "membrane": draw(B, C, seed=9), "decay": decay, "threshold": threshold}
    *weights, trace_weight = draw(B, T, C, seed=1), draw(B, C, seed=2), draw(B, T, C, seed=3)
    plain, trace, two = (make_gradients(f, **static) for f in (plain_lif, lif_trace, lif))

    # Without and with a cotangent for u.
    expected, (spikes, membrane, _) = plain(arguments, (*weights, 0 * trace_weight))
    assert 0.1 < spikes.mean() < 0.9
    assert_close(two(arguments, tuple(weights)), (expected, (spikes, membrane)), 1e-13)
    assert_close(trace(arguments, (*weights, trace_weight)), plain(arguments, (*weights, trace_weight)), 1e-13)


@UNROLLED_AND_LOOP
def test_shapes_follow_x_and_the_membrane_defaults_to_zeros(T):
    x = draw(2, T, 3, 3, 2)
    decay, threshold = np.full((3, 1, 1), 0.5, np.float32), np.ones((1, 1, 1, 2), np.float32)

    @jax.jit
    def both(x):
        return lif_trace(x, decay, threshold), lif_trace(x, membrane=jnp.zeros((2, 3, 3, 2)))

    outputs, of_zeros = both(x)
    assert_shape(outputs, [(2, T, 3, 3, 2), (2, 3, 3, 2), (2, T, 3, 3, 2)])
    assert_trees_all_equal(outputs, of_zeros)


# --- membrane and threshold


@functools.partial(jax.jit, static_argnames="reset")
def of_reset(x, membrane, reset):
    return lif_trace(x, 0.5, membrane=membrane, reset=reset)


@UNROLLED_AND_LOOP
@RESETS
def test_initial_membrane_above_threshold_is_not_reset_again(reset, T):
    spikes, _, u = of_reset(np.zeros((1, T), np.float32), np.array([3], np.float32), reset)
    assert u[0, 0] == 1.5 and spikes[0, 0] == 1


@UNROLLED_AND_LOOP
@RESETS
def test_no_spike_and_no_reset_exactly_at_threshold(reset, T):
    x, rest = np.full((1, T), 0.5, np.float32), np.zeros(1, np.float32)
    x[:, 0] = 1  # the membrane stays at exactly 1
    spikes, membrane, _ = of_reset(x, rest, reset)
    assert not spikes.any() and membrane == 1
    spikes, _, _ = of_reset(np.nextafter(x, np.float32(2)), rest, reset)
    assert spikes[0, 0] == 1


@RESETS_UNROLLED_AND_LOOP
def test_a_neuron_can_fire_at_exactly_its_threshold(x64, reset, T):
    def inclusive(u):
        strict = surrogate.sigmoid()(u)
        return strict + lax.stop_gradient((u >= 0) - strict)

    x = np.random.default_rng(0).integers(-1, 3, (B, T, 40)) / 2
    static: dict[str, Any] = {"reset": reset, "at_threshold": "fire"}
    weights = draw(B, T, 40, seed=1), draw(B, 40, seed=2), draw(B, T, 40, seed=3)
    arguments = {"x": x, "decay": 0.5, "threshold": 1.0}
    expected = make_gradients(plain_lif, spike=inclusive, reset=reset)(arguments, weights)
    assert (expected[1][2] == 1).mean() > 0.05
    assert_close(make_gradients(lif_trace, spike=surrogate.sigmoid(), **static)(arguments, weights), expected, 1e-13)

    @jax.jit
    def outputs(x):
        above = lif(x, reset=reset)[0], lif(x, reset=reset, at_threshold="silent")[0]
        return lif(x, **static), LIF(0.5, spike=surrogate.sigmoid(), **static).trace(x), above

    untraced, traced, (above, silent) = outputs(x)
    assert_trees_all_equal(untraced, expected[1][:2])
    assert_trees_all_equal(traced, expected[1])
    assert (expected[1][0] != above).any() and (silent == above).all()


# --- the neuron as a pytree


@RESETS
def test_calling_the_pytree_equals_the_functions(reset):
    x, membrane = draw(B, 6, C), draw(B, C)
    arguments = {"decay": 0.3, "threshold": 0.8, "spike": surrogate.erf(), "reset": reset, "detach_reset": True}
    neuron = LIF(**arguments)

    @jax.jit
    def pairs(x, membrane):
        called = neuron(x, membrane), lif(x, **arguments, membrane=membrane)
        return called, (neuron.trace(x), lif_trace(x, **arguments))

    for actual, expected in pairs(x, membrane):
        assert_trees_all_equal(actual, expected)
    assert jax.tree.leaves(neuron) == [0.3, 0.8, 2.0]


# --- residuals, and differentiation under transforms


@pytest.mark.parametrize("T", [4, 16])
@pytest.mark.parametrize("initial", [False, True], ids=["zeros", "initial_membrane"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_residual_is_one_sequence_and_the_initial_membrane(T, initial, dtype):
    """Of a short sequence in bfloat16 it is the input."""
    x, membrane = jnp.zeros((B, T, 50), dtype), jnp.zeros((B, 50)) if initial else None
    vjp = jax.jit(lambda x: jax.vjp(lambda x: lif(x, membrane=membrane), x))
    with traced_for("cpu"):
        leaves = [leaf for leaf in jax.tree.leaves(jax.eval_shape(vjp, x)[1]) if leaf.size > 1]
    residuals = sorted((leaf.shape, leaf.dtype.name) for leaf in leaves)
    sequence = (x.shape, "bfloat16" if (dtype, T) == ("bfloat16", 4) else "float32")
    assert residuals == [sequence] + ([] if membrane is None else [(membrane.shape, "float32")])


@pytest.mark.parametrize("reset, initial", [
    ("hard", True),
    ("soft", False),
    *(pytest.param(*c, marks=pytest.mark.full)
      for c in [("hard", False), ("soft", True), ("none", False), ("none", True)]),
])  # fmt: skip
def test_a_membrane_recomputed_from_a_bfloat16_input_gives_the_gradients_of_a_kept_one(reset, initial):
    x = (2 * draw(B, 4, 50, mean=0, std=1)).astype(jnp.bfloat16)
    membrane = draw(B, 50, seed=1, mean=0, std=1) if initial else np.zeros((B, 50), np.float32)
    weights = draw(*x.shape, seed=2, mean=0, std=1).astype(jnp.bfloat16)

    def outputs_and_gradients(x):
        def loss(x, membrane, decay, threshold):
            spikes, end = lif(x, decay, threshold, membrane=membrane if initial else None, reset=reset)
            return (spikes * weights.astype(spikes.dtype)).astype(jnp.float32).sum() + (end**2).sum(), (spikes, end)

        arguments = (x, membrane, jnp.float32(0.5), jnp.float32(1.0))
        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    @functools.partial(jax.jit, compiler_options=ROUNDING)
    def both(x):
        pair = outputs_and_gradients(x), outputs_and_gradients(x.astype(jnp.float32))
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), pair)

    with traced_for("cpu"):
        kept = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(lif, x)[1], x))
        kept_sequences = [a.dtype for a in kept if a.shape == x.shape]
    assert kept_sequences == [jnp.bfloat16]
    short, kept = both(x)
    assert_trees_all_close(short[0][1], kept[0][1], atol=0)
    assert_trees_all_close(short[1][1:], kept[1][1:], rtol=1e-5, atol=1e-5)
    assert_trees_all_close(short[1][0], kept[1][0], rtol=2**-8)


def test_on_tpus_the_gradient_of_a_bfloat16_input_is_rounded_at_each_time_step():
    x = (2 * draw(B, 16, 50, mean=0, std=1)).astype(jnp.bfloat16)
    weights = draw(*x.shape, seed=1, mean=0, std=1).astype(jnp.bfloat16).astype(np.float32)

    def gradient(x):
        weighted = jax.grad(lambda x: (lif(x, 0.9)[0].astype(jnp.float32) * weights).sum())
        return np.asarray(jax.jit(weighted, compiler_options=ROUNDING)(x)).astype(np.float32)

    expected = gradient(x.astype(np.float32))
    with traced_for("tpu"):
        rounded = gradient(x)
    assert_trees_all_close(rounded, expected, rtol=2**-5, atol=2**-5)
    assert np.abs(rounded - expected).mean() < 2**-8 * np.abs(expected).mean()


@pytest.mark.parametrize("T", [4, 16])
def test_forward_pass_needs_no_memory_besides_outputs_and_residual(T):
    x = np.zeros((B, T, 500), np.float32)
    memory = memory_of(jax.jit(lambda x: jax.vjp(lif, x)), x)
    row, slack = x[:, 0].nbytes, 256
    assert memory.output_size_in_bytes <= 2 * x.nbytes + row + slack
    assert memory.temp_size_in_bytes <= (0 if T == 4 else row + slack)


TRANSFORMS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "none": lambda f: f,
    "jit": jax.jit,
    "remat": lambda f: jax.jit(jax.checkpoint(f)),
    "vmap": lambda f: jax.jit(lambda p: first(jax.vmap(f)(jax.tree.map(lambda a: a[None], p)))),
    "scan": lambda f: jax.jit(lambda p: first(lax.scan(lambda p, _: (p, f(p)), p, length=1)[1])),
}


def first(tree):
    return jax.tree.map(lambda a: a[0], tree)


def squared_loss(p, neuron=lif):
    spikes, membrane, *_ = neuron(**p, spike=surrogate.arctan())
    return (draw(B, C, seed=1) * spikes.mean(axis=1) ** 2).sum() + (membrane**2).sum()


def parameters(T):
    return {"x": draw(B, T, C), "membrane": draw(B, C, seed=9), "decay": np.array(0.5), "threshold": np.array(0.8)}


def test_gradient_through_every_transform_equals_the_plain_loop(x64):
    p = parameters(T=5)
    of_plain = jax.grad(lambda p: squared_loss(p, plain_lif))
    transformed = [jax.grad(transform(squared_loss)) for transform in TRANSFORMS.values()]
    expected, *gradients = jax.jit(lambda p: [gradient(p) for gradient in (of_plain, *transformed)])(p)
    for gradient in gradients:
        assert_close(gradient, expected, 1e-13)


@pytest.mark.parametrize(
    "T, compiled",
    [(5, True), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((3, True), (3, False), (5, False)))],
)
def test_jvp_of_a_training_step_is_its_central_difference_under_every_transform(x64, T, compiled):
    p, h = parameters(T), 1e-6
    direction = jax.tree.map(lambda a: draw(*a.shape, seed=5, mean=0, std=1), p)
    low, high = (jax.tree.map(lambda a, d, sign=sign: a + sign * h * d, p, direction) for sign in (-1, 1))
    # Between flips the step is smooth; there must be none on the way.
    spikes_of = jax.jit(lambda p: lif(**p)[0])
    assert_trees_all_equal(spikes_of(low), spikes_of(high))

    def step(p):
        return jax.tree.map(lambda a, g: a - 0.1 * g, p, jax.grad(squared_loss)(p))

    jitted = jax.jit(step)
    difference = jax.tree.map(lambda a, b: (b - a) / (2 * h), jitted(low), jitted(high))

    def tangents():
        # Compiled, a plain call and one of jit are parts of the same program as the others.
        names = ("remat", "vmap", "scan") if compiled else TRANSFORMS
        return [jax.jvp(TRANSFORMS[name](step), (p,), (direction,)) for name in names]

    expected = jitted(p)
    # In one program, or each transform by itself and the plain step by single operations.
    for after, tangent in jax.jit(tangents)() if compiled else tangents():
        assert_close(after, expected, 1e-13)
        assert_close(tangent, difference, 1e-7)


@pytest.mark.parametrize("neuron", [
    LIF(),
    *(pytest.param(n, marks=pytest.mark.full) for n in (LIF(reset="soft", detach_reset=True), ILIF(), CuBaLIF())),
])  # fmt: skip
def test_no_loop_in_a_larger_program_fills_or_copies_a_sequence(neuron):
    """XLA on CPU would fill the buffer of each loop, unless an array that nothing else reads is written over."""
    x, weight = np.ones((4, 20, 512), np.float32), np.float32(2)

    @jax.jit
    def layer(x, spikes_bar, weight):
        spikes, pull = jax.vjp(lambda x: neuron(weight * x)[0], x)
        return weight * spikes, pull(weight * spikes_bar)

    text = str(layer.lower(x, x, weight).compile().as_text())
    whole = re.findall(r"= f32\[4,20,512\]\S* (\w[\w-]*)\(", text)
    assert whole.count("dynamic-update-slice") >= 2 and not {"copy", "pad"} & set(whole)
    assert memory_of(layer, x, x, weight).temp_size_in_bytes < 2.2 * x.nbytes
