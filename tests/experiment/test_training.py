"""The training of a config as a system: each member is the run alone, with its own values and its own data."""

import dataclasses
import io
from typing import Any

import jax
import numpy as np
import optax
import pandas
import pytest

import csbp_jax
from csbp_jax import RunTable, configs, data
from csbp_jax.config import ConfigError, Diverged, Optimizer, replaced
from csbp_jax.experiment import Arm, Experiment, Training, system
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import restore
from csbp_jax.runs.reading import ALL_DIGITS
from csbp_jax.training import compiled_group
from csbp_jax.training.loop import train
from csbp_jax.training.metrics_log import read_rows
from csbp_jax.training.plugins import Own

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

DIGITS = configs.load("digits")
DENSE = dataclasses.replace(
    DIGITS,
    epochs=2,
    batch_size=160,
    eval_batch_size=360,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(6, 5), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",), anneal="step", z0=(3.0,)),
    optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9),
)
CONV = dataclasses.replace(
    DENSE,
    model=dataclasses.replace(DIGITS.model, features=(2, 2), time_steps=2),
    chaos=dataclasses.replace(DENSE.chaos, taps=("conv1.membrane",)),
)
OTHERS = {
    "model.neuron.decay": 0.9,
    "model.neuron.threshold": 0.6,
    "model.neuron.surrogate_param": 3.0,
    "chaos.z0": 30.0,
    "chaos.beta": 0.5,
    "chaos.target": 0.8,
    "chaos.scale": 2.0,
    "optimizer.lr": 0.2,
    "optimizer.weight_decay": 0.1,
    "loss.smoothing": 0.3,
}
"""Every field that is traced, with another value than the base has."""


def console():
    return Console(file=io.StringIO())


def alone(config, folder, fields, seed, own=Own()):
    """The rows of the epochs and the result of a run by ``train``."""
    for name, value in fields.items():
        config = replaced(config, name, (value,) if name == "chaos.z0" else value)
    result = train(replaced(config, "seed", seed), name="alone", root=folder, console=console(), own=own)
    return [row for row in read_rows(folder / "alone" / "metrics.jsonl") if row["kind"] == "epoch"], result


