"""The training step: its tangent map, its compilations, its guard, and its equality over devices and sweeps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from csbp_jax import learner, losses, models, neurons, surrogate
from csbp_jax.config import Chaos, Config, ConfigError, Model, Optimizer
from csbp_jax.learner import objective, optimizer
from csbp_jax.runtime import sharding

TAPS = ("fc1.norm", "fc2.membrane")
OPTIMIZERS = {
    "sgd": Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3, schedule="cosine"),
    "adam": Optimizer(name="adam", lr=0.01, eps_root=1e-8, schedule="constant"),
}


def make(opt="sgd", **changes):
    """A small dense net with two tapped layers: config and (init, train_step, eval_step)."""
    config = Config(
        model=Model(name="dense", input_shape=(6,), classes=3, time_steps=3, features=(7, 5)),
        chaos=Chaos(z0=(3.0, 2.0), beta=0.9, anneal="step", taps=TAPS, scale=1.0),
        optimizer=changes.pop("optimizer", OPTIMIZERS[opt]),
    )
    tx = optimizer.build(config.optimizer, epochs=5, steps_per_epoch=10)
    return config, learner.make(models.build(config.model), tx, losses.rate_cross_entropy, config)


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(2 * rng.normal(size=(size, 1, 6)), jnp.result_type(float))
    return {"x": x, "y": jnp.asarray(rng.integers(0, 3, size))}


def in_dtype(state):
    """Flax makes its parameters in float32."""
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, state)


def begin(init, seed=0, **hparams):
    return in_dtype(init(jax.random.key(seed), hparams))


def kill_a_neuron(state):
    """A neuron far below threshold: outside the triangle's support, so its gradient is exactly zero."""
    bias = state.params["fc1"]["norm"]["bias"].at[0].set(-20.0)
    params = {**state.params, "fc1": {**state.params["fc1"], "norm": {**state.params["fc1"]["norm"], "bias": bias}}}
    return state.replace(params=params)


def as_map(train_step, state, data):
    """The step as a map of its inexact, fed-back leaves, flattened: parameters and optimiser moments."""

    def inexact(tree):
        return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    _, unravel = ravel_pytree(inexact((state.params, state.opt_state)))

    def put(flat):
        values = iter(unravel(flat))
        params, opt_state = jax.tree.map(
            lambda leaf: next(values) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
            (state.params, state.opt_state),
        )
        return state.replace(params=params, opt_state=opt_state)

    def step(flat):
        after, _ = train_step(put(flat), data)
        return ravel_pytree(inexact((after.params, after.opt_state)))[0]

    return step, ravel_pytree(inexact((state.params, state.opt_state)))[0]


def central_difference(f, x, v, h=1e-6):
    return (f(x + h * v) - f(x - h * v)) / (2 * h)


