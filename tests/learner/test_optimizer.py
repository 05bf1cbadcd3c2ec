"""Schedules and the optimiser's stages, against their closed forms."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from csbp_jax import models
from csbp_jax.config import Model, Optimizer
from csbp_jax.learner import optimizer

BASE = Optimizer(lr=0.3, schedule="cosine")


def updates(config, params, gradient):
    """The first update, for a rate of 1, of a network whose first layer is conv1."""
    tx = optimizer.build(config, 1, 1, ("conv1", "conv2", "readout"))
    return jax.device_get(
        jax.jit(lambda params, gradient: tx.update(gradient, tx.init(params), params)[0])(params, gradient)
    )


def values(config, epochs=4, steps_per_epoch=10):
    schedule = jax.jit(jax.vmap(optimizer.schedule(config, epochs, steps_per_epoch)))
    return np.array(schedule(np.arange(epochs * steps_per_epoch + 1, dtype=np.int32)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "cosine"}, (1 + np.cos(np.pi * np.arange(41) / 40)) / 2),
        ({"schedule": "step", "step_epochs": 2, "step_factor": 0.1}, 0.1 ** (np.arange(41) // 20)),
        ({"schedule": "constant"}, np.ones(41)),
    ],
)
def test_schedules_have_their_closed_forms(fields, expected):
    np.testing.assert_allclose(values(dataclasses.replace(BASE, **fields)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warmup_rises_linearly_to_the_peak_and_the_schedule_follows(schedule):
    config = dataclasses.replace(BASE, schedule=schedule, warmup_epochs=1, step_epochs=1)
    warm = values(config)
    np.testing.assert_allclose(warm[:10], np.arange(1, 11) / 10, rtol=1e-6)
    after = values(dataclasses.replace(config, warmup_epochs=0), epochs=3)
    np.testing.assert_allclose(warm[10:], after, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_updates_times_the_rate_are_those_of_optax(x64, name):
    """After several steps, so that moments, their bias correction and the schedule count."""
    lr, schedule = 0.02, optax.cosine_decay_schedule(0.02, 40)
    reference = {
        "sgd": optax.sgd(schedule, momentum=0.8),
        "adam": optax.adam(schedule, eps_root=1e-3),
        "adamw": optax.adamw(schedule, weight_decay=0.1),
    }[name]
    config = {
        "sgd": Optimizer(name="sgd", schedule="cosine", momentum=0.8),
        "adam": Optimizer(name="adam", schedule="cosine", eps_root=1e-3),
        "adamw": Optimizer(name="adamw", schedule="cosine", weight_decay=0.1),
    }[name]
    tx = optimizer.build(config, 4, 10)
    rng = np.random.default_rng(0)
    params, gradients = rng.normal(size=5), rng.normal(size=(4, 5))

    @jax.jit
    def last_updates(params, gradients):
        states = [tx.init(params), reference.init(params)]
        for gradient in gradients:
            ours, states[0] = tx.update(gradient, states[0], params)
            expected, states[1] = reference.update(gradient, states[1], params)
        return lr * ours, expected

    ours, expected = last_updates(params, gradients)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_muon_orthogonalises_hidden_kernels_and_leaves_the_rest_to_adam():
    """All singular values of an update are about equal. Its root mean square is 0.2, near that of AdamW's."""
    layer = {"kernel": (3, 3, 4, 8), "bias": (8,)}
    shapes = {"conv1": layer, "conv2": {**layer, "scale": (8,)}, "readout": {"kernel": (8, 3)}}
    rng = np.random.default_rng(0)
    params, gradient = (
        jax.tree.map(
            lambda s: np.asarray(rng.normal(size=s), np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
        )
        for _ in range(2)
    )
    update = updates(Optimizer(name="muon", schedule="constant", weight_decay=0.1), params, gradient)
    adamw = updates(Optimizer(name="adamw", schedule="constant", weight_decay=0.1), params, gradient)
    singular = np.linalg.svd((update["conv2"]["kernel"] + 0.1 * params["conv2"]["kernel"]).reshape(36, 8))[1]
    assert singular.max() / singular.min() < 2 < np.ptp(np.linalg.svd(gradient["conv2"]["kernel"].reshape(36, 8))[1])
    assert np.sqrt((singular**2).sum() / (36 * 8)) == pytest.approx(0.2, rel=0.3)
    del update["conv2"]["kernel"], adamw["conv2"]["kernel"]
    # Adam with Nesterov's momentum, as optax.contrib.muon has it: at the first step the direction is the same.
    chex.assert_trees_all_close(jax.tree.map(np.sign, update), jax.tree.map(np.sign, adamw))


def test_muon_takes_the_inputs_of_a_convolution_as_the_rows_of_one_matrix():
    gradient = {"conv2": {"kernel": np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)}}
    matrix = jax.tree.map(lambda kernel: kernel.reshape(36, 8), gradient)
    muon = Optimizer(name="muon", schedule="constant")
    of_kernel, of_matrix = (updates(muon, g, g)["conv2"]["kernel"] for g in (gradient, matrix))
    np.testing.assert_allclose(of_kernel.reshape(36, 8), of_matrix, rtol=1e-4, atol=1e-6)


