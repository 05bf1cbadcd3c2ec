"""Lyapunov exponents against maps whose exponents are known, and of a training step against nearby runs."""

import dataclasses
import functools
import itertools
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import chaos, controls, dynamics, learner, losses, models, neurons, surrogate
from csbp_jax.config import Chaos, Config, Model, Optimizer
from csbp_jax.dynamics.state import record
from csbp_jax.learner import optimizer
from experiments.known_exponents import henon, logistic


def steps(n, batch=None):
    return itertools.repeat(batch, n)


def test_logistic_map(x64):
    exponents, error, history = dynamics.lyapunov(logistic, jnp.array(0.3), steps(1000), 1)
    chex.assert_shape([exponents, error, history], [(1,), (1,), (1000, 1)])
    assert abs(exponents[0] - np.log(2)) < max(4 * error[0], 0.01) and error[0] < 0.01


def test_exponents_have_names_and_a_short_text():
    many = dynamics.lyapunov(lambda x, _: jnp.arange(1.0, 11.0) * x, jnp.ones(10), steps(400), 10, warmup=100)
    text = repr(many)
    assert len(text) < 200 and text.endswith(", ... (10) nats per step, over 300 chunks")
    assert float(many.exponents[0]) == pytest.approx(np.log(10), abs=1e-3) and text.startswith("2.3 \u00b1 ")
    assert many.stderr.shape == (10,) and many.history.shape == (300, 10)


def read_x(state):
    return {"x": state["x"]}


def test_a_state_may_hold_numbers():
    def step(state, _):
        return {"x": logistic(state["x"], None), "n": state["n"] + 1}

    numbers, arrays = ({"x": 0.3, "n": 0}, {"x": jnp.float32(0.3), "n": jnp.int32(0)})
    of_numbers, of_arrays = (dynamics.lyapunov(step, state, steps(20), 1)[0] for state in (numbers, arrays))
    np.testing.assert_array_equal(of_numbers, of_arrays)
    # A single size is one of several.
    sizes = (1e-3, jnp.array([1e-3]))
    one, several = (dynamics.separation(step, numbers, steps(2), size, read_x)["x"] for size in sizes)
    assert one.shape == (3, 1)
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_chunks_of_no_whole_number_of_steps_are_refused(every):
    """Where 2.5 steps were taken for 5, an exponent was twice as large."""
    for call in (
        lambda: dynamics.lyapunov(logistic, jnp.float32(0.3), steps(40), every=every),
        lambda: dynamics.finite_size(logistic, jnp.float32(0.3), steps(40), jnp.array([1e-3]), every=every),
        lambda: dynamics.separation(
            logistic, jnp.float32(0.3), steps(40), jnp.array([1e-3]), lambda x: {"x": x}, every
        ),
    ):
        with pytest.raises(ValueError, match="must be a positive whole number"):
            call()


def test_a_chunk_that_begins_in_the_warm_up_is_not_counted():
    def advance(done, _):
        return done + 1

    ends = record(advance, lambda done: (done, done), 0, range(40), every=10, warmup=15)
    assert ends == [30, 40]


@pytest.mark.parametrize("every", [1, 5])
def test_linear_map(x64, every):
    matrix = jnp.array([[2.0, 1.0, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 1.0]])
    exponents, _, history = dynamics.lyapunov(
        lambda x, _: matrix @ x, jnp.ones(3), steps(400), 3, every=every, warmup=100
    )
    np.testing.assert_allclose(exponents, np.log([2, 1, 0.5]), atol=1e-9)
    assert len(history) == 300 // every


@pytest.mark.parametrize("every, expected", [(100, np.log(0.5)), (200, np.log(np.finfo(np.float32).tiny) / 200)])
def test_growth_over_a_chunk_below_the_smallest_number_counts_as_that_number(every, expected):
    exponents, _, _ = dynamics.lyapunov(lambda x, _: 0.5 * x, jnp.float32(1), steps(600), 1, every=every)
    np.testing.assert_allclose(exponents, expected, rtol=1e-4)


