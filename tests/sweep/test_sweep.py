"""Sweeps: members equal runs alone, do not touch each other, and survive a kill."""

import csv
import dataclasses
import functools
import io
import itertools
import json
import os
import re
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax import configs, data, learner, sweep
from csbp_jax.cli import main
from csbp_jax.config import ConfigError, Optimizer, flatten, from_json, replaced, to_json
from csbp_jax.reporting import plots
from csbp_jax.reporting.intervals import student
from csbp_jax.reporting.terminal import Console
from csbp_jax.sweep import driver, grid, tables, vectorised
from csbp_jax.training import compiled, selection
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.training.plugins import Own

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=1,
    batch_size=256,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(48, 40), time_steps=3),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
    optimizer=Optimizer(name="sgd", lr=0.05),
)
TINY = dataclasses.replace(SMALL, model=dataclasses.replace(SMALL.model, features=(8,), time_steps=2))
TINY = replaced(TINY, "chaos.anneal", "step")
CONV = dataclasses.replace(
    SMALL,
    model=dataclasses.replace(DIGITS.model, features=(4, 4), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("conv1.membrane",)),
)
QUIET = functools.partial(Console, file=io.StringIO())


def run(folder, axes, config=SMALL, **options):
    return sweep.run(config, axes, name="s", root=folder, console=QUIET(), **options)


# --- the grid -----------------------------------------------------------------------------------------------------


def test_words_of_a_grid():
    assert grid.words("chaos.z0=0,1.5 seed=0:3,7") == {"chaos.z0": ["0", "1.5"], "seed": ["0", "1", "2", "7"]}


@pytest.mark.parametrize("text", ["", "seed", "seed=", "=3", "seed=1,,2", "seed=3:3", "seed=1 seed=2"])
def test_a_wrong_grid_is_refused(text):
    with pytest.raises(ConfigError, match=r"GRID: .*--grid"):
        grid.words(text)


def test_members_are_all_combinations_the_last_axis_fastest():
    found = grid.members(SMALL, {"chaos.z0": [(0.0,), (3.0,)], "seed": [4, 5]})
    assert [(c.chaos.z0, c.seed) for c in found] == [((0.0,), 4), ((0.0,), 5), ((3.0,), 4), ((3.0,), 5)]


def test_a_strength_may_vary_at_one_of_several_taps():
    two = replaced(SMALL, "chaos.taps", ("fc1.membrane", "fc2.norm"))
    found = grid.members(two, {"chaos.z0.fc2.norm": [0.0, 7.0]})
    assert [c.chaos.z0 for c in found] == [(10.0, 0.0), (10.0, 7.0)]
    assert len(grid.compile_groups(found)) == 1


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"chaos.z": [1.0]}, "no field chaos.z;"),
        ({"chaos.z0.fc9.norm": [1.0]}, "no field chaos.z0.fc9.norm"),
        ({"chaos.beta": [0.5, 2.0]}, "chaos.beta: 2.0 is not possible"),
        ({"chaos.z0": [(1,), (1.0,)]}, "GRID: chaos.z0=1 and chaos.z0=1.0 are the same run"),
        ({"chaos.z0": [(1.0,), (2.0,)], "chaos.z0.fc1.membrane": [3.0]}, "chaos.z0=2.0 chaos.z0.fc1.membrane=3.0 are"),
        ({"chaos.unit": ["plain", "flip"]}, "chaos.unit: flip is not possible in a sweep"),
    ],
)
def test_members_that_cannot_be_are_refused(axes, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        grid.members(SMALL, axes)


def test_only_what_is_not_traced_asks_for_another_compilation():
    traced = {
        "seed": [0, 1],
        "chaos.z0": [(0.0,), (1.0,)],
        "chaos.beta": [0.5, 1.0],
        "chaos.target": [0.6, 0.7],
        "chaos.scale": [1.0, 10.0],
        "optimizer.lr": [0.1, 1.0],
        "model.neuron.surrogate_param": [1.0, 2.0],
        "model.neuron.decay": [0.2, 0.5],
        "model.neuron.threshold": [0.9, 1.0],
    }
    for field, values in traced.items():
        assert len(grid.compile_groups(grid.members(SMALL, {field: values}))) == 1, field
    for field, values in {"chaos.term": ["chaos", "drift"], "model.neuron.surrogate": ["triangle", "erf"]}.items():
        assert grid.compile_groups(grid.members(SMALL, {field: values, "seed": [0, 1]})) == [[0, 1], [2, 3]], field
    decays = grid.members(SMALL, {"model.neuron.decay": [0.2, 0.5]})
    assert len(grid.compile_groups(decays, Own(loss=lambda config: None))) == 2
    plif, tdbn = replaced(SMALL, "model.neuron.learn", "layer"), replaced(SMALL, "model.norm", "tdbn")
    for config in (plif, tdbn):
        assert len(grid.compile_groups(grid.members(config, {"model.neuron.decay": [0.2, 0.5]}))) == 2


def test_a_config_survives_json():
    config = replaced(replaced(SMALL, "data.size", (4, 4)), "chaos.cut", (-1.0, 2.0))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


# --- runs together ------------------------------------------------------------------------------------------------


def wide(state):
    """Flax makes its parameters in float32."""
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, state)