def test_weight_decay_is_part_of_the_gradient_for_sgd_and_decoupled_for_adamw():
    params, gradient = {"w": jnp.array(2.0)}, {"w": jnp.array(1.0)}
    sgd = optimizer.build(Optimizer(name="sgd", weight_decay=0.1, schedule="constant"), 1, 1)
    update, state = sgd.update(gradient, sgd.init(params), params)
    np.testing.assert_allclose(update["w"], -(1 + 0.1 * 2), rtol=1e-6)
    update, _ = sgd.update(gradient, state, params)  # PyTorch: the momentum buffer holds the decay too
    np.testing.assert_allclose(update["w"], -(1.2 + 0.9 * 1.2), rtol=1e-6)
    adam = Optimizer(name="adam", weight_decay=0.1, schedule="constant")
    for config, expected in ((adam, -1.0), (dataclasses.replace(adam, name="adamw"), -1.0 - 0.1 * 2)):
        tx = optimizer.build(config, 1, 1)
        update, _ = tx.update(gradient, tx.init(params), params)
        np.testing.assert_allclose(update["w"], expected, rtol=1e-4)


LAYERS = ("stem", "stem_spike", "stage1_block1_conv1", "stage1_block1_shortcut", "stage1_block1", "stage2_block1_conv1",
          "last_spike", "readout")  # fmt: skip
DEPTHS = {"stem": 3, "stage1_block1_conv1": 2, "stage1_block1": 2, "stage2_block1_conv1": 1, "readout": 0, "other": 0}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_layer_decay_slows_each_block_by_its_distance_from_the_readout(name):
    params = {
        layer: {"kernel": np.full(3, 2.0, np.float32), "norm": {"scale": np.ones(2, np.float32)}} for layer in DEPTHS
    }
    gradient = jax.tree.map(lambda p: 0.5 * p, params)
    config = Optimizer(name=name, weight_decay=0.1, schedule="constant")

    @functools.partial(jax.jit, static_argnums=0)
    def updates(config):
        tx = optimizer.build(config, 1, 1, LAYERS)
        first, state = tx.update(gradient, tx.init(params), params)
        return first, tx.update(gradient, state, params)[0]

    expected = [
        {layer: jax.tree.map(lambda u, d=depth: u * 0.5**d, update[layer]) for layer, depth in DEPTHS.items()}
        for update in updates(config)
    ]
    chex.assert_trees_all_close(list(updates(dataclasses.replace(config, layer_decay=0.5))), expected, rtol=1e-6)