def heavy_ball(state, _):
    x, v, curvature, momentum = state
    v = momentum * v + curvature * x
    return x - v, v, curvature, momentum


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_heavy_ball_flips_where_curvature_times_rate_is_two_times_one_plus_momentum(x64, momentum):
    def exponent(curvature):
        state = tuple(jnp.array(value) for value in (1e-3, 0.0, curvature, momentum))
        leaves = (True, True, False, False)
        return dynamics.lyapunov(heavy_ball, state, steps(400), 1, warmup=200, dynamical_leaves=leaves)[0][0]

    flip = 2 * (1 + momentum)
    assert exponent(0.99 * flip) < 0 < exponent(1.01 * flip)


@pytest.mark.parametrize("size", [3, 40])
def test_flip_ratio_is_the_largest_real_part_of_the_preconditioned_jacobian(x64, size, monkeypatch):
    rng = np.random.default_rng(size)
    matrix, factor = rng.normal(size=(size, size)), rng.uniform(0.5, 2, size)  # not symmetric, as surrogates make it
    params = {"a": jnp.zeros(size - 1), "b": jnp.zeros(1)}
    scale = {"a": jnp.asarray(factor[:-1]), "b": jnp.asarray(factor[-1:])}

    def gradient(tree):
        pushed = jnp.asarray(matrix) @ jnp.concatenate([tree["a"], tree["b"]])
        return {"a": pushed[:-1], "b": pushed[-1:]}

    monkeypatch.setattr(sys.modules["csbp_jax.dynamics.flip_ratio"], "TOLERANCE", 1e-6)
    ratio = dynamics.flip_ratio(gradient, params, 0.3, 0.9, scale)
    assert ratio == pytest.approx(0.3 * np.linalg.eigvals(factor[:, None] * matrix).real.max() / 3.8, rel=1e-5)


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_flip_ratio_is_nan_where_the_jacobian_is_not_finite(size, value):
    assert np.isnan(dynamics.flip_ratio(lambda x: x.at[1].multiply(value) * 1e3, jnp.ones(size), 0.5))


REST = np.log(0.65 / 0.35)


@pytest.mark.parametrize(
    ("gradient", "x", "lr", "ratio"),
    [
        (lambda x: -2 * x, np.ones(50), 0.5, -0.5),
        (lambda x: 0 * x, np.ones(50), 0.5, 0),
        (lambda y: jax.nn.sigmoid(y) - 0.65, np.full(1, REST), 2 / (0.65 * 0.35), 1),
    ],
    ids=["hill", "constant", "where the map of the chaos term flips"],
)
def test_flip_ratio_of_known_gradients(x64, gradient, x, lr, ratio):
    assert dynamics.flip_ratio(gradient, jnp.asarray(x), lr) == pytest.approx(ratio)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_flip_ratio_is_one_where_an_optimisers_step_flips(x64, name):
    """Tiny gradients of a parabola hardly change Adam's second moments, which large gradients made before."""
    config = Optimizer(name=name, momentum=0.8, schedule="constant")
    tx = optimizer.build(config, 1, 1)
    update = jax.jit(tx.update)
    x = {"a": np.array([1.0]), "b": np.array([1.0])}
    grown = tx.init(x)
    for _ in range(200):
        _, grown = update({"a": np.array([0.5]), "b": np.array([8.0])}, grown, x)
    ball = optimizer.heavy_ball(config, grown)
    assert ball is not None
    lr = 1 / dynamics.flip_ratio(lambda x: x, x, ball["rate"], ball["momentum"], ball["scale"])

    def grows(lr):
        state, x = grown, {"a": np.array([1e-7]), "b": np.array([1e-7])}
        # Only the first moment follows these gradients; it starts without the earlier ones.
        state = optax.tree.set(state, mu=jax.tree.map(jnp.zeros_like, x)) if name == "adam" else tx.init(x)
        sizes = []
        for _ in range(40):
            updates, state = update(x, state, x)
            x = jax.tree.map(lambda p, u: p + lr * np.asarray(u), x, updates)
            sizes.append(max(abs(float(p[0])) for p in x.values()))
        return max(sizes[30:]) > max(sizes[10:20])

    assert grows(1.15 * lr) and not grows(0.85 * lr)