def prepared(config=SMALL):
    parts = data.load(config)
    return compiled.resolve(config, parts), parts


def both(config, parts, members, steps, data_parallel):
    """So many steps in float64 of eight members on eight devices, and of each of them alone: losses, parameters."""
    runs = vectorised.VectorisedRuns(members, parts, vectorised.member_mesh(data_parallel))
    states = wide(runs.init(jnp.stack([jax.random.key(c.seed) for c in members]), runs.hparams(members)))
    # Seed and strength are in the state; what is compiled anew is the neuron.
    alone = {c.model.neuron: compiled.compile_run(c, parts["train"], runs.steps_per_epoch) for c in members}
    jitted = {neuron: jax.jit(f.pure_train_step) for neuron, f in alone.items()}
    own = [learner.hyperparameters(c, runs.steps_per_epoch) for c in members]
    singles = [
        wide(alone[c.model.neuron].pure_init(jax.random.key(c.seed), h)) for c, h in zip(members, own, strict=True)
    ]
    losses = []
    for batch in itertools.islice(data.train_batches(parts["train"], config.batch_size, seed=0), steps):
        # The transform makes float32 of pictures; as float64 they stay.
        batch["x"] = batch["x"].astype(np.float64) / 255
        stacked = {name: rows[None] for name, rows in batch.items()}
        states, metrics = runs.step(states, jnp.zeros(8, int), runs.shard_batch(stacked, axis=1))
        told = [jitted[c.model.neuron](s, batch) for c, s in zip(members, singles, strict=True)]
        singles = [state for state, _ in told]
        losses.append((metrics["loss"], [one["loss"] for _, one in told]))
    return losses, states.params, jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s.params for s in singles])


def assert_equal(losses, params, wanted):
    for together_, alone in losses:
        np.testing.assert_allclose(together_, alone, rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), params, wanted)


