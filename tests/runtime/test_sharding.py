"""Layouts, gradient accumulation, ghost batch norm and remat: each changes what it should, and no number."""

import dataclasses
import functools
import itertools
import os
import re
import subprocess
import sys
import types
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from csbp_jax import configs, data, learner, losses, models
from csbp_jax.config import Chaos, Config, ConfigError, Model, Optimizer, check
from csbp_jax.data.source import ArraySource
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.learner import optimizer
from csbp_jax.models import base, layers, norms
from csbp_jax.runtime import sharding
from csbp_jax.runtime.sharding import shardings
from csbp_jax.training import build, compiled
from csbp_jax.training.checkpoint import checkpoint
from tests.support import processes
from tests.support.rows import full_but

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    batch_size=16,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(16, 8), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, anneal="step", taps=("fc1.membrane",)),
)
SEQUENCES = SMALL.replace(**{
    "data.name": "sequences",
    "model.name": "recurrent",
    "model.input_shape": (3,),
    "model.time_steps": 7,
    "chaos.taps": ("rec1.membrane",),
})  # fmt: skip
SPLITS = data.load(SMALL)


def sequences():
    """160 sequences of 1 to 7 time steps, in any order."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=160)
    return ArraySource([rng.normal(k, 2, (rng.integers(1, 8), 3)).astype(np.float32) for k in y], y, 10)


TRAIN = {"digits": SPLITS["train"], "sequences": sequences()}


IN_SLICES = (0, 1, 1, 0, 0, 1, 0, 1)
"""A slice for each of the 8 devices."""


def over(devices):
    """The mesh of a number of devices, or of 8 devices, given the slice of each."""
    if isinstance(devices, tuple):
        return sharding.data_mesh(jax.devices(), devices)
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


@functools.cache
def compiled_run(config, devices):
    """One object for all tests, so that its programs are compiled once."""
    return compiled.compile_run(config, TRAIN[config.data.name], 78, mesh=over(devices))


# Leaf by leaf, each shape would be a program of its own.
in_default_precision = jax.jit(to_default_precision)


def begin(layout, devices, config=SMALL, **changes):
    """A compiled run and its first state, in float64 if that is enabled."""
    run = compiled_run(dataclasses.replace(config, layout=layout, **changes), devices)
    state = run.init(jax.random.key(0))
    return run, jax.device_put(in_default_precision(state), shardings(layout, state, over(devices)))


def go_on(run, state, steps, start=0):
    batches = data.train_batches(run.source, SMALL.batch_size, 0, start)
    for batch in itertools.islice(batches, steps):
        state, metrics = run.train_step(state, run.shard_batch(batch))
    return state, metrics


def plain(tree):
    return jax.tree.map(np.asarray, (tree.params, tree.batch_stats, tree.opt_state))


@functools.cache
def twenty_steps(config):
    """On one device."""
    run, state = begin("data", 1, config)
    state, metrics = go_on(run, state, 20)
    return plain(state), jax.tree.map(float, metrics)


@pytest.mark.parametrize(
    "layout, devices, config",
    [
        *[
            pytest.param(layout, devices, SMALL, marks=pytest.mark.slow)
            for layout in ("data", "zero1")
            for devices in (8, IN_SLICES)
        ],
        pytest.param("fsdp", 8, SMALL, marks=pytest.mark.full),
        ("fsdp", IN_SLICES, SMALL),
        pytest.param("data", 8, SEQUENCES, marks=pytest.mark.full),
        pytest.param("fsdp", 8, SEQUENCES, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_in_any_layout_are_one(layout, devices, config, x64):
    run, state = begin(layout, devices, config)
    state, metrics = go_on(run, state, 20)
    found = plain(state), jax.tree.map(float, metrics)
    chex.assert_trees_all_close(found, twenty_steps(config), rtol=1e-10, atol=1e-10)


KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast"


def program_text(run, state):
    batch = run.shard_batch(next(data.train_batches(SPLITS["train"], SMALL.batch_size, 0)))
    return run.train_step.lower(state, batch).compile().as_text()


def collectives(run, state):
    return set(re.findall(rf"= .*? ({KINDS})(?:-start)?\(", program_text(run, state)))


@pytest.mark.parametrize(
    "layout, wanted, shares",
    [
        pytest.param("data", {"all-reduce"}, {"params": 1, "opt_state": 1}, marks=pytest.mark.slow),
        pytest.param("zero1", {"all-reduce", "all-gather"}, {"params": 1, "opt_state": 1 / 4}, marks=pytest.mark.slow),
        ("fsdp", {"all-reduce", "all-gather"}, {"params": 1 / 4, "opt_state": 1 / 4}),
    ],
)
def test_a_step_has_only_the_collectives_of_its_layout(layout, wanted, shares):
    taps = dataclasses.replace(SMALL.chaos, taps=("conv1.membrane",))
    run, state = begin(layout, 8, model=dataclasses.replace(DIGITS.model, features=(4, 8), time_steps=2), chaos=taps)
    assert collectives(run, state) == wanted
    for _ in range(2):  # born so, and so after a step
        for field, share in shares.items():
            leaves = jax.tree.leaves(getattr(state, field))
            here = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
            assert here <= share * sum(leaf.nbytes for leaf in leaves)
            assert (share == 1) == all(leaf.is_fully_replicated for leaf in leaves)
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves((state.batch_stats, state.hparams)))
        state, _ = go_on(run, state, 1)


def groups(text):
    """The devices of each group, as ``mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`` names them."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text)}
    numbers = np.arange(8)
    if order := re.search(r"device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\)", text):
        shape, axes = ([int(word) for word in words.split(",")] for words in order.groups())
        numbers = numbers.reshape(shape).transpose(axes)
    among = [list(sizes).index(name) for name in re.findall(r"'(\w+)'[,}]", text.partition("{")[2])]
    rows = np.moveaxis(numbers.reshape(list(sizes.values())), among, range(-len(among), 0))
    return {tuple(sorted(row.ravel())) for row in rows.reshape(-1, *rows.shape[-len(among) :])}