def assert_equal(frame, curves, rows, result):
    """A row of an experiment and its curves, with the run alone."""
    for name in ("task_loss", "chaos_loss", "grad_norm", "validation_loss"):
        np.testing.assert_allclose(curves[name], [row[name] for row in rows], rtol=2e-3, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(
        curves["rates.fc1" if "rates.fc1" in curves else "rates.conv1"],
        [next(iter(row["rates"].values())) for row in rows],
        rtol=5e-3,
    )
    for kind in ("last", "chosen"):
        for name in ("test_accuracy", "validation_accuracy"):
            assert frame[f"{kind}_{name}"] == pytest.approx(result[kind][name], abs=0.012), (kind, name)
    assert frame["last_epoch"] == len(rows) and not frame["diverged"]


@pytest.fixture(scope="module")
def stopping(tmp_path_factory):
    """``(experiment, folder, table, curves)`` of runs of which some stop early; each traced field has another value."""
    config = dataclasses.replace(replaced(DENSE, "optimizer.ema", 0.5), patience=1, epochs=4)
    arms = {"base": {}, "others": OTHERS, "does not learn": {"optimizer.lr": 0.0}}
    arms |= {name: {name: value} for name, value in OTHERS.items()}
    experiment, folder = Experiment(config, arms, seeds=(3, 4)), tmp_path_factory.mktemp("stopping") / "e"
    table = experiment.run(folder, console=console())
    return experiment, folder, table, pandas.read_csv(folder / "epochs.csv")


@pytest.mark.parametrize("arm", ["others", pytest.param("does not learn", marks=pytest.mark.full)])
def test_a_member_is_the_run_alone_with_its_own_values(stopping, arm, tmp_path):
    """One member has another value of every traced field, one stops early, in the compilation of the others."""
    experiment, _, table, curves = stopping
    assert compiled_group.scans(experiment.base)
    assert len(set(experiment.plan().groups.values())) == 1
    assert set(table.fields) == set(OTHERS) and table.measures[:2] == ("last_test_accuracy", "chosen_test_accuracy")
    ((_, row),) = table.frame[(table.frame["arm"] == arm) & (table.frame["seed"] == 4)].iterrows()
    of_run = curves[(curves["arm"] == arm) & (curves["seed"] == 4)]
    fields = OTHERS if arm == "others" else {"optimizer.lr": 0.0}
    rows, result = alone(experiment.base, tmp_path, fields, 4)
    assert_equal(row, of_run, rows, result)
    assert row["ema_test_accuracy"] == pytest.approx(result["ema"]["test_accuracy"], abs=0.012)
    assert (len(rows) == 2) == (arm == "does not learn")


def test_a_member_stops_early_beside_others_that_go_on(stopping):
    _, _, table, _ = stopping
    ends = table.frame.set_index("arm")["last_epoch"]
    assert set(ends["does not learn"]) == {2} and min(ends["base"]) > 2


def test_runs_that_are_known_are_not_trained_again(stopping, tmp_path, monkeypatch):
    experiment, folder, table, _ = stopping
    monkeypatch.setattr(Training, "train", None)
    known = pandas.read_csv(folder / "runs.csv", **ALL_DIGITS)
    again = experiment.run(tmp_path / "again", known=known, console=console()).frame
    pandas.testing.assert_frame_equal(again, table.frame, check_exact=True)


@pytest.mark.parametrize("field", OTHERS)
def test_each_traced_field_has_an_effect(stopping, field):
    """On the norm of the gradient in the first epoch."""
    _, _, _, curves = stopping
    first = curves[(curves["epoch"] == 1) & (curves["seed"] == 3)].set_index("arm")["grad_norm"]
    assert abs(first[field] / first["base"] - 1) > 1e-4


@pytest.mark.full
def test_a_convolutional_member_is_the_run_alone_with_its_own_values(tmp_path):
    """Its steps are called one by one."""
    assert not compiled_group.scans(CONV)
    arms = {"base": {}, "others": OTHERS}
    table = Experiment(CONV, arms, seeds=(3, 4)).run(tmp_path / "e", console=console())
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    for arm, fields in arms.items():
        ((_, row),) = table.frame[(table.frame["arm"] == arm) & (table.frame["seed"] == 4)].iterrows()
        of_run = curves[(curves["arm"] == arm) & (curves["seed"] == 4)]
        assert_equal(row, of_run, *alone(CONV, tmp_path / arm, fields, 4))


@pytest.mark.full
def test_the_weights_of_a_row_are_those_that_were_tested(tmp_path):
    """Also where the experiment is read again, by a program that runs elsewhere; each is a network that loads."""
    arms = {"base": {}, "strong": {"chaos.z0": 30.0}}
    experiment = Experiment(replaced(DENSE, "patience", 1), arms, seeds=(3, 4))
    table = experiment.run(tmp_path / "e", weights=True, console=console())
    assert table.fields == ("chaos.z0",) and "chaos.z0" in table.to_markdown()
    (batch,) = data.eval_batches(data.Unaugmented(data.load(DENSE, "data")["test"]), 359)
    read = RunTable.read(tmp_path / "e")
    assert read.fields == table.fields and read.measures == table.measures
    for _, row in read.frame.iterrows():
        apply, variables, config = csbp_jax.load(tmp_path / "e" / row["run"])
        assert (config.chaos.z0, config.seed) == ((row["chaos.z0"],), row["seed"])
        assert restore.restore(tmp_path / "e" / row["run"]).epoch == row["last_epoch"]
        logits = apply(variables, batch["x"])[0].mean(axis=1)
        assert (logits.argmax(axis=1) == batch["y"]).mean() == pytest.approx(row["last_test_accuracy"], abs=1e-6)
        jax.tree.map(np.testing.assert_array_equal, read.weights(row), variables)
    again = experiment.run(tmp_path / "e", console=console())
    jax.tree.map(np.testing.assert_array_equal, again.weights(again.frame.iloc[3]), variables)


def few(splits, seed, count=16, wrong=0.0):
    """A few records of each class, of which a share has a wrong label."""
    y, generator = splits["train"].y, np.random.default_rng(seed)
    rows = np.concatenate([generator.choice(np.flatnonzero(y == label), count, replace=False) for label in range(10)])
    changed = generator.random(len(rows)) < wrong
    return rows, np.where(changed, (y[rows] + 1) % 10, y[rows])


@pytest.mark.full
def test_seeds_that_draw_different_numbers_of_records_do_not_train_at_once(tmp_path):
    """They would all have the steps of the first."""
    experiment = Experiment(DENSE, {"": {}}, seeds=(0, 1), draw=lambda splits, seed: few(splits, seed, 16 * (1 + seed)))
    with pytest.raises(ConfigError, match="draw: gives 160 and 320 records for seeds that train at once"):
        experiment.run(tmp_path / "e", console=console())
    losses = []
    for seeds in ((0, 1), (1,)):  # one after the other, each with its own steps
        system = Training(DENSE, draw=experiment.draw)
        system.prepare([{}], seeds[0])
        trained = [system.train(system.group({}), [{}] * 8, [seed] * 8) for seed in seeds]
        losses.append(trained[-1]["last_test_loss"][0])
    assert losses[0] == losses[1]


def test_a_measure_that_cannot_choose_is_refused_before_anything_trains(tmp_path):
    for choose in ("last_validation_loss", "last_test_accuracy", "validation_accuracy"):
        experiment = Experiment(DENSE, {"": {}}, seeds=(0,), choose=choose)
        with pytest.raises(ConfigError, match="allowed are last_validation_accuracy, chosen_validation_accuracy"):
            experiment.run(tmp_path / choose, console=console())


def test_an_arm_adapts_to_all_fields_and_the_data_of_its_try():
    seen = []

    def adapt(fields, splits):
        seen.append((fields["optimizer.lr"], fields["flips"], len(splits["train"])))
        return {n: value for n, value in fields.items() if n != "flips"} | {"chaos.z0": fields["flips"]}

    def of_time_steps(config, data_dir):
        x, y = arrays(config, data_dir)["train"]
        return {"train": (x[: 100 * config.model.time_steps], y[: 100 * config.model.time_steps]), "test": (x, y)}

    arms = {"three": Arm({"model.time_steps": 3, "flips": 2.0}, adapt=adapt)}
    plan = Experiment(Training(DENSE, Own(data=of_time_steps)), arms, seeds=(0,)).plan()
    assert seen == [(DENSE.optimizer.lr, 2.0, 270)]  # less a tenth for validation
    assert [dict(fields) for fields in plan.settings.values()] == [{"model.time_steps": 3, "chaos.z0": 2.0}]


@pytest.mark.full
@pytest.mark.parametrize("config", [DENSE, CONV], ids=["scanned", "step by step"])
def test_each_seed_has_the_data_that_it_draws(tmp_path, config):
    config = replaced(config, "batch_size", 32)
    cases = {"right": {}, "wrong": {"draw.wrong": 0.5}}
    table = Experiment(config, {"": {}}, cases=cases, seeds=(0, 1), draw=few).run(tmp_path / "e", console=console())
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    assert curves.groupby("seed")["task_loss"].nunique().tolist() == [4, 4]

    def drawn(of_config, data_dir):
        splits: dict[str, Any] = data.load(of_config)
        rows, y = few(splits, 1, wrong=0.5)
        arrays = {split: (source.x, source.y) for split, source in splits.items()}
        return arrays | {"train": (splits["train"].x[rows], y)}

    row = table.frame[(table.frame["case"] == "wrong") & (table.frame["seed"] == 1)].iloc[0]
    of_run = curves[(curves["case"] == "wrong") & (curves["seed"] == 1)]
    assert_equal(row, of_run, *alone(config, tmp_path, {}, 1, Own(data=drawn)))


def arrays(config, data_dir):
    x, y = np.random.default_rng(0).random((320, 1, 8, 8, 1), np.float32), np.arange(320) % 10
    return {"train": (x, y), "test": (x, y)}


@pytest.mark.full
def test_own_data_and_controls_leave_members_together_whatever_the_surrogate_is(tmp_path):
    """A member is the run alone, with a force of its own strength, and its own width of the surrogate."""

    def control(config, tx, hparams):
        return optax.chain(tx, optax.add_decayed_weights(hparams["z0"]["fc1.membrane"]))

    own = Own(data=arrays, control=control)
    arms = {"a": {"chaos.z0": 0.3}, "b": {"chaos.z0": 0.1, "model.neuron.surrogate_param": 3.0}}
    experiment = Experiment(Training(DENSE, own), arms, seeds=(3,))
    assert len(set(experiment.plan().groups.values())) == 1
    frame = experiment.run(tmp_path / "e", console=console()).frame
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    for arm, fields in arms.items():
        ((_, row),) = frame[frame["arm"] == arm].iterrows()
        assert_equal(row, curves[curves["arm"] == arm], *alone(DENSE, tmp_path / arm, fields, 3, own))


def test_own_parts_that_members_share_cannot_read_what_differs(tmp_path):
    def data(config, data_dir):
        return arrays(config, data_dir) if config.model.neuron.surrogate_param else {}

    def control(config, tx, hparams):
        return tx if config.model.neuron.surrogate_param else optax.identity()

    arms = {"a": {}, "b": {"model.neuron.surrogate_param": 3.0}}
    for name, own in {"data": Own(data=data), "control": Own(data=arrays, control=control)}.items():
        with pytest.raises(AttributeError, match="surrogate_param: runs that differ in it share this function"):
            Experiment(Training(DENSE, own), arms, seeds=(3,)).run(tmp_path / name, console=console())


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"chaos.z": 1.0}}, "there is no field chaos.z; perhaps you meant chaos.z0"),
        ({"a": {"chaos.beta": 2.0}}, "chaos.beta: 2.0 is not possible"),
        ({"a": {"seed": 1}}, "seed is no field of a setting"),
        ({"a": {"patience": -2}}, "patience: -2 is not possible"),
        ({"a": {}, "b": {"chaos.taps": ("fc9.membrane",)}}, "chaos.taps: this network has no fc9.membrane"),
        ({"a": {}, "b": {"data.name": "mnist"}}, "mnist"),
        ({"a": {"batch_size": 4096}}, "batch_size: 4096 is not possible"),
        ({"a": {"draw.wrong": 0.5}}, "draw.wrong: the experiment has no draw"),
        ({"a": {"layout": "fsdp"}}, "layout: fsdp is not possible in an experiment, whose devices hold members"),
        ({"a": {"weights": "digits"}}, "weights: digits is not possible in an experiment, whose members start"),
        ({"devices": {}}, "--data-parallel: 3 does not divide the 8 devices"),
    ],
)
def test_impossible_fields_are_refused_before_anything_is_written(tmp_path, arms, message):
    base = Training(DENSE, data_dir=tmp_path / "none", data_parallel=3 if "devices" in arms else 1)
    with pytest.raises(ConfigError, match=message):
        Experiment(base, arms, seeds=(0,)).run(tmp_path / "e", console=console())
    assert not list(tmp_path.iterdir())


