"""Runs trained together: each member equals the run alone, and members do not touch each other."""

import dataclasses
import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray
from scipy import stats

from csbp_jax import data, learner
from csbp_jax.config import ConfigError, replaced
from csbp_jax.experiment import chunk, fields
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.runtime import preemption, sharding
from csbp_jax.training import build, compiled, compiled_group
from csbp_jax.training.compiled_group import CompiledGroup, member_mesh
from csbp_jax.training.lifts import Together
from tests.support.inverted import Inverted
from tests.support.small_runs import DIGITS, SMALL, of_grid

TINY = dataclasses.replace(SMALL, model=dataclasses.replace(SMALL.model, features=(8,)))
CONV = dataclasses.replace(
    SMALL,
    batch_size=16,
    model=dataclasses.replace(DIGITS.model, features=(2, 2), time_steps=2),
    chaos=dataclasses.replace(SMALL.chaos, taps=("conv1.membrane",)),
)


def prepared(config=SMALL):
    splits = data.load(config)
    return build.resolve(config, splits), splits


def compile_members(configs, splits, data_parallel=1):
    return CompiledGroup(configs[0], splits, member_mesh(data_parallel), varying=fields.varying(configs))


def together_and_alone(config, splits, configs, steps, data_parallel=2, scanned=False):
    """Steps in float64 of eight members on eight devices, and of each alone: ``(losses, params, params alone)``.

    The losses are pairs ``[steps, K]``; scanned: the steps are one call.
    """
    together = compile_members(configs, splits, data_parallel)
    keys = jnp.stack([jax.random.key(c.seed) for c in configs])
    cast = jax.jit(to_default_precision)  # leaf by leaf, each shape would be a program of its own
    states = cast(together.init(keys, together.hparams(configs)))
    batches = list(itertools.islice(data.train_batches(splits["train"], config.batch_size, seed=0), steps))
    for batch in batches:
        # The transform makes float32 of pictures; as float64 they stay.
        batch["x"] = batch["x"].astype(np.float64) / 255
    if scanned:
        x = jnp.concatenate([batch["x"] for batch in batches])
        rows = np.arange(len(x), dtype=np.int32).reshape(steps, -1)
        order = {"rows": np.stack([rows] * 8), "y": np.stack([[batch["y"] for batch in batches]] * 8)}
        states, metrics = together.epoch(states, order, x)
        losses = np.swapaxes(metrics["loss"], 0, 1)
    else:
        losses = []
        for batch in batches:
            stacked = together.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
            states, metrics = jax.block_until_ready(together.step(states, jnp.zeros(8, int), stacked))
            losses.append(metrics["loss"])

    # Seed and strength are in the state; only what is traced for members alone is another program.
    mesh, static = sharding.data_parallel(1), [(c.model.neuron, c.optimizer, c.loss) for c in configs]
    steps_per_epoch = together.steps_per_epoch
    runs = [compiled.compile_run(c, splits["train"], steps_per_epoch, mesh=mesh) for c in configs]
    step = {of_run: jax.jit(run.pure_train_step) for of_run, run in zip(static, runs, strict=True)}
    # Weights are drawn without neuron and loss, so that a program serves all with the same stages of the optimiser.
    stages = [bool(c.optimizer.weight_decay) for c in configs]
    init = {of_run: jax.jit(run.pure_init) for of_run, run in zip(stages, runs, strict=True)}
    hparams = [learner.hyperparameters(c, steps_per_epoch) for c in configs]
    singles = [cast(init[of_run](key, h)) for of_run, key, h in zip(stages, keys, hparams, strict=True)]
    losses_alone = []
    for batch in batches:
        stepped = [step[of_run](state, batch) for of_run, state in zip(static, singles, strict=True)]
        singles = [state for state, _ in stepped]
        losses_alone.append([measured["loss"] for _, measured in stepped])
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s.params for s in singles])
    return list(zip(losses, losses_alone, strict=True)), states.params, alone