FORMS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "remat": lambda f: jax.jit(jax.checkpoint(f)),
    "scan": lambda f: jax.jit(lambda x: lax.scan(lambda c, _: (f(c), None), x, length=3)[0]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_tangent_map_of_a_step_equals_central_differences(x64, opt, form):
    _, (init, train_step, _) = make(opt)
    state = kill_a_neuron(begin(init))
    for n in range(3):  # leave the start, where momenta are zero
        state, _ = jax.jit(train_step)(state, batch(n))
    assert float(state.params["fc1"]["norm"]["bias"][0]) < -19
    step, x = as_map(train_step, state, batch(7))
    f = FORMS[form](step)
    v = x * jax.random.normal(jax.random.key(1), x.shape)  # relative, or a second moment of 0 would turn negative
    v = v / jnp.linalg.norm(v)
    _, tangent = jax.jvp(f, (x,), (v,))
    reference = central_difference(jax.jit(f), x, v)
    assert jnp.linalg.norm(tangent) > 0.1
    assert float(jnp.linalg.norm(tangent - reference) / jnp.linalg.norm(reference)) < 1e-6


@pytest.mark.parametrize("opt", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
@pytest.mark.parametrize("vary", ["width", *(pytest.param(v, marks=pytest.mark.slow) for v in ("z", "decay"))])
def test_tangent_map_under_vmap_over_hyperparameters(x64, vary, opt):
    _, (init, train_step, _) = make(opt)
    K = 3
    neuron = neurons.LIF(jnp.full(K, 0.25), jnp.full(K, 1.0), surrogate.triangle(jnp.full(K, 1.0)))
    z0 = {tap: jnp.full(K, 3.0) for tap in TAPS}
    if vary == "z":
        z0 = {tap: jnp.array([0.0, 3.0, 30.0]) for tap in TAPS}
    if vary == "width":
        neuron = neurons.LIF(neuron.decay, neuron.threshold, surrogate.triangle(jnp.array([0.5, 1.0, 2.0])))
    if vary == "decay":
        neuron = neurons.LIF(jnp.array([0.1, 0.5, 0.9]), neuron.threshold, neuron.spike)
    states = in_dtype(jax.vmap(lambda h: init(jax.random.key(0), h))({"neuron": neuron, "z0": z0}))
    for n in range(3):  # leave the start, where moments are zero
        states, _ = jax.jit(jax.vmap(train_step, in_axes=(0, None)))(states, batch(n))

    def tangent(state):
        step, x = as_map(train_step, state, batch())
        return jax.jvp(step, (x,), (x / jnp.linalg.norm(x),))[1]

    together = jax.jit(jax.vmap(tangent))(states)
    assert not np.allclose(together[0], together[1], rtol=1e-3)
    for k in range(K):
        step, x = as_map(train_step, jax.tree.map(lambda leaf, k=k: leaf[k], states), batch())
        reference = central_difference(jax.jit(step), x, x / jnp.linalg.norm(x))
        assert float(jnp.linalg.norm(together[k] - reference) / jnp.linalg.norm(reference)) < 1e-6


def test_one_compilation_while_z_anneals():
    _, (init, train_step, _) = make()
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(train_step, n=1))
    state, strengths = jax.jit(init)(jax.random.key(0), {}), []
    for n in range(20):
        state, metrics = step(state, batch(n))
        strengths.append(float(metrics["z"]["fc1.norm"]))
    np.testing.assert_allclose(strengths, 3.0 * 0.9 ** np.arange(20), rtol=1e-5)
    assert step._cache_size() == 1


def test_one_compilation_for_a_batch_of_runs_and_a_member_equals_the_run_alone(x64):
    _, (init, train_step, _) = make()
    K = 4
    hparams = {
        "lr": jnp.linspace(0.02, 0.1, K),
        "z0": {tap: jnp.array([0.0, 1.0, 3.0, 10.0]) for tap in TAPS},
        "beta": jnp.linspace(0.9, 1.0, K),
        "target": jnp.linspace(0.5, 0.8, K),
        "scale": jnp.linspace(0.5, 5.0, K),
    }
    keys = jax.vmap(jax.random.key)(jnp.arange(K))
    chex.clear_trace_counter()
    step = jax.jit(jax.vmap(chex.assert_max_traces(train_step, n=1), in_axes=(0, None)))
    states = alone = in_dtype(jax.vmap(init)(keys, hparams))
    for n in range(10):
        states, _ = step(states, batch(n))
    assert step._cache_size() == 1
    single = jax.jit(train_step)
    for k in range(K):
        state = jax.tree.map(lambda leaf, k=k: leaf[k], alone)
        for n in range(10):
            state, _ = single(state, batch(n))
        chex.assert_trees_all_close(state.params, jax.tree.map(lambda leaf, k=k: leaf[k], states.params), rtol=1e-10)


@pytest.mark.parametrize("opt", [*OPTIMIZERS, "adamw"])
def test_update_equals_optax_with_its_own_learning_rate(x64, opt):
    settings = OPTIMIZERS.get(opt, Optimizer(name="adamw", lr=0.02, weight_decay=0.1, schedule="constant"))
    config, (init, train_step, _) = make(optimizer=settings)
    lr = optax.cosine_decay_schedule(settings.lr, 50) if settings.schedule == "cosine" else settings.lr
    reference = {
        "sgd": lambda: optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.sgd(lr, momentum=0.9)),
        "adam": lambda: optax.adam(lr, eps_root=settings.eps_root),
        "adamw": lambda: optax.adamw(lr, weight_decay=settings.weight_decay),
    }[opt]()
    _, reference_step, _ = learner.make(models.build(config.model), reference, losses.rate_cross_entropy, config)
    ours = begin(init)
    theirs = ours.replace(opt_state=reference.init(ours.params), hparams={**ours.hparams, "lr": jnp.ones(())})
    for n in range(4):
        ours, _ = jax.jit(train_step)(ours, batch(n))
        theirs, _ = jax.jit(reference_step)(theirs, batch(n))
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-10)