def test_changed_data_or_devices_are_refused(tmp_path, monkeypatch):
    def train(lift, records, show, save, saves, called):
        resolved = lift.configs
        columns = [f"{kind}_test_accuracy" for kind in ("last", "chosen")]
        return dict.fromkeys(columns, np.ones(len(resolved))) | {"diverged": np.zeros(len(resolved), bool)}

    def experiment(scale, devices=1, seeds=(0,)):
        def data(config, data_dir):
            x, y = np.random.default_rng(0).random((320, 1, 8, 8, 1), np.float32), np.arange(320) % 10
            return {"train": (scale * x, y), "test": (x, y)}

        return Experiment(Training(DENSE, Own(data=data), data_parallel=devices), {"a": {}}, seeds=seeds)

    monkeypatch.setattr(system, "train", train)
    experiment(1).run(tmp_path / "e", console=console())
    with pytest.raises(ConfigError, match="its data have changed since it began"):
        experiment(0.5).run(tmp_path / "e", console=console())
    with pytest.raises(ConfigError, match="devices a batch: 1 in finished runs, 2 now, which rounds otherwise"):
        experiment(1, devices=2, seeds=(0, 1)).run(tmp_path / "e", console=console())
    assert len(experiment(1, devices=2).run(tmp_path / "e", console=console()).frame) == 1, "shown, as nothing trains"