def assert_equal(losses, params, wanted):
    # JAX before 0.8 draws initial weights, which are float32, that differ in their last bit.
    tolerance, least = (1e-10, 1e-12) if jax.__version_info__ >= (0, 8) else (1e-6, 1e-6)
    for of_members, alone in losses:
        np.testing.assert_allclose(of_members, alone, rtol=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=least), params, wanted)


AXES = {
    "seed": [0, 1],
    "chaos.z0": [0.0, 30.0],
    "model.neuron.surrogate_param optimizer.weight_decay loss.smoothing": [(1.0, 0.0, 0.0), (1.5, 0.01, 0.2)],
}


@pytest.mark.full
@pytest.mark.parametrize("scanned", [pytest.param(False, marks=pytest.mark.full), True])
@pytest.mark.parametrize("data_parallel", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_member_equals_the_run_alone(x64, data_parallel, scanned):
    """Over 15 steps, with the batch on one device or on two; decay and smoothing are off in some members."""
    config, splits = prepared(replaced(replaced(SMALL, "batch_size", 64), "optimizer.momentum", 0.9))
    assert_equal(*together_and_alone(config, splits, of_grid(config, AXES), 15, data_parallel, scanned))


@pytest.mark.full
@pytest.mark.skipif(compiled_group.SHARDS_NO_CONVOLUTIONS, reason="JAX before 0.8 trains one such member a device")
def test_a_convolutional_member_equals_the_run_alone_at_any_strength(x64):
    config, splits = prepared(CONV)
    axes = {"seed": [0, 1], "chaos.z0": [0.0, 1.0, 30.0, 1000.0]}
    assert_equal(*together_and_alone(config, splits, of_grid(config, axes), 5))


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "steps"), [(320, 45), (64, 285)])
def test_a_complete_calm_run_equals_the_run_alone(x64, batch_size, steps):
    """Without a term, where differences of rounding do not grow, over all 15 epochs."""
    config, splits = prepared(dataclasses.replace(TINY, batch_size=batch_size, epochs=15))
    config = replaced(replaced(config, "chaos.z0", (0.0,)), "optimizer.lr", 0.05 * batch_size / 32)
    assert config.epochs * (len(splits["train"]) // config.batch_size) == steps
    losses, *params = together_and_alone(config, splits, of_grid(config, {"seed": range(8)}), steps)
    assert_equal(losses, *params)
    assert np.all(losses[-1][0] < losses[0][0] / 2)


def readout(metrics):
    """The mean task loss of the last 20 steps of each run."""
    return np.mean([m["task_loss"] for m in metrics[-20:]], axis=0)


@pytest.mark.slow
def test_chaotic_members_and_runs_alone_have_the_same_distribution():
    """Where rounding grows to the spread over seeds, of 32 members and of runs alone on 32 other seeds."""
    chaos = dataclasses.replace(TINY.chaos, z0=(300.0,), beta=1.0)
    constant = dataclasses.replace(TINY.optimizer, schedule="constant")
    config, splits = prepared(dataclasses.replace(TINY, batch_size=64, epochs=10, chaos=chaos, optimizer=constant))
    batches = list(itertools.islice(data.train_batches(splits["train"], 64, seed=0), 150))
    runs = compile_members([config], splits)

    def trained(config):
        configs = of_grid(config, {"seed": range(32)})
        states, measured = runs.init(jnp.stack([jax.random.key(c.seed) for c in configs]), runs.hparams(configs)), []
        for batch in batches:
            stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
            states, metrics = runs.step(states, jnp.zeros(32, int), stacked)
            measured.append(jax.device_get(metrics))
        return readout(measured)

    single = compiled.compile_run(config, splits["train"], runs.steps_per_epoch)
    init, step = jax.jit(single.pure_init), jax.jit(single.pure_train_step)

    def alone(seed):
        state, measured = init(jax.random.key(seed)), []
        for batch in batches:
            state, metrics = step(state, batch)
            measured.append(metrics)
        return readout(jax.device_get(measured))

    of_members = trained(config)
    references = np.array([alone(seed) for seed in range(4)])
    assert np.mean(np.abs(references - of_members[:4])) > np.std(of_members) / 4
    wanted = np.array([alone(seed) for seed in range(32, 64)])
    assert stats.ks_2samp(of_members, wanted).pvalue > 1e-3
    # The readout distinguishes other strengths.
    assert stats.ks_2samp(trained(replaced(config, "chaos.z0", (100.0,))), wanted).pvalue < 1e-6


def test_members_do_not_communicate():
    config, splits = prepared()
    configs = of_grid(config, {"seed": range(8)})
    runs = compile_members(configs, splits)
    keys = jnp.stack([jax.random.key(c.seed) for c in configs])
    on_its_device = NamedSharding(runs.mesh, P("member"))
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_its_device),
        jax.eval_shape(runs.init, keys, runs.hparams(configs)),
    )
    batch = next(data.train_batches(splits["train"], 64, seed=0))
    stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
    lowered = runs.step.lower(states, jnp.zeros(8, int), stacked)
    text = lowered.compile().as_text() or ""
    assert text
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text)
    # One member per device: products of matrices, not of batches of one.
    products = re.findall(r"dot_general.*", lowered.as_text())
    assert products and not any("batching_dims" in product for product in products)