def test_chaos_term_alone_over_its_strength(x64):
    """``y' = y - a (s(y) - I0)``: stable to 8.79, chaotic above 14.4; the exponents equal a plain numpy loop's."""

    def step(state, _):
        y, a = state
        return y - a * (jax.nn.sigmoid(y) - 0.65), a

    a, y, logs = np.array([2.0, 8.7, 10.0, 16.0, 18.5, 30.0, 60.0]), np.full(7, 0.5), []
    states = (jnp.asarray(y), jnp.asarray(a))
    exponents = dynamics.lyapunov_many(step, states, steps(600), dynamical_leaves=(True, False))[0][:, 0]
    for _ in range(600):
        s = 1 / (1 + np.exp(-y))
        logs.append(np.log(np.abs(1 - a * s * (1 - s))))
        y = y - a * (s - 0.65)
    assert exponents[:3].max() < 0 < exponents[3:5].min()
    np.testing.assert_array_less(np.abs(exponents - np.mean(logs, axis=0)), np.where(exponents > 0.05, 0.1, 1e-3))


def test_finite_size_exponent_tends_to_the_tangent_one_and_includes_jumps(x64):
    deltas = 10.0 ** np.array([-9, -6, -3])
    small, error, history = dynamics.finite_size(logistic, jnp.array(0.3), steps(700), deltas)
    chex.assert_shape([small, error, history], [(3,), (3,), (700, 3)])
    assert np.all(abs(small - np.log(2)) < 0.02)

    def jump(x, kick):  # contracts everywhere, and jumps where it passes 1: no tangent sees it
        return (0.9 * x + kick) % 1

    kicks = np.random.default_rng(0).uniform(size=700)
    tangent, _, _ = dynamics.lyapunov(jump, jnp.array(0.2), kicks, 1)
    finite, _, _ = dynamics.finite_size(jump, jnp.array(0.2), kicks, np.array([1e-9, 0.05]))
    np.testing.assert_allclose(tangent[0], np.log(0.9), rtol=1e-9)
    np.testing.assert_allclose(finite[0], np.log(0.9), atol=1e-3)
    assert finite[1] > 0


@functools.cache
def scaling_around(centre):
    """Return the map that scales the distance from ``centre``, one function object for all calls."""
    return lambda x, factor: centre + factor * (x - centre)


@pytest.mark.parametrize("delta", [1e-12, 1e-6, 1e-1])
@pytest.mark.parametrize("k", [0.0, 1e-11, 1e-30])
@pytest.mark.parametrize("centre", [0.0, 10.0])
def test_two_runs_that_have_met_separate_again_along_their_last_direction(x64, delta, k, centre):
    """Below rounding a difference is only noise; at the origin there is no rounding either."""
    factors = np.array([0.5] * 5 + [k] + [1.5] * 20)
    start = np.array([centre, centre])
    _, _, history = dynamics.finite_size(scaling_around(centre), start, factors, np.array([delta]))
    np.testing.assert_allclose(history[6:, 0], np.log(1.5), atol=1e-2 if delta < 1e-9 else 1e-6)
    assert history[5, 0] < np.log(0.01) and np.isfinite(history).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_size_within_the_rounding_of_the_state_has_no_exponent(scale):
    """Rounded noise would be measured as growth: here of a map that contracts, in float32."""
    start, factors = np.full(10000, scale, np.float32), np.full(20, 0.5, np.float32)
    rounding = 100 * scale * np.finfo(np.float32).eps
    deltas, step = (rounding * np.array([0.1, 0.9, 30.0])).astype(np.float32), scaling_around(scale)
    exponents, errors, _ = dynamics.finite_size(step, start, factors, deltas)
    np.testing.assert_array_equal(np.isnan(exponents), [True, True, False])
    np.testing.assert_array_equal(np.isnan(errors), [True, True, False])
    assert exponents[2] == pytest.approx(-np.log(2), abs=0.01)
    of_state, seen = dynamics.finite_size_readouts(step, start, factors, deltas, read_first)
    np.testing.assert_array_equal(np.isnan([of_state[0], seen["first"].exponents]), [[True, True, False]] * 2)