def test_a_factor_of_one_leaves_the_optimiser_as_it_is():
    params = {"conv1": jnp.ones(2)}
    plain, decayed = (optimizer.build(Optimizer(layer_decay=d), 1, 1, ("conv1",)).init(params) for d in (1.0, 0.5))
    chex.assert_trees_all_equal_structs(plain, optimizer.build(Optimizer(), 1, 1).init(params))
    assert len(decayed) == len(plain) + 1


@pytest.mark.parametrize("count", [5, 10])
def test_a_gradient_moves_adam_by_the_rate_and_scale_of_its_heavy_ball(count):
    config, x = Optimizer(name="adam", schedule="constant"), jnp.zeros(1)
    tx = optimizer.build(config, 1, 1)
    update = jax.jit(tx.update)
    state = tx.init(x)
    for _ in range(count):
        _, state = update(np.ones(1, np.float32), state, x)
    ball = optimizer.heavy_ball(config, state)
    assert ball is not None
    without, moved = (update(np.full(1, g, np.float32), state, x)[0][0] for g in (0.0, 1e-3))
    # The ratio has the second moments before the step, which changes their root by 10 and by 5 %.
    assert float(without - moved) / 1e-3 == pytest.approx(float(ball["rate"] * ball["scale"][0]), rel=0.15)


def test_sgd_is_the_heavy_ball_of_its_momentum_at_the_rate():
    config = Optimizer(name="sgd", momentum=0.7, schedule="constant")
    state = optimizer.build(config, 1, 1).init(jnp.ones(1))
    assert optimizer.heavy_ball(config, state) == {"rate": 1.0, "momentum": 0.7, "scale": None}


def test_a_state_goes_on_from_another_count_of_its_schedule_alone():
    config = Optimizer(name="adam", schedule="cosine")
    state = optimizer.build(config, 4, 10).init(jnp.ones(1))
    moved = optimizer.with_steps_taken(state, 7)
    assert int(optimizer.steps_taken(moved, jnp.int32(0))) == 7
    assert int(optax.tree.get(moved, "ScaleByAdamState").count) == 0


def test_second_moments_are_left_out_of_a_mask_and_nothing_else_is():
    state = optimizer.build(Optimizer(name="adam"), 1, 1).init({"a": jnp.ones(2)})
    every = jax.tree.map(lambda _: True, state)
    mask = optax.tree.get(optimizer.without_second_moments(every), "ScaleByAdamState")
    assert (mask.mu, mask.nu) == ({"a": True}, {"a": False})
    plain = jax.tree.map(lambda _: True, optimizer.build(Optimizer(name="sgd"), 1, 1).init({"a": jnp.ones(2)}))
    assert optimizer.without_second_moments(plain) is plain


def test_gradients_are_gathered_before_they_reach_the_optimiser():
    tx = optimizer.with_gathered_gradients(optax.trace(0.9), lambda gradient: jax.tree.map(lambda g: 2 * g, gradient))
    updates, state = tx.update({"a": jnp.ones(2)}, tx.init({"a": jnp.ones(2)}), value=0.0)
    np.testing.assert_array_equal(updates["a"], 2.0)
    np.testing.assert_array_equal(state.trace["a"], 2.0)


@pytest.mark.parametrize("field", [{"layer_decay": 0.5}, {"sam_radius": 0.05}, {"name": "lion"}, {"name": "muon"}])
def test_the_flip_ratio_is_not_defined_where_a_step_is_no_heavy_ball(field):
    config = Optimizer(**{"name": "sgd", "schedule": "constant", **field})
    params = {"conv1": jnp.ones((2, 2))}
    tx = optimizer.build(config, 1, 1, ("conv1",))
    _, state = tx.update(params, tx.init(params), params)
    assert optimizer.heavy_ball(config, state) is None


def test_layers_are_in_the_order_of_the_forward_pass():
    config = Model("small_conv", (4, 4, 1), features=(2,) * 11)
    assert models.layer_names(models.build(config), (4, 4, 1)) == tuple(f"conv{i}" for i in range(1, 12))