@pytest.mark.parametrize("resident", [True, False])
def test_a_stop_is_honoured_before_an_epoch_and_before_an_evaluation(resident):
    config, splits = prepared()
    runs = compile_members([config], splits)
    runs.resident = runs.resident if resident else None
    runs.step = runs.epoch = None
    no_state: Any = None
    with preemption.on_signals() as stop, stop.deferred():
        stop.request(42)
        with pytest.raises(preemption.Stopped):
            chunk.train(Together(runs, [config] * jax.device_count()))
        with pytest.raises(preemption.Stopped):
            runs.evaluate(no_state, [0], splits["test"], stop.raise_if_requested)


def test_evaluation_does_not_augment_a_source_that_draws_numbers(monkeypatch):
    config, splits = prepared()
    inverted = Inverted(splits["test"])
    runs = compile_members([config], splits)
    runs.resident = None
    sums = lambda states, keys, batch: {"count": 1, "correct": 0, "loss": batch["x"].sum()}  # noqa: E731
    monkeypatch.setattr(runs, "eval_step", sums)
    plain, drawn = (runs.evaluate(None, [0], source) for source in (splits["test"], inverted))
    assert drawn == plain


@pytest.mark.full
def test_convolutional_members_compile_in_the_form_for_tpus(monkeypatch):
    monkeypatch.setattr(compiled_group, "compile_run", functools.partial(compiled.compile_run, platform="tpu"))
    config, splits = prepared(CONV)
    configs = of_grid(config, {"seed": range(8)})
    runs = compile_members(configs, splits)
    keys, hparams = jnp.stack([jax.random.key(c.seed) for c in configs]), runs.hparams(configs)
    states = jax.eval_shape(runs.init, keys, hparams)
    batch = next(data.train_batches(splits["train"], config.batch_size, seed=0))
    stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
    assert runs.step.lower(states, jnp.zeros(8, int), stacked).compile()


@functools.cache
def of_two_convolutional_members(platform, devices=1):
    """Two members a device, compiled for a platform, with their states and a batch."""
    config, splits = prepared(CONV)
    configs = of_grid(config, {"chaos.z0": [3.0 * number for number in range(2 * devices)]})
    runs = CompiledGroup(
        configs[0], splits, member_mesh(1, jax.devices()[:devices]), varying=fields.varying(configs), platform=platform
    )
    keys = jnp.stack([jax.random.key(config.seed)] * len(configs))
    states = runs.init(keys, runs.hparams(configs))
    batch = next(data.train_batches(splits["train"], config.batch_size, seed=0))
    stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
    return runs, configs, (states, jnp.zeros(len(configs), int), stacked)


@pytest.mark.parametrize(("platform", "of_xla"), [("gpu", "cuda"), pytest.param("tpu", "tpu", marks=pytest.mark.full)])
def test_convolutional_members_on_a_lone_accelerator_need_no_shard_map(platform, of_xla):
    """That of JAX 0.7.2, which Colab has, cannot batch the gradients of convolutions."""
    runs, _, arguments = of_two_convolutional_members(platform)
    traced = runs.step.trace(*arguments)
    assert "conv_general_dilated" in str(traced.jaxpr) and "shard_map" not in str(traced.jaxpr)
    assert "convolution" in traced.lower(lowering_platforms=(of_xla,)).as_text()