def read_first(x):
    return {"first": x[:100]}


def test_readouts_of_nearby_runs_grow_as_the_state_does(x64):
    def readouts(state):
        x, y = state
        return {"y": y, "curved": jnp.exp(x + y), "constant": jnp.ones(3), "sign": jnp.sign(x)}

    start, deltas = np.array([0.1, 0.1]), np.array([1e-10, 1e-6, 1e-2])
    options = {"every": 2, "warmup": 100}
    of_state, seen = dynamics.finite_size_readouts(henon, start, steps(1500), deltas, readouts, **options)
    _, _, expected = dynamics.finite_size(henon, start, steps(120), deltas, **options)
    chex.assert_trees_all_close(of_state[2][: len(expected)], expected, rtol=1e-9)
    for name in ("y", "curved"):
        chex.assert_shape(seen[name], [(3,), (3,), (700, 3), (700, 3)])
        np.testing.assert_allclose(seen[name].exponents[:2], of_state[0][:2], atol=0.01)
        np.testing.assert_allclose(seen[name].exponents[:2], 0.4192, atol=0.02)
    # Counted as rounding, a read-out that sometimes differs would grow by 30 nats whenever it does.
    for name in ("constant", "sign"):
        assert np.all(np.isnan([seen[name].exponents, seen[name].stderr]))
    assert np.all(seen["constant"].distances == 0)
    # Two runs on different sides of 0: the more often the larger their distance, never at 1e-10.
    flipped = np.mean(np.asarray(seen["sign"].distances) == 2, axis=0)
    assert flipped[0] == 0 < flipped[2] < 0.1 and np.all(seen["sign"].distances[:, 0] == 0)


def test_a_readout_that_does_not_depend_on_the_growing_direction_has_another_exponent(x64):
    def step(x, _):
        return jnp.array([2.0, 0.5]) * x

    def readouts(x):
        return {"first": x[0], "second": x[1]}

    start, deltas = np.zeros(2), np.array([1e-3])
    _, seen = dynamics.finite_size_readouts(step, start, steps(20), deltas, readouts, every=4)
    np.testing.assert_allclose(seen["first"].history, np.log(2))
    np.testing.assert_allclose(seen["second"].history, np.log(0.5))
    # Rescaled to 1e-3 along (1, 0), then grown four times by a factor 2.
    np.testing.assert_allclose(seen["first"].distances[1:], 16e-3, rtol=1e-3)


DELTAS: Any = np.array([1e-9, 1e-2])  # in numpy, since float64 is off at import
CHAOTIC_Z = 60.0


@functools.cache
def functions():
    """``(init, step)`` of a dense net; with the arctan surrogate, spike flips are the only jumps of its step."""
    config = Config(
        model=Model(name="dense", input_shape=(6,), classes=3, time_steps=3, features=(7,)),
        chaos=Chaos(z0=(0.0,), beta=1.0, taps=("fc1.norm",), scale=1.0, reduce="sum"),
        optimizer=Optimizer(name="sgd", lr=0.02, momentum=0.9, schedule="constant"),
    )
    tx = optimizer.build(config.optimizer, 1, 1)
    init, train_step, _ = learner.make(models.build(config.model), tx, losses.rate_cross_entropy, config)
    hparams = {"neuron": neurons.LIF(0.25, 1.0, surrogate.arctan())}
    return jax.jit(lambda key: init(key, hparams)), lambda state, batch: train_step(state, batch)[0]


