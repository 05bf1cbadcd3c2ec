"""The training step: its compilations, its guard, its updates, and its equality over devices and sweeps."""

import dataclasses
import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import learner
from csbp_jax.config import Chaos, ConfigError, Optimizer, replaced
from csbp_jax.learner import optimizer
from csbp_jax.models import basic
from csbp_jax.runtime import sharding
from tests.support import small_net
from tests.support.small_net import TAPS, batch, eval_step, first_state, gradients, init, recipe, train_step

RECIPE = recipe()
OPTIMIZERS = {
    "sgd": small_net.SGD,
    "adam": small_net.ADAM,
    "adamw": Optimizer(name="adamw", lr=0.02, weight_decay=0.1, schedule="constant"),
}


def test_z_anneals_by_the_epoch_or_the_step_in_one_compilation(x64):
    step: Any = train_step
    known = step._cache_size()
    for anneal, every in (("step", 1), ("epoch", 10)):
        state, strengths = first_state(recipe(replaced(small_net.CONFIG, "chaos.anneal", anneal))), []
        for n in range(12):
            state, metrics = step(RECIPE, state, batch(n))
            strengths.append(float(metrics["z"]["fc1.norm"]))
        np.testing.assert_allclose(strengths, 3.0 * 0.9 ** (np.arange(12) // every), rtol=1e-5)
    assert step._cache_size() <= known + 1  # none where another test has compiled it


def test_batched_runs_take_one_compilation_and_equal_single_runs(x64):
    K = 4
    hparams = {
        "lr": np.linspace(0.02, 0.1, K),
        "z0": {tap: np.array([0.0, 1.0, 3.0, 10.0]) for tap in TAPS},
        "beta": np.linspace(0.9, 1.0, K),
        "target": np.linspace(0.5, 0.8, K),
        "scale": np.linspace(0.5, 5.0, K),
    }
    chex.clear_trace_counter()
    traced_once = chex.assert_max_traces(lambda state, batch: learner.train_step(RECIPE, state, batch), n=1)
    step: Any = jax.jit(jax.vmap(traced_once, in_axes=(0, None)))
    starts = [first_state(RECIPE, k, jax.tree.map(lambda leaf, k=k: leaf[k], hparams)) for k in range(K)]
    states = jax.jit(lambda *states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))(*starts)
    for n in range(10):
        states, _ = step(states, batch(n))
    assert step._cache_size() == 1
    params = jax.device_get(states.params)
    for k, state in enumerate(starts):
        for n in range(10):
            state, _ = train_step(RECIPE, state, batch(n))
        chex.assert_trees_all_close(state.params, jax.tree.map(lambda leaf, k=k: leaf[k], params), rtol=1e-10)


@pytest.mark.parametrize("name", ["sgd", *(pytest.param(name, marks=pytest.mark.full) for name in ("adam", "adamw"))])
def test_the_update_equals_optax_with_its_own_learning_rate(x64, name):
    settings = OPTIMIZERS[name]
    lr = optax.cosine_decay_schedule(settings.lr, 50) if settings.schedule == "cosine" else settings.lr
    reference = {
        "sgd": lambda: optax.chain(optax.add_decayed_weights(settings.weight_decay), optax.sgd(lr, momentum=0.9)),
        "adam": lambda: optax.adam(lr, eps_root=settings.eps_root),
        "adamw": lambda: optax.adamw(lr, weight_decay=settings.weight_decay),
    }[name]()

    @jax.jit
    def reference_update(gradient, opt_state, params):
        updates, opt_state = reference.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    of_optimizer = recipe(dataclasses.replace(small_net.CONFIG, optimizer=settings))
    state = expected = first_state(of_optimizer)
    opt_state = reference.init(expected.params)
    for n in range(4):
        state, _ = train_step(of_optimizer, state, batch(n))
        terms = gradients(RECIPE, expected, batch(n))
        total = jax.tree.map(jnp.add, terms["task"], terms["chaos"])
        params, opt_state = reference_update(total, opt_state, expected.params)
        expected = expected.replace(step=expected.step + 1, params=params)
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-10)


def test_an_optimiser_may_ask_for_the_loss(x64):
    tx = optax.chain(RECIPE.tx, optax.contrib.reduce_on_plateau())
    watched = learner.Recipe(RECIPE.model, tx, RECIPE.loss, small_net.CONFIG, 10)
    state, metrics = train_step(watched, first_state(watched), batch())
    assert optax.tree.get(state.opt_state, "best_value") == metrics["loss"]


