"""Controls: pulls equal the chaos term's where they must, forces have the size and the law that they claim."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, special, stats

from csbp_jax import chaos, controls, learner
from csbp_jax.config import Chaos, ConfigError, Optimizer
from csbp_jax.learner import objective
from tests.support import small_net
from tests.support.small_net import batch, first_state, gradients, train_step

PULLS = {"chaos": chaos.term, "drift": controls.drift, "linear": controls.linear}
FORCES = {"gaussian": controls.gaussian(), "ar1": controls.ar1(0.9), "logistic": controls.logistic()}


@functools.partial(jax.jit, static_argnums=0)
def derivative(term, h, target, scale):
    return jax.grad(term)(h, target, scale)


@pytest.mark.parametrize("target", [0.2, 0.5, 0.501, 0.65, 0.95])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_pulls_have_the_chaos_terms_gradient_at_zero_and_drift_its_zero(x64, target, scale):
    def slope(term, h):
        return float(derivative(term, float(h), target, scale))

    assert slope(controls.drift, 0.0) == pytest.approx(slope(chaos.term, 0.0), rel=2e-6, abs=1e-15)
    assert slope(controls.linear, 0.0) == pytest.approx(slope(chaos.term, 0.0), rel=1e-12, abs=1e-15)
    assert slope(controls.linear, 7.0) == slope(controls.linear, 0.0)
    rest = scale * np.log(target / (1 - target))
    assert slope(controls.drift, rest) == pytest.approx(0, abs=1e-12)
    assert slope(chaos.term, rest) == pytest.approx(0, abs=1e-12)


def test_drift_is_a_parabola_with_the_logistic_functions_curvature_at_half(x64):
    curvature = jax.jit(jax.vmap(jax.hessian(controls.drift), (0, None, None)))
    h = np.linspace(-9, 9, 5)
    np.testing.assert_allclose(curvature(h, 0.65, 2.0), 0.15 / np.log(0.65 / 0.35) / 4, rtol=1e-12)
    np.testing.assert_allclose(curvature(h, 0.5, 1.0), 0.25, rtol=1e-6)


@pytest.mark.parametrize("name", PULLS)
def test_pulls_reduce_and_cut_as_the_chaos_term_does(x64, name):
    h = np.random.default_rng(0).normal(size=(3, 4, 5)) * 9
    term = PULLS[name]
    assert controls.TERMS[name] is term

    @jax.jit
    def reductions(h):
        return term(h, reduce="sum"), term(h), term(h, reduce="neuron"), jax.vmap(term)(h.ravel()).sum()

    summed, mean, per_neuron, total = reductions(h)
    assert float(summed) == pytest.approx(float(total))
    assert float(mean) == pytest.approx(float(total) / 60)
    assert float(per_neuron) == pytest.approx(float(total) / 12)
    gradient = jax.jit(jax.grad(lambda h: term(h, cut=(-5.0, 5.0), reduce="sum")))(h)
    np.testing.assert_array_equal(np.asarray(gradient) != 0, np.abs(h) < 5)


@functools.partial(jax.jit, static_argnames=("force", "steps", "size"))
def run(force, forcing, steps, seed=0, size=2000):
    """Compute the pushes ``[steps, ...]`` on parameters of zeros, of ``size`` elements where the forcing has none."""
    params = jax.tree.map(lambda f: jnp.zeros(f.shape[1:] or (size,)), forcing)

    def step(state, n):
        key = jax.random.fold_in(jax.random.key(seed), n)
        pushes, state = force.update(params, state, params, step=n, key=key, forcing=forcing)
        return state, pushes

    return jax.lax.scan(step, force.init(params), jnp.arange(steps))[1]


@pytest.mark.parametrize("name", FORCES)
def test_a_force_has_mean_zero_and_the_size_of_its_record(name):
    sizes = {"a": jnp.asarray([3.0, 1.0, 0.5, 0.0]), "b": jnp.full(4, 2.0)}
    pushes = run(FORCES[name], sizes, 6)
    for leaf, size in sizes.items():
        expected = np.concatenate([size, [0, 0]])  # no force after the record's end
        np.testing.assert_allclose(np.std(pushes[leaf], axis=1), expected, rtol=0.06, atol=1e-7)
        assert np.all(np.abs(np.mean(pushes[leaf], axis=1)) <= 4 * expected / 2000**0.5 + 1e-7)
    assert abs(np.corrcoef(pushes["a"][1], pushes["b"][1])[0, 1]) < 0.1  # each tensor draws its own


@pytest.mark.parametrize(("name", "expected"), [("gaussian", 0.0), ("ar1", 0.9), ("logistic", 0.0)])
def test_correlation_in_time(name, expected):
    pushes = np.asarray(run(FORCES[name], jnp.ones(60), 60))
    assert np.mean(pushes[1:] * pushes[:-1]) == pytest.approx(expected, abs=0.02)
    assert np.std(pushes[0]) == pytest.approx(1, abs=0.05)


def test_extrinsic_chaos_is_the_logistic_map_and_does_not_collapse():
    steps = 5000
    pushes = np.asarray(run(FORCES["logistic"], jnp.ones(steps), steps, size=200), float)
    x = 0.5 + pushes / 8**0.5
    assert x.min() >= -1e-6 and x.max() <= 1 + 1e-6
    np.testing.assert_allclose(x[1:], 4 * x[:-1] * (1 - x[:-1]), atol=1e-5)
    late = x[-500:]
    assert late.std() == pytest.approx(8**-0.5, rel=0.02)
    assert np.mean(late < 0.1) == pytest.approx(2 / np.pi * np.arcsin(0.1**0.5), rel=0.05)  # its invariant density
    assert len(np.unique(x[-1])) == 200  # no two elements share an orbit


def thaler(gamma, beta, uniforms):
    """MPGD's series ``[steps, n]`` by the equations of the paper, from the uniform numbers that start and sign it."""
    a, power = 1 / gamma, 1 - gamma
    y_star = optimize.brentq(lambda y: y**power + (1 + y) ** power - 2, 1e-9, 1)
    d = (1 - 2 ** (gamma - 1)) ** -gamma
    d *= (a**a * (1 - gamma) * special.gamma(1 - a) * np.cos(a * np.pi / 2) / (2**power - 1)) ** -gamma
    # The start whose distribution function is the first uniform number.
    cdf = lambda y, u: (y**power + (1 + y) ** power - 1) / 2**power - u  # noqa: E731
    y = np.array([optimize.brentq(cdf, 0, 1, (u,), xtol=1e-15) for u in uniforms[0]])
    chi, series = np.where(uniforms[0] * 4096 % 1 < 0.5, -1, 1), []
    for n, u in enumerate(uniforms):
        flips = (y > y_star) & (u < (1 - beta) / 2) & (n > 0)
        chi = np.where(flips, -chi, chi)
        series.append(chi * np.where(y <= y_star, d, d / (1 - 2**power)))
        y = (y**power + (1 + y) ** power - 1) ** (1 / power) % 1
    return np.array(series)