@pytest.mark.parametrize("data_parallel", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_member_equals_the_run_alone(x64, data_parallel):
    """Over 20 steps, each batch on one or on two devices."""
    config, parts = prepared(replaced(SMALL, "batch_size", 64))
    axes = {"seed": [0, 1], "chaos.z0": [(0.0,), (30.0,)], "model.neuron.surrogate_param": [1.0, 1.5]}
    assert_equal(*both(config, parts, grid.members(config, axes), 20, data_parallel))


def test_a_convolutional_member_equals_the_run_alone_at_any_strength(x64):
    config, parts = prepared(dataclasses.replace(CONV, batch_size=16))
    axes = {"seed": [0, 1], "chaos.z0": [(0.0,), (1.0,), (30.0,), (1000.0,)]}
    assert_equal(*both(config, parts, grid.members(config, axes), 20, 2))


def test_a_whole_calm_run_equals_the_run_alone(x64):
    """Without a term, where differences of rounding do not grow, over all 15 epochs."""
    config, parts = prepared(dataclasses.replace(TINY, batch_size=64, epochs=15))
    config = replaced(config, "chaos.z0", (0.0,))
    steps = config.epochs * (len(parts["train"]) // config.batch_size)
    losses, *params = both(config, parts, grid.members(config, {"seed": range(8)}), steps, 2)
    assert_equal(losses, *params)
    assert len(losses) == 285 and np.all(losses[-1][0] < losses[0][0] / 2)


def read_out(metrics):
    """Of each run, the task loss of its last 20 steps."""
    return np.mean([m["task_loss"] for m in metrics[-20:]], axis=0)


@pytest.mark.slow
def test_chaotic_members_and_runs_alone_are_alike_in_distribution():
    """Where rounding grows to the spread over seeds, of 32 members and of runs alone on 32 other seeds."""
    chaos = dataclasses.replace(TINY.chaos, z0=(300.0,), beta=1.0)
    constant = dataclasses.replace(TINY.optimizer, schedule="constant")
    config, parts = prepared(dataclasses.replace(TINY, batch_size=64, epochs=10, chaos=chaos, optimizer=constant))
    batches = list(itertools.islice(data.train_batches(parts["train"], 64, seed=0), 150))
    runs = vectorised.VectorisedRuns([config], parts, vectorised.member_mesh())

    def members(config):
        configs = grid.members(config, {"seed": range(32)})
        states, found = runs.init(jnp.stack([jax.random.key(c.seed) for c in configs]), runs.hparams(configs)), []
        for batch in batches:
            stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
            states, metrics = runs.step(states, jnp.zeros(32, int), stacked)
            found.append(jax.device_get(metrics))
        return read_out(found)

    functions = compiled.compile_run(config, parts["train"], runs.steps_per_epoch)
    init, step = jax.jit(functions.pure_init), jax.jit(functions.pure_train_step)

    def alone(seed):
        state, found = init(jax.random.key(seed)), []
        for batch in batches:
            state, metrics = step(state, batch)
            found.append(metrics)
        return read_out(jax.device_get(found))

    ours = members(config)
    twins = np.array([alone(seed) for seed in range(4)])
    assert np.mean(np.abs(twins - ours[:4])) > np.std(ours) / 4
    wanted = np.array([alone(seed) for seed in range(32, 64)])
    assert stats.ks_2samp(ours, wanted).pvalue > 1e-3
    # The read-out tells other strengths apart.
    assert stats.ks_2samp(members(replaced(config, "chaos.z0", (100.0,))), wanted).pvalue < 1e-6


def test_members_do_not_communicate():
    config, parts = prepared()
    members = grid.members(config, {"seed": range(8)})
    runs = vectorised.VectorisedRuns(members, parts, vectorised.member_mesh())
    keys = jnp.stack([jax.random.key(c.seed) for c in members])
    states = runs.init(keys, runs.hparams(members))
    batch = next(data.train_batches(parts["train"], 64, seed=0))
    stacked = runs.shard_batch({name: rows[None] for name, rows in batch.items()}, axis=1)
    lowered = runs.step.lower(states, jnp.zeros(8, int), stacked)
    text = lowered.compile().as_text()
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", text)
    # One member a device: products of matrices, not of batches of one.
    products = re.findall(r"dot_general.*", lowered.as_text())
    assert products and not any("batching_dims" in product for product in products)


def test_a_member_sees_the_data_of_the_run_alone(tmp_path):
    """Its seed's order, its epochs' means, its evaluation: as ``train`` has them, to float32 over four steps."""
    config = replaced(SMALL, "seed", 3)
    alone = train(config, name="alone", root=tmp_path, console=QUIET())
    row = next(r for r in read_rows(tmp_path / "alone" / "metrics.jsonl") if r["kind"] == "epoch")
    run(tmp_path, {"seed": [2, 3]}, config)
    with open(tmp_path / "s" / "epochs.csv") as file:
        member = list(csv.DictReader(file))[1]
    for name in ("task_loss", "chaos_loss", "validation_loss", "grad_norm"):
        assert float(member[name]) == pytest.approx(row[name], rel=2e-3), name
    assert float(member["z.fc1.membrane"]) == pytest.approx(row["z"]["fc1.membrane"])
    assert float(member["rates.fc1"]) == pytest.approx(row["rates"]["fc1"], rel=1e-3)
    with open(tmp_path / "s" / "members.csv") as file:
        member = list(csv.DictReader(file))[1]
    assert float(member["last_test_accuracy"]) == pytest.approx(alone["last"]["test_accuracy"], abs=0.01)


OTHERS = {
    "model.neuron.decay": 0.9,
    "model.neuron.threshold": 0.6,
    "model.neuron.surrogate_param": 3.0,
    "chaos.z0": (3.0,),
    "chaos.beta": 0.5,
    "chaos.target": 0.8,
    "chaos.scale": 2.0,
    "optimizer.lr": 0.2,
    "seed": 1,
}


@pytest.mark.parametrize(
    "fields", [[*OTHERS][:3], [*OTHERS][3:6], [*OTHERS][6:]], ids=["neuron", "chaos", "scale-lr-seed"]
)
def test_one_member_at_once_trains_with_its_own_values(tmp_path, monkeypatch, fields):
    """Of all that is traced, each value as ``train`` has it, though no chunk knows two; in one compilation."""
    real, compilations = driver.train, set()

    def counted(runs, members, show):
        results = real(runs, members, show)
        compilations.add((len(members), runs.init._cache_size(), runs.step._cache_size(), runs.eval_step._cache_size()))
        return results

    monkeypatch.setattr(sweep, "train", counted)
    axes = {field: [flatten(TINY)[field], OTHERS[field]] for field in fields}
    run(tmp_path, axes, TINY, chunk=1, data_parallel=8)
    assert len(compilations) == 1 and next(iter(compilations))[0] == 1

    config = functools.reduce(lambda config, field: replaced(config, field, OTHERS[field]), fields, TINY)
    train(config, name="alone", root=tmp_path, console=QUIET())
    alone = next(row for row in read_rows(tmp_path / "alone" / "metrics.jsonl") if row["kind"] == "epoch")
    with open(tmp_path / "s" / "epochs.csv") as file:
        *others, member = csv.DictReader(file)
    for name in ("task_loss", "validation_loss", "grad_norm"):
        assert float(member[name]) == pytest.approx(alone[name], rel=1e-4), name
    for field in fields:
        (other,) = [m for m in others if [f for f in fields if m[f] != member[f]] == [field]]
        assert abs(float(other["grad_norm"]) / alone["grad_norm"] - 1) > 1e-3, f"{field} has no effect here"


def test_a_diverging_member_leaves_the_others_bit_identical(tmp_path):
    run(tmp_path / "a", {"optimizer.lr": [0.05, 1e38], "seed": [0, 1]}, chunk=8)
    run(tmp_path / "b", {"optimizer.lr": [0.05, 0.06], "seed": [0, 1]}, chunk=8)
    rows = []
    for folder in ("a", "b"):
        with open(tmp_path / folder / "s" / "members.csv") as file:
            rows.append(list(csv.DictReader(file)))
    assert rows[0][:2] == rows[1][:2]
    assert [row["diverged"] for row in rows[0]] == ["False", "False", "True", "True"]
    assert rows[0][2]["last_test_accuracy"] == ""


# --- the whole ----------------------------------------------------------------------------------------------------


def test_a_stopped_sweep_goes_on(tmp_path, monkeypatch):
    axes = {"chaos.z0": [(0.0,), (5.0,)], "seed": range(8)}
    whole = run(tmp_path / "a", axes, chunk=8)
    real, trained = driver.train, []

    def stops(runs, members, show):
        if trained:
            raise KeyboardInterrupt
        trained.append(len(members))
        return real(runs, members, show)

    monkeypatch.setattr(sweep, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", axes, chunk=8)
    monkeypatch.setattr(sweep, "train", lambda runs, members, show: trained.append(8) or real(runs, members, show))
    assert run(tmp_path / "b", axes, chunk=8) == whole
    assert trained == [8, 8]
    assert run(tmp_path / "b", axes, chunk=8) == whole and trained == [8, 8]


def test_it_does_not_go_on_with_other_rounding_unless_nothing_is_left(tmp_path, monkeypatch):
    axes, real = {"seed": range(12)}, driver.train

    def stops(runs, members, show):
        if members[0].seed:
            raise KeyboardInterrupt
        return real(runs, members, show)

    monkeypatch.setattr(sweep, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, axes, TINY, chunk=8)
    for otherwise, told in (
        ({"chunk": 16}, "members a device: 1 in members that are finished, 2 here"),
        ({"chunk": 8, "data_parallel": 2}, "members a device: 1 in members that are finished, 2 here"),
        ({"chunk": 4, "data_parallel": 2}, "devices a batch: 1 in members that are finished, 2 here"),
    ):
        with pytest.raises(ConfigError, match=re.escape(told) + ".*--chunk, --data-parallel"):
            run(tmp_path, axes, TINY, **otherwise)
    monkeypatch.setattr(sweep, "train", real)
    assert run(tmp_path, axes, TINY, chunk=8) == run(tmp_path, axes, TINY, chunk=16)


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"chaos.taps": [("fc1.membrane",), ("fc9.membrane",)]}, "chaos.taps: this network has no fc9.membrane"),
        ({"data.name": ["digits", "mnist"]}, "mnist"),
        ({"batch_size": [256, 4096]}, "batch_size: 4096 is not possible"),
    ],
)
def test_what_is_wrong_with_a_late_kind_is_told_before_any_trains(tmp_path, axes, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        run(tmp_path, axes, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_sweep_over_data_sets_knows_the_data_of_all(tmp_path):
    """A change of the second is found, too."""
    rng = np.random.default_rng(0)

    def data(config, data_dir):
        x, y = rng.random((320, 1, 8, 8, 1), np.float32), np.arange(320) % 10
        part = (x if config.data.window == 1 else np.zeros_like(x), y)
        return {"train": part, "test": part}

    axes = {"data.window": [2, 1]}
    run(tmp_path, axes, TINY, own=Own(data=data))
    with pytest.raises(ConfigError, match="its data have changed since it began"):
        run(tmp_path, axes, TINY, own=Own(data=data))


@pytest.fixture
def survivor():
    """A signal that nothing takes is not to end the tests."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_told_to_stop_it_keeps_what_is_finished_and_comes_to_the_same_tables(tmp_path, capsys, survivor):
    line = ["sweep", "digits", "--grid", "chaos.z0=0,5 seed=0:12", "--name", "s", "--epochs", "8", "--batch-size", "64"]
    line += ["--model.name", "dense", "--model.features", "8", "--model.time-steps", "2"]
    line += ["--chaos.taps", "fc1.membrane", "--sweeps"]

    def command(folder, number=None, finished=0):
        def tell():
            while len(list((tmp_path / folder / "s" / "chunks").glob("*.json"))) < finished and not over.wait(0.005):
                pass
            os.kill(os.getpid(), number)

        over = threading.Event()
        thread = threading.Thread(target=tell)
        if number is not None:
            thread.start()
        code = main.main([*line, str(tmp_path / folder)])
        over.set()
        if number is not None:
            thread.join()
        return code, len(list((tmp_path / folder / "s" / "chunks").glob("*.json")))

    assert command("whole") == (0, 3)
    assert command("stopped", signal.SIGTERM, 1) == (42, 1)
    assert capsys.readouterr().err == "csbp_jax: stopped; the same command resumes\n"
    assert not (tmp_path / "stopped" / "s" / "members.csv").exists()
    assert command("stopped", signal.SIGINT, 2) == (130, 2)
    assert command("stopped") == (0, 3)
    for name in ("members.csv", "epochs.csv", "settings.csv"):
        assert (tmp_path / "stopped" / "s" / name).read_bytes() == (tmp_path / "whole" / "s" / name).read_bytes()


def test_tables_figures_and_the_best(tmp_path):
    found = run(tmp_path, {"optimizer.lr": [0.0, 0.05], "seed": [0, 1]}, replaced(SMALL, "epochs", 3))
    folder = tmp_path / "s"
    for name in ("accuracy.png", "accuracy.pdf"):
        assert (folder / "figures" / name).stat().st_size > 5000
    with open(folder / "members.csv") as file:
        members = list(csv.DictReader(file))
    with open(folder / "settings.csv") as file:
        settings = list(csv.DictReader(file))
    assert [m["optimizer.lr"] for m in members] == ["0.0", "0.0", "0.05", "0.05"]
    mean = np.mean([float(m["last_test_accuracy"]) for m in members[2:]])
    assert float(settings[1]["last_test_accuracy_mean"]) == pytest.approx(mean)
    assert len(found) == 2 and found[1].members == 2

    better = sweep.best(folder, 2, console=QUIET())
    assert better.point == {"optimizer.lr": 0.05}
    with open(folder / "best-seeds-2-3" / "members.csv") as file:
        assert [m["seed"] for m in csv.DictReader(file)] == ["2", "3"]
    row = tables.latex(better)
    assert row.startswith(r"\texttt{optimizer.lr} = 0.05 & 2 & $") and row.endswith(r"$ \\") and row.count(r"\pm") == 2
    # Of another number of seeds beside it, not in its place.
    assert sweep.best(folder, 3, console=QUIET()).members == 3


def test_the_best_of_tuples_and_of_one_that_diverges_on_all_fresh_seeds(tmp_path, monkeypatch, capsys):
    run(tmp_path, {"model.features": [(8, 4), (6,)], "seed": [0]}, TINY)
    for number in (0, 1):
        file = tmp_path / "s" / "chunks" / f"{number:06}.json"
        content = json.loads(file.read_text())
        content["results"][0]["chosen"]["validation_accuracy"] = float(number)
        file.write_text(json.dumps(content))
    real = driver.train
    monkeypatch.setattr(sweep, "train", lambda *_: [{**one, "diverged": True} for one in real(*_)])
    assert main.main(["best", str(tmp_path / "s"), "--seeds", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "setting & n & last epoch & chosen epoch \\\\",
        r"\texttt{model.features} = 6 & 0 of 3 & diverged & diverged \\",
    ]
    assert any(re.search(r"6 +│ +3 │ +3 │ +diverged", line) for line in told)


# --- what is shown ------------------------------------------------------------------------------------------------


def shown_setting(point, diverged=0):
    rng = np.random.default_rng(0)
    accuracies = {name: student(list(rng.random(3))) for name in tables._ACCURACIES}
    return tables.Setting(point, 3, diverged, accuracies if diverged < 3 else {})


def test_the_table_has_a_column_for_each_field_and_cuts_nothing_in_80_columns(tmp_path):
    fields = ("model.neuron.surrogate_param", "chaos.z0.fc1.membrane", "optimizer.name")
    found = [
        shown_setting(dict(zip(fields, point, strict=True)), diverged)
        for point, diverged in (((0.25, 10.0, "adamw"), 0), ((0.5, 30.0, "sgd"), 3))
    ]
    out = io.StringIO()
    driver._print_settings(Console(file=out, width=80), tmp_path, found)
    told = out.getvalue()
    assert "…" not in told and max(map(len, told.splitlines())) <= 80
    rows = [line for line in told.splitlines() if line.startswith("│")]
    assert re.match(r"│ 0.25 +│ 10.0 +│ adamw +│ +3 │ +0 │ +\d+.\d\d ± \d+.\d\d │ +\d+.\d\d ± \d+.\d\d │", rows[0])
    assert re.match(r"│ 0.5 +│ 30.0 +│ sgd +│ +3 │ +3 │ +diverged │ +diverged │", rows[1])
    assert tables.headings(fields) == ["surrogate param", "z0.fc1.membrane", "name"]
    assert tables.headings(["model.name", "optimizer.name"]) == ["model.name", "optimizer.name"]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """What ``draw_sweep`` draws of settings."""
    made, real = [], plots.empty_figure
    monkeypatch.setattr(plots, "empty_figure", lambda *size: made.append(real(*size)) or made[-1])

    def draw(found):
        plots.draw_sweep(tmp_path, list(found[0].point), [tables.flat(setting) for setting in found])
        assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 5000
        return made[-1]

    return draw


def test_a_figure_of_names_and_of_what_diverged(drawn):
    found = [shown_setting({"chaos.term": term}, 3 * (term == "linear")) for term in ("chaos", "drift", "linear")]
    figure = drawn(found)
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["chaos", "drift", "linear"]
    (bars,) = panel.containers
    expected = [100 * setting.accuracies["last_test_accuracy"].mean for setting in found[:2]]
    np.testing.assert_allclose(bars.lines[0].get_xydata(), list(zip([0, 1], expected, strict=True)), atol=1e-9)
    assert figure.get_supxlabel() == "all seeds diverged: chaos.term linear"


def test_twenty_lines_of_a_figure_look_different(drawn):
    figure = drawn([shown_setting({"chaos.z0": z0, "seed of": n}) for z0 in (0.0, 1.0) for n in range(20)])
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 20 and len(figure.legends[0].get_texts()) == 20


def test_another_grid_under_the_same_name_is_refused(tmp_path):
    run(tmp_path, {"seed": [0]})
    with pytest.raises(ConfigError, match=r"NAME: run 's' has another config; differing are grid"):
        run(tmp_path, {"seed": [1]})


def test_best_of_no_sweep_is_refused(tmp_path):
    train(SMALL, name="r", root=tmp_path, console=QUIET())
    with pytest.raises(ConfigError, match="no finished sweep"):
        sweep.best(tmp_path / "r")
    with pytest.raises(ConfigError, match="no: there is no sweep; name its folder, such as sweeps/NAME"):
        sweep.best(tmp_path / "no")


def test_devices_that_cannot_be_shared_out_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--data-parallel: 3 does not divide the 8 devices"):
        run(tmp_path, {"seed": [0]}, data_parallel=3)


def test_a_member_selects_the_epoch_that_a_single_run_selects():
    """The best finite validation; until some epoch's loss is finite, the best of the others."""
    rng = np.random.default_rng(0)
    update = jax.jit(vectorised.update_selection)
    for n in range(60):
        losses = rng.choice([np.nan, np.inf, 0.5, 0.25], p=[0.4, 0.2, 0.2, 0.2] if n % 2 else [0.7, 0.3, 0, 0], size=5)
        rows = [
            {"accuracy": np.float32(a), "loss": np.float32(b)}
            for a, b in zip(rng.random(5).round(1), losses, strict=True)
        ]
        state = learner.State(*[{}] * len(dataclasses.fields(learner.State)))
        member = {**selection.NO_EPOCH, "weights": {"params": {}, "batch_stats": {}}}
        single = selection.select(state, 0, selection.NO_EPOCH)
        for epoch, row in enumerate(rows, start=1):
            member = update(state, member, row["accuracy"], row["loss"], epoch)
            single = selection.update(single, state, epoch, row)
        finite = [row for row in rows if np.isfinite(row["loss"])]
        best = max(finite or rows, key=lambda row: (row["accuracy"], -row["loss"] if finite else 0))
        assert int(member["epoch"]) == int(single["epoch"]) > 0
        assert single["accuracy"] == best["accuracy"] and (not finite or single["loss"] == best["loss"])


def test_best_leaves_out_settings_with_diverged_members():
    def setting(z0, mean, diverged=0):
        return tables.Setting({"z0": z0}, 3, diverged, {"chosen_validation_accuracy": student([mean, mean])})

    assert tables.best([setting(0, 0.5), setting(1, 0.9, diverged=1), setting(2, 0.7)]).point == {"z0": 2}
    assert tables.best([setting(0, 0.5, diverged=1)]) is None


def test_students_interval():
    interval = student([1.0, 2.0, 3.0, 4.0])
    assert interval.mean == 2.5
    assert interval.high - interval.mean == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5)
    assert student([0.7]) == (0.7, None, None)
    with pytest.raises(ValueError, match="needs a value"):
        student([])