def test_arrays_are_gathered_within_a_slice_and_only_sums_pass_between_slices(x64):
    run, state = begin("fsdp", IN_SLICES)
    assert run.mesh.shape == {"slice": 2, "data": 4}
    assert [[IN_SLICES[device.id] for device in row] for row in run.mesh.devices] == [[0] * 4, [1] * 4]
    largest = max(jax.tree.leaves(state.params), key=lambda leaf: leaf.size)
    assert largest.addressable_shards[0].data.size == largest.size / 4  # a copy in each slice
    found: dict[str, set[tuple[int, ...]]] = {"all-gather": set(), "all-reduce": set()}
    for line in program_text(run, state).splitlines():
        if match := re.search(rf"= .*? ({KINDS})(?:-start)?\(.*replica_groups=(.*?\{{[^}}]*\}})", line):
            found[match[1]] |= groups(match[2])
    assert found == {"all-gather": {(0, 1, 2, 3), (4, 5, 6, 7)}, "all-reduce": {tuple(range(8))}}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data", "fsdp"])
def test_tpus_sum_gradients_within_a_slice_before_they_do_so_between_slices(layout, tpu_compiler):
    """In the text of the compiled program: all collectives are within a slice; a send passes their sums on."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f".:{tpu_compiler}",
        "TPU_LIBRARY_PATH": str(tpu_compiler / "libtpu" / "libtpu.so"),
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    line = [sys.executable, "tests/support/two_slices.py", layout]
    done = subprocess.run(line, cwd=processes.ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    kinds = [match[1] for line in lines if (match := re.search(rf"= .*? ({KINDS}|send|recv)\(", line))]
    assert set(re.findall(r"replica_groups=(\S+),", done.stdout)) == {"{{0,1,2,3}}"}
    # Of a gradient: scattered sums within the slice, which are sent, and gathered within the slice.
    scattered = kinds.index("reduce-scatter")
    assert "send" in kinds[scattered:] and "all-gather" in kinds[scattered:]
    assert all("is_host_transfer=true" in line for line in lines if " send(" in line)


def test_only_tpus_have_slices():
    """GPUs of several hosts have a ``slice_index`` too."""
    for platform, slices in (("tpu", [0, 0, 1, 1]), ("gpu", [0] * 4)):
        devices: Any = [types.SimpleNamespace(platform=platform, slice_index=number // 2) for number in range(4)]
        assert sharding.slices_of(devices) == slices
    assert sharding.slices_of(jax.devices()) == [0] * 8


@pytest.mark.parametrize("layout", ["zero1", "fsdp"])
def test_averages_are_laid_out_as_what_they_average(layout):
    run = compiled_run(dataclasses.replace(SMALL, optimizer=dataclasses.replace(SMALL.optimizer, ema=0.9)), 8)
    placed = shardings(layout, jax.eval_shape(run.pure_init, jax.random.key(0)), run.mesh)
    assert placed.ema == {"params": placed.params, "batch_stats": placed.batch_stats}
    assert (layout == "zero1") == all(leaf.is_fully_replicated for leaf in jax.tree.leaves(placed.params))


def test_slices_of_unequal_size_are_refused():
    with pytest.raises(ConfigError, match="the TPU slices have 3, 5 devices"):
        sharding.data_mesh(jax.devices(), (0, 0, 0, 1, 1, 1, 1, 1))


def test_a_process_reads_the_rows_of_its_devices_wherever_they_are_in_the_mesh():
    """The first four devices, as of the first of two processes; JAX gives each device its rows in ascending order."""
    mesh = Mesh(np.array(jax.devices())[[0, 7, 1, 6, 5, 3, 4, 2]], ("data",))
    rows = sharding.rows_of(jax.devices()[:4], mesh, 16)
    assert rows.tolist() == [0, 1, 4, 5, 10, 11, 14, 15]
    batch = sharding.shard_batch(np.arange(16), mesh)
    shards = [shard for shard in batch.addressable_shards if shard.device.id < 4]
    in_order = sorted(shards, key=lambda shard: shard.index[0].start or 0)
    assert np.concatenate([shard.data for shard in in_order]).tolist() == rows.tolist()


@pytest.mark.parametrize(
    "devices, layout",
    [
        pytest.param(4, "fsdp", marks=pytest.mark.slow),
        pytest.param(4, "data", marks=pytest.mark.slow),
        (1, "data"),
    ],
)
def test_a_run_saved_on_eight_devices_resumes_on_others(devices, layout, tmp_path, x64):
    run, state = begin("fsdp", IN_SLICES)
    state, _ = go_on(run, state, 3)
    with checkpoint.open_folder(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    other, like = begin(layout, devices)
    with checkpoint.open_folder(tmp_path) as checkpoints:
        found = checkpoints.restore(like)
    chex.assert_trees_all_equal(plain(found), plain(state))
    assert jax.tree.map(lambda a: a.sharding, found) == jax.tree.map(lambda a: a.sharding, like)
    (mine, _), (theirs, _) = go_on(other, found, 20, 3), go_on(run, state, 20, 3)
    chex.assert_trees_all_close(plain(mine), plain(theirs), rtol=1e-10, atol=1e-10)


def test_batches_that_cannot_be_split_are_refused():
    for changes, reported in (
        ({"batch_size": 12}, "batch_size: 12 is not possible with devices of a batch 8"),
        (
            {"optimizer": dataclasses.replace(SMALL.optimizer, accumulate=4)},
            "batch_size: 16 .* 8, optimizer.accumulate 4; allowed is multiples",
        ),
        (
            {"optimizer": dataclasses.replace(SMALL.optimizer, accumulate=3)},
            r"batch_size: 16 .* optimizer.accumulate 3",
        ),
        ({"model": dataclasses.replace(SMALL.model, norm_groups=5)}, r"batch_size: 16 .* model.norm_groups 5"),
        (
            {
                "optimizer": dataclasses.replace(SMALL.optimizer, accumulate=2),
                "chaos": dataclasses.replace(SMALL.chaos, reduce="sum"),
            },
            "optimizer.accumulate: 2 is not possible with chaos.reduce sum",
        ),
    ):
        with pytest.raises(ConfigError, match=reported):
            build.resolve(check(dataclasses.replace(SMALL, **changes)), SPLITS)


class NoNorm(base.Network):
    """A spiking layer without a norm."""

    def body(self, x, train, run):
        x = run(layers.Dense(9, Scale, self.time_steps, name="fc1"), x)
        return run(layers.Linear(3, name="readout"), x)


class Scale(nn.Module):
    """In a norm's place."""

    def __call__(self, x, train):
        return 3 * x