@pytest.mark.parametrize("gamma", [0.6, 0.7])
def test_mpgd_has_the_series_of_its_paper_and_both_of_its_parts(x64, gamma):
    """From the same uniform numbers; the multiplicative part has a series of its own."""
    force, steps, size = controls.mpgd(multiplicative=0.4, gamma=gamma), 9, 50
    params, key = {"a": np.linspace(-2, 2, size)}, jax.random.key(3)

    @jax.jit
    def push_and_uniforms(state, key, n):
        zeros, forcing = jax.tree.map(jnp.zeros_like, params), {"a": jnp.full(steps, 3.0)}
        pushed, state = force.update(zeros, state, params, step=n, key=key, forcing=forcing)
        keys = optax.tree.split_key_like(key, {"a": jnp.ones((2, size))})
        return pushed["a"], state, jax.random.uniform(keys["a"], (2, size), float)

    state, pushes, uniforms = force.init(params), [], []
    for n in range(steps):
        key = jax.random.fold_in(key, n)
        pushed, state, uniform = push_and_uniforms(state, key, n)
        pushes.append(pushed)
        uniforms.append(uniform)
    v, w = (thaler(gamma, 0.5, np.array(uniforms)[:, part]) for part in range(2))
    np.testing.assert_allclose(pushes, 3 * (v - 0.4 * w * np.asarray(params["a"])), rtol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_mpgds_orbits_stay_apart_and_keep_their_density_in_low_precision(dtype):
    """The share of the right branch, where v is large, is 1 - 2**-(1 - gamma)."""
    force, params = controls.mpgd(lambda step: 1.0, 0.0), {"a": jnp.zeros(1000, dtype)}

    def step(state, n):
        pushes, state = force.update(params, state, params, step=n, key=jax.random.fold_in(jax.random.key(0), n))
        return state, (jnp.abs(pushes["a"]) > 3).mean(dtype=jnp.float32)

    state, shares = jax.lax.scan(step, force.init(params), jnp.arange(8000))
    assert float(shares[4000:].mean()) == pytest.approx(1 - 2**-0.3, abs=0.008)
    assert len(np.unique(state.carry[1]["a"][0])) > 990


@pytest.mark.parametrize("name", FORCES)
def test_forces_are_finite_and_keep_the_type_of_low_precision(name):
    force = FORCES[name]

    @jax.jit
    def push(params, forcing):
        return force.update(params, force.init(params), params, step=0, key=jax.random.key(0), forcing=forcing)[0]

    for dtype in (jnp.float16, jnp.bfloat16):
        pushes = push({"a": np.ones(50, dtype)}, {"a": np.ones(3, dtype)})
        assert pushes["a"].dtype == dtype and np.isfinite(np.asarray(pushes["a"], float)).all()


@pytest.mark.full
@pytest.mark.parametrize(("name", "power"), [("mpgd", 0.6), ("gaussian", 0.5), ("logistic", 0.5)])
def test_sums_of_mpgds_series_grow_faster_than_those_of_noise(name, power):
    """Its known answer: n**gamma, of the quartiles of sums of n values, whose mean is 0."""
    force = {"mpgd": controls.mpgd(multiplicative=0.0, gamma=0.6), **FORCES}[name]
    pushes = np.asarray(run(force, {"a": jnp.ones(1000)}, 1000, size=10_000)["a"], float)
    short, long = (stats.iqr(pushes[:n].sum(axis=0)) for n in (100, 1000))
    assert np.log10(long / short) == pytest.approx(power, abs=0.03)
    assert abs(pushes.mean(axis=0).mean()) < 4 * stats.sem(pushes.mean(axis=0))


@pytest.mark.parametrize("second", [controls.gaussian, functools.partial(controls.ar1, 0.9)])
def test_two_forces_in_one_optimiser_are_independent_with_seeds_of_their_own(second):
    same, other = (run(optax.chain(FORCES["gaussian"], force), jnp.ones(1), 1) for force in (second(), second(seed=1)))
    assert np.std(same) == pytest.approx(2, rel=0.06) and np.std(other) == pytest.approx(2**0.5, rel=0.06)


def record(steps=9):
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(steps, 3, 2)), "b": rng.normal(size=(steps, 4))}