def training(z0):
    """``(step, state, batch)`` of training at fixed z, in float64; the step is the same object for all z."""
    init, step = functions()
    state = init(jax.random.key(0))
    state = dataclasses.replace(state, hparams=state.hparams | {"z0": {"fc1.norm": jnp.float64(z0)}})
    state = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, state)
    rng = np.random.default_rng(0)
    batch = {"x": jnp.asarray(2 * rng.normal(size=(8, 1, 6))), "y": jnp.asarray(rng.integers(0, 3, 8))}
    return step, state, batch


@pytest.mark.full
def test_local_exponents_of_plain_training_equal_those_of_nearby_runs(x64):
    step, state, batch = training(z0=0.0)
    options: dict[str, Any] = {"warmup": 40, "dynamical_leaves": learner.dynamical_leaves(state)}
    # Both have the same first direction, that of the seed.
    _, _, tangent = dynamics.lyapunov(step, state, steps(140, batch), 1, **options)
    _, _, nearby = dynamics.finite_size(step, state, steps(140, batch), DELTAS, **options)
    # Chunk by chunk, except for the few in which a spike flips between the two runs.
    assert np.mean(np.abs(tangent[:, 0] - nearby[:, 0]) < 1e-4) > 0.9


@pytest.mark.full
def test_exponent_of_chaotic_training_equals_that_of_nearby_runs(x64):
    step, state, batch = training(z0=CHAOTIC_Z)
    options: dict[str, Any] = {"warmup": 50, "dynamical_leaves": learner.dynamical_leaves(state)}
    tangent, error, _ = dynamics.lyapunov(step, state, steps(350, batch), 1, **options)
    nearby, other_error, _ = dynamics.finite_size(step, state, steps(350, batch), DELTAS, **options)
    assert tangent[0] > 4 * error[0]
    assert abs(tangent[0] - nearby[0]) < 4 * jnp.hypot(error[0], other_error[0])