@pytest.mark.full
def test_members_train_alike_with_and_without_a_mesh():
    losses: list[NDArray[Any]] = []
    for platform, sharded in (("gpu", False), ("cpu", not compiled_group.SHARDS_NO_CONVOLUTIONS)):
        runs, _, (states, streams, batch) = of_two_convolutional_members(platform)
        assert runs.sharded == sharded
        copy = jax.tree.map(jnp.copy, states)  # as a step takes the states' memory
        for _ in range(3):
            copy, metrics = runs.step(copy, streams, batch)
        losses.append(np.asarray(metrics["loss"]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][0] != losses[0][1]


@pytest.mark.full
def test_a_sweep_of_64_on_eight_devices_is_the_sweep_on_one_with_as_many_members_a_device(x64):
    """An epoch of digits in float64, of a convolutional network at four strengths."""
    config, splits = prepared(replaced(CONV, "batch_size", 64))
    configs = of_grid(config, {"chaos.z0": [0.0, 3.0, 10.0, 30.0], "seed": range(16)})
    batches = list(itertools.islice(data.train_batches(splits["train"], 64, seed=0), len(splits["train"]) // 64))
    cast = jax.jit(to_default_precision)

    def losses(runs: CompiledGroup, configs: Any) -> NDArray[np.float64]:
        """Losses of each step, ``[steps, K]``."""
        keys = jnp.stack([jax.random.key(c.seed) for c in configs])
        states, of_steps = cast(runs.init(keys, runs.hparams(configs))), []
        for batch in batches:
            # The transform makes float32 of pictures; as float64 they stay.
            stacked = {"x": batch["x"][None].astype(np.float64) / 255, "y": batch["y"][None]}
            streams = jnp.zeros(len(configs), int)
            states, metrics = runs.step(states, streams, runs.shard_batch(stacked, axis=1))
            of_steps.append(metrics["loss"])
        return np.stack(jax.device_get(of_steps))

    one, eight = (
        CompiledGroup(configs[0], splits, member_mesh(1, jax.devices()[:devices]), varying=fields.varying(configs))
        for devices in (1, 8)
    )
    parts = [losses(one, configs[first : first + 8]) for first in range(0, 64, 8)]
    together = losses(eight, configs)
    assert together.dtype == np.float64 and len(together) == 19
    np.testing.assert_allclose(together, np.concatenate(parts, axis=1), rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not compiled_group.SHARDS_NO_CONVOLUTIONS, reason="of JAX before 0.8")
def test_an_old_jax_says_that_it_cannot_train_convolutional_members_on_several_devices():
    runs, _, arguments = of_two_convolutional_members("tpu", devices=2)
    with pytest.raises(ConfigError, match=r"install JAX 0.8 or newer, or train one on each: --chunk 2 \(chunk=2\)"):
        runs.step.trace(*arguments)


def test_the_seeds_that_train_at_once_share_the_readers_and_close_them(monkeypatch):
    class Stopped(Exception):
        """Raised in place of the first step."""

    config, splits = prepared(CONV.replace(**{"epochs": 1, "batch_size": 320, "data.workers": 6}))
    configs = of_grid(config, {"seed": range(4), "chaos.z0": [0.0, 1.0]})
    shares: list[data.Readers] = []
    streams: list[Any] = []
    train_batches = data.train_batches

    def recorded(*arguments, readers, **options):
        shares.append(readers)
        streams.append(batch for batch in train_batches(*arguments, **options))
        return streams[-1]

    def step(states, of_member, batch):
        raise Stopped

    monkeypatch.setattr(data, "train_batches", recorded)
    runs = compile_members(configs, splits)
    runs.step = step
    with pytest.raises(Stopped):
        chunk.train(Together(runs, configs))
    assert shares == [data.Readers(workers=2)] * 4
    assert [stream.gi_frame for stream in streams] == [None] * 4  # closed