def test_replay_pushes_what_was_recorded(x64):
    pushes = run(controls.replay(), record(), 11)
    for leaf, pushed in record().items():
        np.testing.assert_array_equal(pushes[leaf], np.concatenate([pushed, np.zeros((2, *pushed.shape[1:]))]))


def test_shuffling_keeps_each_push_whole(x64):
    before, after = record(), jax.jit(controls.shuffled)(jax.random.key(1), record())
    rows = np.asarray(before["a"])
    order = [int(np.flatnonzero((rows == row).all((1, 2)))[0]) for row in np.asarray(after["a"])]
    assert sorted(order) == list(range(9)) and order != list(range(9))
    np.testing.assert_array_equal(after["b"], before["b"][order])


@pytest.mark.parametrize("steps", [8, 9])
def test_random_phases_keep_mean_spectrum_and_cross_correlation(x64, steps):
    before, after = record(steps), jax.jit(controls.phase_randomised)(jax.random.key(1), record(steps))

    def waves(tree):
        return np.fft.rfft(np.concatenate([r.reshape(steps, -1) for r in tree.values()], axis=1), axis=0)

    a, b = waves(before), waves(after)
    np.testing.assert_allclose(np.abs(b), np.abs(a), rtol=1e-9)
    np.testing.assert_allclose(b[:, :1].conj() * b, a[:, :1].conj() * a, atol=1e-9)
    np.testing.assert_allclose(b[0], a[0], atol=1e-9)
    assert not np.allclose(before["a"], after["a"])


def test_a_record_of_one_step_has_no_phases(x64):
    after = jax.jit(controls.phase_randomised)(jax.random.key(1), record(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), after, record(1))