def test_a_nan_weight_is_caught_although_the_loss_is_finite():
    _, (init, train_step, _) = make()
    healthy, _ = jax.jit(train_step)(jax.jit(init)(jax.random.key(0), {}), batch())
    kernel = healthy.params["fc1"]["dense"]["kernel"].at[0, 0].set(jnp.nan)
    broken = healthy.replace(params={**healthy.params, "fc1": {**healthy.params["fc1"], "dense": {"kernel": kernel}}})
    after, metrics = jax.jit(train_step)(broken, batch(1))
    assert np.isfinite(metrics["task_loss"]) and not np.isfinite(metrics["grad_norm"])
    assert int(metrics["bad_steps"]) == 1 and int(after.step) == 2
    chex.assert_trees_all_equal(after.params, broken.params)
    chex.assert_trees_all_equal(after.batch_stats, broken.batch_stats)
    chex.assert_trees_all_equal(after.opt_state, broken.opt_state)


def test_bad_batches_are_skipped_and_counted_in_a_row():
    _, (init, train_step, _) = make()
    step = jax.jit(train_step)
    state = jax.jit(init)(jax.random.key(0), {})
    bad = {**batch(), "x": batch()["x"].at[0, 0, 0].set(jnp.inf)}
    counts = []
    for data in (batch(0), bad, bad, batch(1), bad):
        state, metrics = step(state, data)
        counts.append(int(metrics["bad_steps"]))
    assert counts == [0, 1, 2, 0, 1]
    chex.assert_tree_all_finite((state.params, state.batch_stats, state.opt_state))


def test_clipping_is_off_unless_asked_for_and_its_steps_are_counted(x64):
    clip = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, clip=0.01)
    _, (init, train_step, _) = make(optimizer=clip)
    state = begin(init)
    after, metrics = jax.jit(train_step)(state, batch())
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, state.params))
    assert float(metrics["clipped"]) == 1 and float(metrics["grad_norm"]) > 0.01
    np.testing.assert_allclose(moved, 0.1 * 0.01, rtol=1e-6)
    _, (init, train_step, _) = make()
    assert "clipped" not in jax.eval_shape(train_step, state, batch())[1]


def test_gradient_norms_are_those_of_the_two_losses(x64):
    config, (init, _, _) = make()
    model = models.build(config.model)
    state = begin(init)
    gradients = jax.jit(learner.make_gradients(model, losses.rate_cross_entropy, config))(state, batch())
    norms = learner.gradient_norms(gradients)
    recipe = learner.make_recipe(model, optax.identity(), losses.rate_cross_entropy, config)
    for part in ("task", "chaos"):

        def loss(params, part=part):
            return objective.objective(recipe, params, state, batch())[1].metrics[f"{part}_loss"]

        gradient = jax.jit(jax.grad(loss))(state.params)
        np.testing.assert_allclose(norms[part], optax.tree.norm(gradient), rtol=1e-12)
        assert norms[part] > 0


def test_plain_backpropagation_is_z0_zero(x64):
    _, (init, train_step, _) = make()
    state, metrics = jax.jit(train_step)(begin(init, z0={tap: 0.0 for tap in TAPS}), batch())
    config = Config(model=make()[0].model, optimizer=OPTIMIZERS["sgd"])
    tx = optimizer.build(config.optimizer, 5, 10)
    init, plain_step, _ = learner.make(models.build(config.model), tx, losses.rate_cross_entropy, config)
    plain, _ = jax.jit(plain_step)(begin(init), batch())
    assert float(metrics["chaos_loss"]) == 0
    chex.assert_trees_all_close(state.params, plain.params, rtol=1e-12)