def test_a_nan_weight_is_detected_although_the_loss_is_finite(x64):
    healthy, _ = train_step(RECIPE, first_state(RECIPE), batch())
    kernel = healthy.params["fc1"]["dense"]["kernel"].at[0, 0].set(jnp.nan)
    broken = healthy.replace(params={**healthy.params, "fc1": {**healthy.params["fc1"], "dense": {"kernel": kernel}}})
    after, metrics = train_step(RECIPE, broken, batch(1))
    assert np.isfinite(metrics["task_loss"]) and not np.isfinite(metrics["grad_norm"])
    assert int(metrics["bad_steps"]) == 1 and int(after.step) == 2
    chex.assert_trees_all_equal(after.params, broken.params)
    chex.assert_trees_all_equal(after.batch_stats, broken.batch_stats)
    chex.assert_trees_all_equal(after.opt_state, broken.opt_state)


def test_bad_batches_are_skipped_and_counted_in_a_row(x64):
    state = first_state(RECIPE)
    bad = batch()
    bad["x"][0, 0, 0] = np.inf
    counts = []
    for data in (batch(0), bad, bad, batch(1), bad):
        state, metrics = train_step(RECIPE, state, data)
        counts.append(int(metrics["bad_steps"]))
    assert counts == [0, 1, 2, 0, 1]
    chex.assert_tree_all_finite((state.params, state.batch_stats, state.opt_state))


def test_clipping_is_off_by_default_and_clipped_steps_are_counted(x64):
    clip = Optimizer(name="sgd", lr=0.1, schedule="constant", momentum=0.0, clip=0.01)
    clipped = recipe(dataclasses.replace(small_net.CONFIG, optimizer=clip))
    state = first_state(clipped)
    after, metrics = train_step(clipped, state, batch())
    moves = jax.tree.leaves(jax.tree.map(np.subtract, *jax.device_get((after.params, state.params))))
    moved = np.sqrt(sum(np.sum(move**2) for move in moves))
    assert float(metrics["clipped"]) == 1 and float(metrics["grad_norm"]) > 0.01
    np.testing.assert_allclose(moved, 0.1 * 0.01, rtol=1e-6)
    assert "clipped" not in jax.eval_shape(train_step, RECIPE, first_state(RECIPE), batch())[1]


def test_plain_backpropagation_is_z0_zero(x64):
    state, metrics = train_step(RECIPE, first_state(RECIPE, hparams={"z0": {tap: 0.0 for tap in TAPS}}), batch())
    without_term = recipe(dataclasses.replace(small_net.CONFIG, chaos=Chaos()))
    plain, _ = train_step(without_term, first_state(without_term), batch())
    assert float(metrics["chaos_loss"]) == 0
    chex.assert_trees_all_close(state.params, plain.params, rtol=1e-12)


def test_eight_devices_equal_one(x64):
    devices = sharding.data_parallel()
    assert devices.size == 8
    single = first_state(RECIPE)
    sharded = jax.jit(learner.train_step, static_argnums=0, out_shardings=sharding.replicated(devices))
    distributed = jax.device_put(single, sharding.replicated(devices))
    for n in range(10):
        single, _ = train_step(RECIPE, single, batch(n))
        distributed, _ = jax.block_until_ready(sharded(RECIPE, distributed, sharding.shard_batch(batch(n), devices)))
    chex.assert_trees_all_close(
        (single.params, single.batch_stats), (distributed.params, distributed.batch_stats), atol=1e-12
    )


def test_evaluation_counts_each_example_once(x64):
    state, data = first_state(RECIPE), batch(size=12)
    unpadded = eval_step(RECIPE, state, {**data, "mask": np.ones(12, bool)})
    padded = jax.tree.map(lambda a: np.concatenate([a, a[:4]]), data)
    masked = eval_step(RECIPE, state, {**padded, "mask": np.arange(16) < 12})
    chex.assert_trees_all_close(unpadded, masked, rtol=1e-6)
    assert int(masked["count"]) == 12


def test_a_batch_of_padding_alone_adds_nothing(x64):
    sums = eval_step(RECIPE, first_state(RECIPE), {**batch(size=12), "mask": np.zeros(12, bool)})
    assert {name: float(total) for name, total in sums.items()} == {"count": 0, "correct": 0, "loss": 0}


def test_probabilities_as_labels_train_like_integers(x64):
    hard, soft = batch(), {**batch(), "y": np.eye(3)[batch()["y"]]}
    (a, ma), (b, mb) = (train_step(RECIPE, first_state(RECIPE), data) for data in (hard, soft))
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-12)
    assert float(ma["accuracy"]) == float(mb["accuracy"])