def test_pushes_are_drawn_without_their_annealing_and_annealed_again(x64):
    """The pushes keep their size at each step, except for z, and z = 0 stays 0."""
    z = np.array([8.0, 4.0, 2.0, 1.0, 0.0])
    signs = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])

    @jax.jit
    def shuffled_and_unchanged(z, pushes):
        shuffled = controls.annealed(lambda r: controls.shuffled(jax.random.key(4), r), z, {"w": pushes})
        return shuffled["w"], controls.annealed(lambda record: record, z, {"w": pushes})["w"]

    drawn, unchanged = jax.device_get(shuffled_and_unchanged(z, z[:, None] * signs))
    rows = drawn[:4] / z[:4, None]
    known = np.concatenate([signs[:4], np.zeros((1, 2))])
    assert not np.allclose(rows, signs[:4]) and np.all(drawn[4] == 0)
    assert all(np.any(np.all(np.isclose(known, row), axis=1)) for row in rows)
    np.testing.assert_allclose(unchanged, z[:, None] * signs, rtol=1e-12)


def test_rms_of_a_record():
    sizes = jax.jit(controls.rms)({"a": np.array([[[3, 4]], [[0, 0]]], np.float32)})
    np.testing.assert_allclose(sizes["a"], [12.5**0.5, 0])


# --- within a training step ---------------------------------------------------------------------------------------


CONFIG = dataclasses.replace(
    small_net.CONFIG,
    chaos=Chaos(z0=(20.0,), beta=1.0, taps=("fc1.norm",), scale=1.0),
    optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
)


def recipe(tx=None, **fields):
    of_config = small_net.recipe(dataclasses.replace(CONFIG, chaos=dataclasses.replace(CONFIG.chaos, **fields)))
    return of_config if tx is None else dataclasses.replace(of_config, tx=tx)


def start(tx):
    """Return the first state of all runs for an optimiser."""
    state = first_state(recipe())
    return dataclasses.replace(state, opt_state=tx.init(state.params))


@pytest.mark.parametrize("term", ["drift", pytest.param("linear", marks=pytest.mark.slow)])
def test_the_config_selects_the_term(x64, term):
    state = first_state(recipe())

    @jax.jit
    def selected_and_expected(state, batch):
        _, outcome = objective.objective(recipe(term=term), state.params, state, batch)
        options = {"tap": lambda h: PULLS[term](h, 0.65, 1.0), "taps": CONFIG.chaos.taps, "mutable": ["batch_stats"]}
        (_, aux), _ = recipe().model.apply(learner.weights_of(state), batch["x"], True, **options)
        return outcome.metrics["chaos_loss"], 20 * aux.terms["fc1.norm"]

    selected, expected = selected_and_expected(state, batch())
    assert float(selected) == pytest.approx(float(expected), rel=1e-12)


def test_substeps_are_plain_descent_on_the_term_in_smaller_steps(x64):
    state = first_state(recipe())
    task = jax.device_get(gradients(recipe(), state, batch())["task"])
    params, pulls = jax.device_get(state.params), []
    for _ in range(5):
        pulls.append(jax.device_get(gradients(recipe(), dataclasses.replace(state, params=params), batch())["chaos"]))
        params = jax.tree.map(lambda p, g: p - 0.1 / 5 * g, params, pulls[-1])
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, task)
    after, metrics = train_step(recipe(substeps=5), state, batch())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), after.params, expected)
    loss, outcome = jax.jit(objective.objective, static_argnums=0)(recipe(), state.params, state, batch())
    for name in ("loss", "task_loss", "chaos_loss"):
        whole = loss if name == "loss" else outcome.metrics[name]
        assert float(metrics[name]) == pytest.approx(float(whole), rel=1e-12)
    in_one_step = jax.tree.map(lambda p, c, t: p - 0.1 * (c + t), state.params, pulls[0], task)
    pairs = zip(*map(jax.tree.leaves, jax.device_get((after.params, in_one_step))), strict=True)
    assert sum(np.sum((a - b) ** 2) for a, b in pairs) > 1e-3**2


