"""Sequences of unequal length: whatever stands in the padding, nothing of an example changes."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from csbp_jax import controls, learner, losses, models, neurons
from csbp_jax.config import Config, ConfigError
from csbp_jax.evaluation.synaptic_ops import count_synops
from csbp_jax.instruments.training_map import to_default_precision
from csbp_jax.learner import measures, optimizer
from csbp_jax.learner.step import loss_and_gradient
from csbp_jax.models import norms
from csbp_jax.neurons.psn import Sliding
from csbp_jax.neurons.recurrent import Feedback, until_end
from csbp_jax.surrogate import triangle

B, T, PADDED, C = 4, 3, 5, 6
LENGTHS = np.array([3, 1, 2, 3], np.int32)
close = functools.partial(assert_trees_all_close, rtol=1e-12, atol=1e-12)

SMALL = Config().replace(**{
    "model.name": "dense",
    "model.input_shape": (7,),
    "model.features": (6, 4),
    "model.classes": C,
    "model.time_steps": PADDED,
    "model.neuron.decay": 0.75,
    "model.neuron.threshold": 0.5,
    "chaos.scale": 1.0,
    "chaos.taps": ("fc1.dense", "fc1.membrane", "fc2.norm", "fc2.membrane_pre"),
    "chaos.z0": (3.0, 2.0, 1.0, 4.0),
    "loss.firing": 0.5,
    "loss.firing_low": 0.4,
    "optimizer.schedule": "constant",
})  # fmt: skip
IMAGES = {"model.input_shape": (8, 8, 2), "model.features": None, "chaos.z0": 2.0}

# Each has a neuron, a norm, a loss and a term of its own, and something beside.
TRAININGS: dict[str, dict[str, Any]] = {
    "batch, tet": {"loss.name": "tet", "loss.lam": 0.1, "loss.smoothing": 0.1},
    "tdbn, soft, drift, mse, sam": {
        "model.norm": "tdbn",
        "model.neuron.reset": "soft",
        "chaos.term": "drift",
        "chaos.reduce": "neuron",
        "loss.name": "mse",
        "optimizer.sam_radius": 0.05,
    },
    "tebn, plif, linear, steps": {
        "model.norm": "tebn",
        "model.neuron.learn": "channel",
        "chaos.term": "linear",
        "chaos.reduce": "sum",
        "loss.per": "step",
        "loss.smoothing": 0.1,
    },
    "bntt, cuba, labels": {"model.norm": "bntt", "model.neuron.name": "cuba", "loss.task": "labels"},
    "none, alif, labels of steps, sub-steps": {
        "model.norm": "none",
        "model.neuron.name": "alif",
        "loss.task": "labels",
        "loss.name": "tet",
        "loss.per": "step",
        "chaos.substeps": 2,
    },
    "groups, clif, values, microbatches": {
        "model.norm_groups": 2,
        "model.neuron.name": "clif",
        "loss.task": "value",
        "loss.name": "mse",
        "optimizer.accumulate": 2,
        "batch_size": B,
    },
    "bntt in groups, ilif, values of steps": {
        "model.norm": "bntt",
        "model.norm_groups": 2,
        "model.neuron.name": "ilif",
        "loss.task": "value",
        "loss.name": "huber",
        "loss.per": "step",
    },
    "sliding psn, remat": {
        "model.neuron.name": "sliding_psn",
        "model.remat": True,
        "loss.task": "value",
        "loss.name": "mae",
    },
    "recurrent": {"model.name": "recurrent", "chaos.taps": ("rec1.membrane", "rec2.norm"), "chaos.z0": (2.0, 1.0)},
    "delays": {"model.max_delay": 2, "model.norm": "tebn"},
    "convolutions": IMAGES | {
        "model.name": "small_conv",
        "model.features": (3, 4),
        "model.norm": "tebn",
        "chaos.taps": "conv2.membrane",
    },
    "attention": IMAGES | {
        "model.name": "spikformer_cifar",
        "model.embed": 16,
        "model.heads": 2,
        "model.depth": 1,
        "chaos.taps": "block1_attention.current",
    },
}  # fmt: skip


@functools.cache
def recipe(name, time_steps):
    config = SMALL.replace(**TRAININGS[name]).replace("model.time_steps", time_steps)
    tx = optimizer.build(config.optimizer, config.epochs, 1)
    return learner.Recipe(models.build(config.model), tx, losses.build(config.loss), config, 1)


def drawn(config, steps, rng):
    """A batch of sequences of ``steps`` time steps."""
    axes, loss = ((B, steps) if config.loss.per == "step" else (B,)), config.loss
    y = rng.integers(0, C, axes) if loss.task == "class" else rng.normal(size=(*axes, C))
    return {
        "x": rng.normal(0.5, 2, (B, steps, *config.model.input_shape)),
        "y": (y > 0).astype(float) if loss.task == "labels" else y,
        "mask": np.arange(B) != 1,
    }


def padded(batch, other, lengths):
    """The batch at the beginning of another, longer one."""
    long = {name: batch[name] if other[name].shape == batch[name].shape else other[name].copy() for name in batch}
    for name, rows in batch.items():
        if rows.shape != other[name].shape:
            long[name][:, : rows.shape[1]] = rows
    return long | {"lengths": np.asarray(lengths, np.int32)}


@functools.partial(jax.jit, static_argnums=0)
def measured(recipe, state, batch):
    """What training, evaluation and inspection give."""
    lengths = learner.lengths_of(batch)
    apply = functools.partial(recipe.model.apply, learner.weights_of(state), batch["x"], False, **lengths)
    layers = tuple(jax.eval_shape(apply)[1].rates)
    train = {name: rows for name, rows in batch.items() if name != "mask"}
    (loss, outcome), gradient = loss_and_gradient(recipe, state, train)
    logits, aux = apply(inspect=layers)
    of_steps = {"logits": logits, "spikes": aux.spikes}
    per_step = {"params": gradient, "batch_stats": outcome.batch_stats}
    return (
        {"loss": loss, "metrics": outcome.metrics, "sums": learner.eval_step(recipe, state, batch)},
        per_step,
        of_steps,
    )


def of_first_steps(leaf):
    return leaf[:T] if leaf.shape[:1] == (PADDED,) else leaf


FAST = ("batch, tet",)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.full) for n in TRAININGS])
def test_training_and_evaluation_are_those_without_padding(x64, name):
    long, short = recipe(name, PADDED), recipe(name, T)
    state = to_default_precision(jax.jit(learner.init, static_argnums=0)(long, jax.random.key(0)))
    rng = np.random.default_rng(0)
    batch = drawn(long.config, T, rng)
    cut = state.replace(params=jax.tree.map(of_first_steps, state.params))
    cut = cut.replace(batch_stats=jax.tree.map(of_first_steps, state.batch_stats))
    expected, expected_per_step, expected_of_steps = measured(short, cut, batch)
    assert expected["sums"]["count"] == B - 1 and expected["metrics"].get("firing_loss") > 0
    noise = drawn(long.config, PADDED, rng)
    zeros = {key: rows if key == "mask" else np.zeros_like(rows) for key, rows in noise.items()}
    for padding in (zeros, noise):
        results, per_step, of_steps = measured(long, state, padded(batch, padding, [T] * B))
        close(results, expected)
        close(jax.tree.map(lambda leaf: leaf[:, :T], of_steps), expected_of_steps)
        assert not any(spikes[:, T:].any() for spikes in of_steps["spikes"].values())
        close(jax.tree.map(of_first_steps, per_step), expected_per_step)
        before = {"params": jax.tree.map(jnp.zeros_like, state.params), "batch_stats": state.batch_stats}
        for leaf, old in zip(jax.tree.leaves(per_step), jax.tree.leaves(before), strict=True):
            assert leaf.shape[:1] != (PADDED,) or (leaf[T:] == old[T:]).all()


@pytest.mark.parametrize("name", [
    "batch, tet",
    *(pytest.param(n, marks=pytest.mark.full) for n in ("bntt in groups, ilif, values of steps", "convolutions")),
])  # fmt: skip
def test_sequences_of_unequal_length_do_not_depend_on_what_follows_them(x64, name):
    run, rng = recipe(name, PADDED), np.random.default_rng(1)
    state = to_default_precision(jax.jit(learner.init, static_argnums=0)(run, jax.random.key(0)))
    batches = [drawn(run.config, PADDED, rng) for _ in range(2)]
    for b, length in enumerate(LENGTHS):
        for key in ("x", "y")[: 1 + (run.config.loss.per == "step")]:
            batches[1][key][b, :length] = batches[0][key][b, :length]
    batches[1] |= {} if run.config.loss.per == "step" else {"y": batches[0]["y"]}
    results = [measured(run, state, batch | {"lengths": LENGTHS}) for batch in batches]
    for first, second in zip(results[0][:2], results[1][:2], strict=True):
        close(first, second)
    close(results[0][2]["spikes"], results[1][2]["spikes"])


LOSSES = {"class": ("rate", "tet", "mse"), "labels": ("rate", "tet"), "value": ("mse", "mae", "huber")}


def with_loss(task, name, per="example"):
    return SMALL.replace(**{"loss.task": task, "loss.name": name, "loss.per": per, "loss.lam": 0.1})


@pytest.mark.parametrize("per", ["example", "step"])
@pytest.mark.parametrize("task", LOSSES)
def test_a_loss_is_the_mean_of_those_of_sequences_alone(x64, task, per):
    configs, rng = [with_loss(task, name, per) for name in LOSSES[task]], np.random.default_rng(2)
    logits, y = rng.normal(size=(B, PADDED, C)), drawn(configs[0], PADDED, rng)["y"]
    where = np.array([True, True, False, True])

    @jax.jit
    def of_batch_and_alone(logits, y, lengths, where):
        """Each loss of all sequences, of those that count, and of each sequence by itself."""
        results = []
        for config in configs:
            loss = losses.build(config.loss)
            alone = []
            for b, length in enumerate(LENGTHS):
                targets = y[b : b + 1]
                alone.append(loss(logits[b : b + 1, :length], targets[:, :length] if per == "step" else targets))
            of_all, of_some = loss(logits, y, lengths=lengths), loss(logits, y, lengths=lengths, where=where)
            results.append((of_all, of_some, jnp.stack(alone)))
        return results

    for of_all, of_some, alone in jax.device_get(of_batch_and_alone(logits, y, LENGTHS, where)):
        close(of_all, alone.mean())
        close(of_some, alone[where].mean())


def test_losses_of_labels_and_values_equal_their_definitions(x64):
    rng = np.random.default_rng(3)
    o, y = rng.normal(size=(B, T, C)), rng.normal(size=(B, C))
    mean, labels = o.mean(1), (y > 0).astype(float)

    def binary(o, y):
        return np.log1p(np.exp(o)) - y * o

    size = np.abs(mean - y)
    expected = {
        ("labels", "rate"): binary(mean, labels).mean(),
        ("labels", "tet"): 0.9 * binary(o, labels[:, None]).mean() + 0.1 * np.mean((o - 1) ** 2),
        ("value", "mse"): np.mean(size**2),
        ("value", "mae"): np.mean(size),
        ("value", "huber"): np.where(size < 1, size**2 / 2, size - 0.5).mean(),
    }
    built = {(task, name): losses.build(with_loss(task, name).loss) for task, name in expected}

    @jax.jit
    def computed(o, y, labels):
        of_all = {key: loss(o, labels if key[0] == "labels" else y) for key, loss in built.items()}
        return of_all, built["value", "mse"](o[..., :1], y[:, 0])

    of_all, one_output = computed(o, y, labels)
    close(of_all, expected)
    close(one_output, np.mean((mean[:, 0] - y[:, 0]) ** 2))


@pytest.mark.parametrize("term", controls.TERMS)
def test_a_term_counts_the_elements_that_are_there(x64, term):
    h = np.random.default_rng(4).normal(0, 3, (B, PADDED, 2, C))
    there = np.arange(PADDED) < LENGTHS[:, None]

    @jax.jit
    def with_and_without_padding(h, where, of_those):
        results = []
        for reduce in ("mean", "sum", "neuron"):
            value = jax.value_and_grad(functools.partial(controls.TERMS[term], reduce=reduce, cut=(-4.0, 3.0)))
            results.append((value(h, where=where), value(of_those)))
        return results

    results = jax.device_get(with_and_without_padding(h, there[..., None, None], h[there]))
    for (value, gradient), (expected, of_those) in results:
        close((value, gradient[there]), (expected, of_those))
        assert not gradient[~there].any()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["batch", "tdbn", "tebn", "bntt"])
def test_norms_take_their_statistics_of_the_steps_that_are_there(x64, kind, groups):
    x = np.random.default_rng(5).normal(1, 2, (B, PADDED, 2, C))
    norm = norms.make(kind, PADDED + 1, groups=groups)()
    first = np.ones((B, PADDED + 1, 2, C))
    lengths = jnp.asarray(LENGTHS)
    apply = nn.apply(lambda norm, x: norms.over_time(norm, x, True, PADDED, lengths), norm, mutable=["batch_stats"])
    y, after = jax.device_get(jax.jit(lambda x: apply(norm.init(jax.random.key(0), first, False), x))(x))
    # The elements of each statistic, [groups, PADDED or 1, B, PADDED].
    members = np.repeat(np.eye(groups, dtype=bool), B // groups, axis=1)
    steps = np.eye(PADDED, dtype=bool) if kind == "bntt" else np.ones((1, PADDED), bool)
    sets = (np.arange(PADDED) < LENGTHS[:, None]) & members[:, None, :, None] & steps[None, :, None]
    statistics = np.full((2, *sets.shape[:2], C), np.nan)
    for index in np.ndindex(sets.shape[:2]):
        rows = x[sets[index]].reshape(-1, C)
        if len(rows):
            statistics[:, *index] = rows.mean(0), rows.var(0, ddof=1)
            expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + norm.epsilon)
            close(y[sets[index]].reshape(-1, C), expected)
    seen = sets.any((2, 3)).sum(0)[:, None]
    for name, old, new in zip(("mean", "var"), (0, 1), np.nansum(statistics, 1) / np.maximum(seen, 1), strict=True):
        rows = np.where(seen, 0.9 * old + 0.1 * new, old)
        close(
            after["batch_stats"][name],
            np.pad(rows, ((0, 1), (0, 0)), constant_values=old) if kind == "bntt" else rows[0],
        )


NEURONS: dict[str, Any] = {
    "lif": neurons.LIF(0.7, 0.5),
    "soft lif": neurons.LIF(0.7, 0.5, reset="soft"),
    "cuba": neurons.CuBaLIF(0.5, 0.7, 0.5),
    "alif": neurons.ALIF(0.7, 0.5),
    "adlif": neurons.AdLIF(0.7, 0.3, 0.9),
    "euler adlif": neurons.AdLIF(0.7, 0.3, 0.9, form="euler"),
    "clif": neurons.CLIF(0.7, 0.5),
    "ilif": neurons.ILIF(0.7, 0.5),
    "sliding psn": Sliding(jnp.array([0.3, 0.5, 1.0]), jnp.array(0.5), triangle()),
    "recurrent": Feedback(neurons.LIF(0.7, 0.5), jnp.asarray(np.random.default_rng(6).normal(size=(C, C)))),
}


@pytest.mark.parametrize("name", NEURONS)
def test_the_last_state_is_that_at_the_end_of_each_sequence(x64, name):
    neuron, x = NEURONS[name], np.random.default_rng(7).normal(0.3, 1, (B, PADDED, C))

    @jax.jit
    def of_batch_and_alone(x, lengths):
        alone = [neuron.trace(x[b : b + 1, :length]) for b, length in enumerate(LENGTHS)]
        return until_end(neuron.trace, lengths)(x), alone

    (spikes, state, u), alone = jax.device_get(of_batch_and_alone(x, LENGTHS))
    close(state, jax.tree.map(lambda *rows: np.concatenate(rows), *(end for _, end, _ in alone)))
    for b, length in enumerate(LENGTHS):
        close((spikes[b, :length], u[b, :length]), (alone[b][0][0], alone[b][2][0]))


sums_of = jax.jit(measures.sums, static_argnums=0)


def of_batches(parts):
    return {name: np.array([part[name] for part in parts], float) for name in parts[0]}


def test_measures_of_batches_add_up_to_those_of_all_examples(x64):
    rng = np.random.default_rng(8)
    for task, per in [(task, per) for task in ("class", "labels", "value") for per in ("example", "step")]:
        config = SMALL.replace(
            **{"loss.task": task, "loss.per": per, "loss.name": "mse" if task == "value" else "rate"}
        )
        parts, numbers = [], []
        for lengths in (LENGTHS, np.array([2, 5, 1, 4], np.int32)):
            batch, logits = drawn(config, PADDED, rng), rng.normal(size=(B, PADDED, C))
            where = batch["mask"]
            sums = sums_of(config, logits, batch["y"], lengths, where)
            parts.append({"count": where.sum(), **{name: np.asarray(value, float) for name, value in sums.items()}})
            for b in np.flatnonzero(where):
                o, y = logits[b, : lengths[b]], batch["y"][b]
                o, y = (o, y[: lengths[b]]) if per == "step" else (o.mean(0, keepdims=True), y[None])
                numbers.append((o, y))
        actual = measures.measures(config, of_batches(parts))
        o, y = (np.concatenate(column) for column in zip(*numbers, strict=True))
        hits = np.mean([np.mean(o.argmax(-1) == y) for o, y in numbers]) if task == "class" else 0
        both = np.sum((o > 0) & (y[..., None] > 0 if task == "class" else y > 0))
        error = o - (y[..., None] if task == "class" else y)
        expected = {
            "class": {"accuracy": hits},
            "labels": {"f1": 2 * both / (np.sum(o > 0) + np.sum(y > 0))},
            "value": {"r2": 1 - np.sum(error**2) / np.sum((y - y.mean(0)) ** 2), "mae": np.abs(error).mean()},
        }
        assert_trees_all_close(
            actual, expected[task], rtol=1e-6 if task == "class" else 1e-12
        )  # means of bool are float32
        assert next(iter(actual)) == measures.PRIMARY[config.loss.task]


@pytest.mark.full
def test_synaptic_operations_in_padding_are_not_counted():
    run, rng = recipe("batch, tet", PADDED), np.random.default_rng(10)
    state = learner.init(run, jax.random.key(0))
    x, variables = jnp.asarray(rng.normal(size=(B, PADDED, 7)), jnp.float32), learner.weights_of(state)
    count = jax.jit(lambda x, **lengths: count_synops(run.model.apply, variables, x, **lengths)[1])
    counted = count(x, lengths=jnp.asarray(LENGTHS))
    for b, length in enumerate([3, None, 2, 3]):
        if length is None:  # a static input, when alone
            continue
        for name, synops in count(x[b : b + 1, :length]).items():
            assert counted[name].effective[b].sum() == synops.effective.sum() > 0
            assert counted[name].dense[b].sum() == synops.dense.sum() > 0


def test_initial_rates_are_those_of_the_steps_that_are_there():
    config = SMALL.replace(**{"model.norm": "none", "model.init_rate": 0.2, "chaos.z0": 0.0, "chaos.taps": ()})
    tx = optimizer.build(config.optimizer, 1, 1)
    run = learner.Recipe(models.build(config.model), tx, losses.build(config.loss), config, 1)
    state, rng = jax.jit(learner.init, static_argnums=0)(run, jax.random.key(0)), np.random.default_rng(11)
    x = rng.normal(size=(64, T, 7)).astype(np.float32)
    long = np.concatenate([x, np.zeros((64, PADDED, 7), np.float32)], axis=1)
    calibrate = jax.jit(learner.calibrate, static_argnums=0)
    params = calibrate(run, state, long, np.full(64, T, np.int32)).params
    assert_trees_all_close(params, calibrate(run, state, x).params, rtol=1e-5)


@pytest.mark.parametrize("kind", ["tebn", "bntt"])
def test_norms_per_time_step_evaluate_a_sequence_that_ends_before_their_last_step(x64, kind):
    norm, rng = norms.make(kind, PADDED)(), np.random.default_rng(12)
    x = rng.normal(size=(B, PADDED, C))
    shapes = jax.eval_shape(lambda: norm.init(jax.random.key(0), x, False))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes)
    apply = functools.partial(nn.apply(norms.over_time, norm), variables)
    long, short = jax.jit(lambda x: (apply(x, False, PADDED), apply(x[:, :T], False, PADDED)))(x)
    close(short, np.asarray(long)[:, :T])
    with pytest.raises(ConfigError, match="has parameters of 5 time steps"):
        apply(x[:, :T], True, PADDED)


@pytest.mark.parametrize("changes, steps, error, words", [
    ({"model.neuron.name": "psn"}, PADDED, ConfigError, "model.neuron.name: psn and masked_psn .* take sliding_psn"),
    ({"model.neuron.name": "masked_psn"}, PADDED, ConfigError, "model.neuron.name: psn and masked_psn"),
    ({"model.norm": "bntt"}, PADDED + 1, ConfigError, "model.norm: bntt has parameters of 5 time steps"),
    ({}, 1, ValueError, "lengths: x has one time step"),
])  # fmt: skip
def test_what_cannot_have_unequal_lengths_is_refused(changes, steps, error, words):
    network = models.build(SMALL.replace(**changes).model)
    x, lengths = np.ones((B, steps, 7), np.float32), np.full(B, 1, np.int32)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), x[:, :1], False))
    with pytest.raises(error, match=words):
        jax.eval_shape(lambda variables: network.apply(variables, x, False, lengths=lengths), variables)