def test_chaos_is_never_silently_off(x64):
    class WithoutTerms(basic.Dense):
        def __call__(self, x, train=False, *, taps=(), **options):
            return super().__call__(x, train, **options)

    model = WithoutTerms(features=(5, 4), classes=3, time_steps=2)
    untapped = dataclasses.replace(RECIPE, model=model)
    with pytest.raises(ConfigError, match="the network gave terms of"):
        jax.eval_shape(train_step, untapped, first_state(RECIPE), batch())


def test_make_returns_the_plain_functions_of_the_recipe(x64):
    """``learner.make`` traces to the very programs of the plain functions."""
    model, config = RECIPE.model, small_net.CONFIG
    made_init, made_step, made_eval_step = learner.make(model, RECIPE.tx, RECIPE.loss, config, 10)
    key, state, data = jax.random.key(0), first_state(RECIPE), batch()
    masked = {**data, "mask": np.ones(8, bool)}
    for made, plain, arguments in (
        (made_init, learner.init, (key,)),
        (made_step, learner.train_step, (state, data)),
        (made_eval_step, learner.eval_step, (state, masked)),
    ):
        program = str(jax.make_jaxpr(made)(*arguments))
        assert program == str(jax.make_jaxpr(lambda *a, plain=plain: plain(RECIPE, *a))(*arguments))


def test_a_recipe_may_fall_by_the_epoch_if_its_steps_are_given_or_it_does_not_fall():
    by_epoch = replaced(small_net.CONFIG, "chaos.anneal", "epoch")
    parts = RECIPE.model, RECIPE.tx, RECIPE.loss
    assert learner.make(*parts, by_epoch, 1)
    assert learner.make(*parts, replaced(by_epoch, "chaos.beta", 1.0))


@pytest.mark.full
def test_no_two_draws_of_steps_and_microbatches_have_the_same_key(monkeypatch):
    """Those of dropout begin at the same keys as the forces, but then have the path of their layer folded in."""

    class Noisy(basic.Dense):
        def body(self, x, train, run):
            return nn.Dropout(0.5, deterministic=not train)(super().body(x, train, run))

    dropped: list[Any] = []
    forced: dict[int, Any] = {}
    bernoulli = jax.random.bernoulli

    def drawn(key, *arguments, **options):
        jax.debug.callback(lambda data: dropped.append(jax.random.wrap_key_data(data)), jax.random.key_data(key))
        return bernoulli(key, *arguments, **options)

    def force(updates, state, params=None, *, step, key, **_):
        def noted(step, data):
            forced[int(step)] = jax.random.wrap_key_data(data)

        jax.debug.callback(noted, step, jax.random.key_data(key))
        return updates, state

    monkeypatch.setattr(jax.random, "bernoulli", drawn)
    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), force)
    config = replaced(small_net.CONFIG, "optimizer.accumulate", 2)
    noisy = learner.Recipe(Noisy(features=(5, 4), classes=3, time_steps=2), tx, RECIPE.loss, config, 1)
    state = init(noisy, jax.random.key(0), {})
    step = jax.jit(functools.partial(learner.train_step, noisy))
    for _ in range(3):
        state, _ = jax.block_until_ready(step(state, batch()))
    jax.effects_barrier()
    microbatch, count = 1, 2
    base = jax.random.fold_in(jax.random.fold_in(state.key, microbatch), count)
    assert (jax.random.key_data(base) == jax.random.key_data(forced[microbatch])).all()

    transformed = [jax.random.fold_in(jax.random.fold_in(state.key, n), 1) for n in range(3)]
    begun = [*forced.values(), *transformed]
    split = [key for begun_at in begun for key in jax.random.split(begun_at, 64)]  # one for each tensor or record
    keys = [tuple(jax.random.key_data(key).tolist()) for key in (*dropped, *begun, *split)]
    assert len(dropped) == 2 * 3 and len(set(keys)) == len(keys)


def test_a_refused_step_does_not_count_for_the_schedule(x64):
    state, first = first_state(RECIPE), batch()
    for x in (np.full_like(first["x"], np.nan), first["x"]):
        state, _ = train_step(RECIPE, state, first | {"x": x})
    assert int(state.step) == 2 and int(optimizer.steps_taken(state.opt_state, state.step)) == 1
    assert int(optimizer.steps_taken(optax.EmptyState(), state.step)) == 2
    other = optax.scale_by_schedule(optax.constant_schedule(1.0)).init(state.params)
    assert int(optimizer.steps_taken((state.opt_state, other), state.step)) == 1