@pytest.mark.full
def test_a_member_whose_loss_stays_above_its_limit_has_diverged_as_the_run_alone(tmp_path):
    base, rate = DENSE.replace(epochs=4, loss_limit=1.5), {"optimizer.lr": 30.0}
    frame = Experiment(base, {"calm": {}, "fast": rate}, seeds=(0,)).run(tmp_path / "e", console=console()).frame
    assert list(frame["diverged"]) == [False, True]
    with pytest.raises(Diverged, match=r"the task loss was above .* \(loss_limit 1.5\)"):
        alone(base, tmp_path, rate, 0)


def test_a_member_that_diverges_leaves_the_others_bit_identical():
    training, rates = Training(DENSE), (1e38, 0.06)
    settings = [[{"optimizer.lr": 0.05}, {"optimizer.lr": rate}] * 4 for rate in rates]
    training.prepare([*settings[0], *settings[1]], 0)
    (group,) = {training.group(fields) for fields in settings[0]}
    seeds = [0, 0, 1, 1, 2, 2, 3, 3]
    wild, calm = (training.train(group, fields, seeds) for fields in settings)
    assert wild["diverged"].tolist() == [False, True] * 4 and not any(calm["diverged"])
    for name, values in wild.items():
        np.testing.assert_array_equal(values[::2], calm[name][::2], err_msg=name)