def test_eight_devices_equal_one(x64):
    _, (init, train_step, _) = make()
    devices = sharding.data_parallel()
    assert devices.size == 8
    one = many = begin(init)
    sharded = jax.jit(train_step, out_shardings=sharding.replicated(devices))
    many = jax.device_put(many, sharding.replicated(devices))
    for n in range(10):
        one, _ = jax.jit(train_step)(one, batch(n, 16))
        many, _ = sharded(many, sharding.shard_batch(batch(n, 16), devices))
    chex.assert_trees_all_close((one.params, one.batch_stats), (many.params, many.batch_stats), atol=1e-12)


def test_evaluation_counts_each_example_once():
    _, (init, _, eval_step) = make()
    state, data = jax.jit(init)(jax.random.key(0), {}), batch(size=12)
    whole = jax.jit(eval_step)(state, {**data, "mask": jnp.ones(12, bool)})
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:4]]), data)
    masked = jax.jit(eval_step)(state, {**padded, "mask": jnp.arange(16) < 12})
    chex.assert_trees_all_close(whole, masked, rtol=1e-6)
    assert int(masked["count"]) == 12


def test_probabilities_as_labels_train_like_integers(x64):
    _, (init, train_step, _) = make()
    hard, soft = batch(), {**batch(), "y": jax.nn.one_hot(batch()["y"], 3)}
    (a, ma), (b, mb) = (jax.jit(train_step)(begin(init), data) for data in (hard, soft))
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-12)
    assert float(ma["accuracy"]) == float(mb["accuracy"])


def test_unknown_hyperparameters_are_refused():
    _, (init, _, _) = make()
    with pytest.raises(ConfigError, match="unknown betta"):
        init(jax.random.key(0), {"betta": 0.9})
    with pytest.raises(ConfigError, match=r"z0 names fc1.norm, but the taps are fc1.norm, fc2.membrane"):
        init(jax.random.key(0), {"z0": {"fc1.norm": 1.0}})


def test_chaos_is_never_silently_off():
    config, (init, train_step, _) = make()
    plain = dataclasses.replace(config, chaos=Chaos())
    tx = optimizer.build(config.optimizer, 5, 10)
    init_plain, _, _ = learner.make(models.build(config.model), tx, losses.rate_cross_entropy, plain)
    with pytest.raises(ConfigError, match=r"z0 is given, but chaos\.taps of the config is empty"):
        init_plain(jax.random.key(0), {"z0": 5.0})

    class Deaf(models.Dense):
        def __call__(self, x, train=False, *, taps=(), **options):
            return super().__call__(x, train, **options)

    deaf = Deaf(features=(7, 5), classes=3, time_steps=3)
    init, train_step, _ = learner.make(deaf, tx, losses.rate_cross_entropy, config)
    with pytest.raises(ConfigError, match="the network gave terms of"):
        train_step(init(jax.random.key(0)), batch())


@pytest.mark.parametrize("anneal, expected", [("epoch", [3, 3, 3, 1.5]), ("step", [3, 1.5, 0.75, 0.375])])
def test_z_anneals_by_the_epoch_or_the_step(anneal, expected):
    config = make()[0]
    config = dataclasses.replace(config, chaos=dataclasses.replace(config.chaos, anneal=anneal, beta=0.5))
    tx = optimizer.build(config.optimizer, 5, 3)
    init, train_step, _ = learner.make(models.build(config.model), tx, losses.rate_cross_entropy, config, 3)
    state, step, z = init(jax.random.key(0)), jax.jit(train_step), []
    for n in range(4):
        state, metrics = step(state, batch(n))
        z.append(float(metrics["z"]["fc1.norm"]))
    assert z == expected


def test_one_strength_serves_all_taps():
    _, (init, _, _) = make()
    assert {tap: float(z0) for tap, z0 in init(jax.random.key(0), {"z0": 7.0}).hparams["z0"].items()} == dict.fromkeys(
        TAPS, 7.0
    )


def test_another_seed_is_another_start():
    _, (init, _, _) = make()
    kernels = [
        jax.jit(functools.partial(init, hparams={}))(jax.random.key(s)).params["readout"]["kernel"] for s in (0, 1)
    ]
    assert not np.allclose(*kernels)