def test_many_runs_of_a_map_have_all_exponents_of_separate_calls(x64):
    states = np.array([[0.1, 0.1], [0.2, 0.1], [0.3, 0.1]])
    options: dict[str, Any] = {"every": 2, "warmup": 4}
    tangent, errors, history = dynamics.lyapunov_many(henon, states, steps(16), 2, **options)
    finite, _, _ = dynamics.finite_size_many(henon, states, steps(16), DELTAS, **options)
    chex.assert_shape([tangent, errors, history, finite], [(3, 2), (3, 2), (6, 3, 2), (3, 2)])
    for k, state in enumerate(states):
        expected = dynamics.lyapunov(henon, state, steps(16), 2, **options)
        np.testing.assert_allclose(tangent[k], expected[0], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(errors[k], expected[1], rtol=1e-6, atol=1e-9)
        of_sizes = dynamics.finite_size(henon, state, steps(16), DELTAS, **options)[0]
        np.testing.assert_allclose(finite[k], of_sizes, rtol=1e-5, atol=1e-6)


def test_separation_follows_the_map_in_all_readouts(x64):
    matrix = jnp.diag(jnp.array([2.0, 0.5]))
    distances = dynamics.separation(
        lambda x, _: matrix @ x,
        jnp.ones(2),
        steps(6),
        jnp.array([1e-6, 1e-3]),
        lambda x: {"first": x[0], "signs": jnp.sign(x - 16)},
        every=2,
    )
    assert distances["first"].shape == (4, 2)
    first = np.asarray(distances["first"])
    np.testing.assert_allclose(first, first[0] * 4.0 ** np.arange(4)[:, None], rtol=1e-6)
    # x = 2**n passes 16 two steps from the end, on both sides of it in some pair.
    assert distances["signs"][0].max() == 0 and distances["signs"][2].max() > 0


@pytest.mark.parametrize("dtype", [bool, jnp.int32])
def test_spikes_of_any_dtype_are_counted_where_they_differ(x64, dtype):
    def differ(dtype):
        def readouts(x):
            return {"spikes": (x >= 1).astype(dtype)}  # all of the trajectory, and about half of the other run

        distances = dynamics.separation(scaling_around(1.0), np.ones(100), np.ones(1), np.array([5.0]), readouts)
        return np.asarray(distances["spikes"]) ** 2

    of_floats = differ(float)
    assert np.all((of_floats > 30) & (of_floats < 70))
    np.testing.assert_array_equal(differ(dtype), of_floats)


@pytest.mark.full
def test_two_runs_with_the_same_start_never_separate(x64):
    step, state, batch = training(z0=CHAOTIC_Z)
    distances = dynamics.separation(step, state, steps(5, batch), jnp.zeros(2), lambda state: state.params, every=5)
    largest = max(float(leaf.max()) for leaf in jax.tree.leaves(distances))
    # JAX before 0.8 rounds the members of a batch differently.
    assert largest == 0 if jax.__version_info__ >= (0, 8) else largest < 1e-12


def test_a_bifurcation_diagram_of_the_logistic_map(x64):
    def step(state, _):
        x, rate = state
        return rate * x * (1 - x), rate

    rates = jnp.array([2.5, 3.2, 3.5, 3.9])
    starts = (jnp.full(4, 0.3), rates)
    values, (x, same) = dynamics.attractor_samples(step, starts, steps(1064), lambda s: s[0], 1000)
    assert values.shape == (64, 4)
    counts = [len(np.unique(values[:, k].round(9))) for k in range(4)]
    assert counts == [1, 2, 4, 64]
    np.testing.assert_allclose(values[0, 0], 1 - 1 / 2.5)
    np.testing.assert_array_equal(values[-1], x)
    np.testing.assert_array_equal(same, rates)


def test_only_parameters_and_moments_are_dynamical_leaves(x64):
    state = jax.eval_shape(functions()[0], jax.random.key(0))
    mask = learner.dynamical_leaves(state)
    chex.assert_trees_all_equal_structs(mask, state)
    chosen = sum(leaf.size for leaf, m in zip(jax.tree.leaves(state), jax.tree.leaves(mask), strict=True) if m)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert chosen == 2 * parameters  # and their momenta
    assert not any(jax.tree.leaves((mask.batch_stats, mask.hparams, mask.step, mask.key)))


@pytest.mark.parametrize("force", [controls.ar1(0.9), controls.logistic(), controls.gaussian()])
def test_the_state_of_a_force_is_not_dynamical(x64, force):
    """AR(1) noise would add its own ln p to the spectrum, once per parameter."""
    tx = optax.chain(force, optax.trace(0.9), optax.scale(-0.1))
    config = Config(model=Model(name="dense", input_shape=(2,), classes=2, time_steps=1, features=(2,)))
    init, _, _ = learner.make(models.build(config.model), tx, losses.rate_cross_entropy, config)
    state = jax.eval_shape(init, jax.random.key(0))
    mask = learner.dynamical_leaves(state)
    chex.assert_trees_all_equal_structs(mask, state)
    assert not any(jax.tree.leaves(mask.opt_state[0])) and all(jax.tree.leaves((mask.params, mask.opt_state[1])))


def test_one_compilation_over_calls(x64):
    chex.clear_trace_counter()
    step = chex.assert_max_traces(lambda x, batch: logistic(x, batch), n=1)
    for start in (0.2, 0.3, 0.4):
        dynamics.lyapunov(step, jnp.array(start), steps(10), 1)


def test_a_mean_over_equal_examples_weakens_the_term_by_the_number_of_channels_alone(x64):
    """As docs/idea.md says; the more the examples differ, the weaker it is."""
    p = np.array([1.0, 2.0, 2.0])

    def ratio(inputs, channels=1):
        weights = np.outer(p, np.ones(channels)) * np.log(0.65 / 0.35) / 9  # where the term of p has gradient 0
        return dynamics.flip_ratio(jax.grad(lambda w: chaos.term(inputs @ w, scale=1.0)), weights, lr=1.0)

    one, equal = ratio(p[None]), np.tile(p, (8, 1))
    assert one == pytest.approx(0.65 * 0.35 * 9 / 2)
    assert ratio(equal) == pytest.approx(one) and ratio(equal, channels=4) == pytest.approx(one / 4)
    assert ratio(3 * np.eye(3)) < one / 2