def after_steps(model=None, count=3, norm_groups=1, order=range(16), **changes):
    """What a state holds after some steps of 16 random examples each, and the last step's metrics."""
    config = Config(
        model=Model(
            name="dense",
            input_shape=(6,),
            classes=3,
            time_steps=3,
            features=(7, 5),
            norm_groups=norm_groups,
        ),
        chaos=Chaos(z0=(3.0,), taps=("fc1.membrane",), scale=1.0),
        optimizer=Optimizer(name="sgd", schedule="constant", lr=0.1, **changes),
    )
    tx = optimizer.build(config.optimizer, 1, 1)
    model = model or models.build(config.model)
    init, train_step, _ = learner.make(model, tx, losses.rate_cross_entropy, config, 1)
    state, random = jax.jit(lambda key: to_default_precision(init(key)))(jax.random.key(0)), np.random.default_rng(0)
    for _ in range(count):
        x, y = random.normal(size=(16, 1, 6)) * 2, random.integers(0, 3, 16)
        batch = {"x": jnp.asarray(x[np.asarray(order)]), "y": jnp.asarray(y[np.asarray(order)])}
        state, metrics = jax.jit(train_step)(state, batch)
    return plain(state), jax.tree.map(float, metrics)


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_batch_in_parts_is_the_batch_where_there_is_no_norm(parts, x64):
    model = NoNorm(3, 3)
    whole, in_parts = after_steps(model), after_steps(model, accumulate=parts)
    chex.assert_trees_all_close(whole, in_parts, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_with_a_norm_each_part_has_its_own_statistics_as_a_group_would(x64):
    """Parts are every second example, groups are halves: the same where the examples are put in that order."""
    whole, halves = after_steps(count=1), after_steps(count=1, accumulate=2)
    assert abs(whole[1]["task_loss"] - halves[1]["task_loss"]) > 1e-4
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(whole[0][0], halves[0][0], rtol=1e-6)
    order = np.concatenate([np.arange(0, 16, 2), np.arange(1, 16, 2)])
    grouped = after_steps(count=1, norm_groups=2, order=order)
    chex.assert_trees_all_close(halves[0][0], grouped[0][0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", full_but(["tebn"], ["batch", "tebn", "bntt"]))
def test_ghost_statistics_are_those_of_each_group_alone(name, x64):
    x = jnp.asarray(np.random.default_rng(1).normal(2, 3, (8, 3, 4, 5)))
    together, alone = norms.make(name, 3, groups=4)(), norms.make(name, 3)()
    variables = to_default_precision(jax.jit(lambda x: together.init(jax.random.key(0), x, False))(x))
    of_groups, of_one = (
        jax.jit(lambda x, n=n: n.apply(variables, x, True, mutable=["batch_stats"])) for n in (together, alone)
    )
    y, moved = of_groups(x)
    each = [of_one(group) for group in jnp.split(x, 4)]
    np.testing.assert_allclose(y, jnp.concatenate([out for out, _ in each]), rtol=1e-12, atol=1e-12)
    means = jax.tree.map(lambda *values: sum(values) / 4, *[stats for _, stats in each])
    chex.assert_trees_all_close(moved, means, rtol=1e-12)
    whole, _ = of_one(x)
    assert np.abs(whole - y).max() > 0.1


@pytest.mark.slow
def test_ghost_statistics_do_not_depend_on_devices_and_need_no_more_of_them(x64):
    ghost = dataclasses.replace(SMALL.model, norm_groups=8)
    (one, state_one), (many, state_many) = begin("data", 1, model=ghost), begin("data", 8, model=ghost)
    plainly, state = begin("data", 8)
    batch = many.shard_batch(next(data.train_batches(SPLITS["train"], SMALL.batch_size, 0)))
    count = [
        len(re.findall(r"= .*? all-reduce(?:-start)?\(", run.train_step.lower(s, batch).compile().as_text()))
        for run, s in ((many, state_many), (plainly, state))
    ]
    assert count[0] <= count[1]
    chex.assert_trees_all_close(
        plain(go_on(one, state_one, 5)[0]), plain(go_on(many, state_many, 5)[0]), rtol=1e-10, atol=1e-10
    )


def kept_and_gradient(model, taps):
    """Bytes that wait for the reverse pass, and the gradient."""
    config = Config(model=model, chaos=Chaos(z0=(1.0,), taps=taps))
    net, tx = models.build(config.model), optimizer.build(config.optimizer, 1, 1)
    init, _, _ = learner.make(net, tx, losses.rate_cross_entropy, config, 1)
    state, random = jax.jit(lambda key: to_default_precision(init(key)))(jax.random.key(0)), np.random.default_rng(0)
    x, y = jnp.asarray(random.normal(size=(32, 1, *model.input_shape))), jnp.arange(32) % 10
    recipe = learner.Recipe(net, tx, losses.rate_cross_entropy, config, 1)
    gradients = jax.jit(functools.partial(learner.gradients, recipe))(state, {"x": x, "y": y})

    def output(params):
        return net.apply({"params": params, "batch_stats": state.batch_stats}, x, True, mutable=["batch_stats"])[0][0]

    kept = jax.eval_shape(lambda params: jax.vjp(output, params)[1], state.params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)), gradients


@pytest.mark.full
@pytest.mark.parametrize(("option", "at_most"), [("remat", 0.4), ("remat_neurons", 0.6)])
@pytest.mark.parametrize("learn", ["none", pytest.param("channel", marks=pytest.mark.slow)])
def test_remat_keeps_less_for_the_reverse_pass_and_gives_the_same_gradient(learn, option, at_most, x64):
    """Not the compiled program's own temporaries: XLA on CPU computes nothing twice, and so undoes it there."""
    model = Model(name="dense", input_shape=(16,), time_steps=16, features=(16,) * 3)
    model = dataclasses.replace(model, neuron=dataclasses.replace(model.neuron, learn=learn, decay=0.5))
    kept, gradients = kept_and_gradient(model, ("fc2.membrane",))
    remat: dict[str, Any] = {option: True}
    less, again = kept_and_gradient(dataclasses.replace(model, **remat), ("fc2.membrane",))
    chex.assert_trees_all_close(gradients, again, rtol=1e-10, atol=1e-12)
    assert less < at_most * kept