def test_the_learner_passes_step_key_and_forcing_to_a_force(x64):
    of_force = recipe(optax.chain(controls.gaussian(), optax.scale(-1.0)))

    def with_record(state, sizes):
        forcing = jax.tree.map(lambda _: np.array(sizes), state.params)
        return dataclasses.replace(state, hparams=state.hparams | {"forcing": forcing})

    first = start(of_force.tx)
    plain, _ = train_step(of_force, with_record(first, [0.0, 0.0]), batch())
    forced, _ = train_step(of_force, with_record(first, [0.5, 0.0]), batch())
    pairs = zip(*map(jax.tree.leaves, jax.device_get((forced.params, plain.params))), strict=True)
    pushes = np.concatenate([np.ravel(a - b) for a, b in pairs])
    assert np.std(pushes) == pytest.approx(0.1 * 0.5, rel=0.25)
    # The record's second step has no force: another step is a plain one.
    after, _ = train_step(of_force, forced, batch())
    unforced, _ = train_step(of_force, with_record(forced, [0.0, 0.0]), batch())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), after.params, unforced.params)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("gaussian", "gradient"),
        ("gaussian", "weights"),
        *(pytest.param(name, "gradient", marks=pytest.mark.full) for name in ("ar1", "logistic")),
    ],
)
def test_a_force_with_its_own_forcing_acts_on_gradient_or_weights(x64, name, side):
    """Descent at half the rate: a force on the gradient comes through it, one on the weights does not."""
    descent, weights = optax.scale(-0.5), {"a": jnp.ones((4, 3)), "b": jnp.ones(5)}
    sizes = {"a": np.array([0.3, 0.1]), "b": np.array([0.3, 0.1])}
    force = controls.ar1(0.9, sizes) if name == "ar1" else getattr(controls, name)(sizes)
    tx = optax.chain(force, descent) if side == "gradient" else optax.chain(descent, force)

    def pushes(key):
        def push(state, n):
            arguments = {"step": n, "key": jax.random.fold_in(key, n)}
            updates, state = tx.update(weights, state, weights, **arguments)
            return state, jax.tree.map(lambda update, gradient: update + 0.5 * gradient, updates, weights)

        return jax.lax.scan(push, tx.init(weights), jnp.arange(3))[1]

    drawn = jax.jit(jax.vmap(pushes))(jax.random.split(jax.random.key(7), 400))
    expected = (0.5 if side == "gradient" else 1) * np.array([0.3, 0.1, 0.0])
    for pushed in jax.tree.leaves(jax.device_get(drawn)):
        squares = np.mean(pushed**2, axis=tuple(range(2, pushed.ndim)))  # of a tensor, [keys, steps]
        error = squares.std(axis=0) / 20
        np.testing.assert_array_less(np.abs(squares.mean(axis=0) - expected**2), 5 * error + 1e-12)
        assert abs(pushed.mean()) < 5 * pushed.std() / pushed.size**0.5


def test_a_force_may_follow_a_schedule_and_a_wrong_forcing_is_an_error(x64):
    still = {"a": jnp.zeros(2000), "b": jnp.zeros(2000, jnp.float32)}
    extra = {"step": jnp.int32(2), "key": jax.random.key(0)}
    force = controls.gaussian(lambda step: 0.5**step)
    pushed, _ = jax.jit(force.update)(still, force.init(still), **extra)
    assert np.std(pushed["a"]) == pytest.approx(0.25, rel=0.06) and pushed["b"].dtype == jnp.float32
    for forcing, line in (
        (None, "forcing: missing"),
        ({"a": jnp.ones(3)}, "forcing: its tensors are not those of the parameters"),
        ({"a": jnp.ones((3, 5)), "b": jnp.ones(3)}, r"forcing: a tensor is \(3, 5\) for parameters \(2000,\)"),
        ({"a": jnp.float32(1), "b": jnp.ones(3)}, r"forcing: a tensor is \(\) for parameters \(2000,\)"),
    ):
        force = controls.replay(forcing)
        with pytest.raises(ConfigError, match=line):
            force.update(still, force.init(still), **extra)


def test_a_force_names_the_arguments_that_it_lacks():
    weights = {"w": jnp.ones(2)}
    tx = optax.chain(controls.gaussian(lambda step: 0.1), optax.sgd(1.0))
    with pytest.raises(ConfigError, match=r"force: step and key missing; pass them to update"):
        tx.update(weights, tx.init(weights))
    with pytest.raises(ConfigError, match=r"force: key missing"):
        tx.update(weights, tx.init(weights), step=jnp.int32(0))
