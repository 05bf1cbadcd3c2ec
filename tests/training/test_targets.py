"""Runs on other targets than a class of an example, and on sequences of unequal length: from training to the report."""

import csv
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest

import csbp_jax
from csbp_jax import RunTable, configs, data
from csbp_jax.config import Chaos, Config, ConfigError, Data, Diverged, Loss, Model, Optimizer
from csbp_jax.evaluation import compare, html_report, predict
from csbp_jax.evaluation.evaluate import evaluate_run
from csbp_jax.evaluation.inspection import inspect
from csbp_jax.evaluation.robustness import battery
from csbp_jax.evaluation.robustness.command import robustness
from csbp_jax.evaluation.robustness.measure import Plan
from csbp_jax.experiment import Experiment, Training
from csbp_jax.export import model_card
from csbp_jax.reporting import measures, plots, plots_training
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import restore
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import build
from csbp_jax.training.metrics_log import read_rows
from tests.support import small_run
from tests.support.rows import full
from tests.support.stops import After

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

DRAW = plots_training.draw
T, FEATURES = 9, 6
BASE = Config(
    epochs=2,
    batch_size=16,
    eval_batch_size=8,
    log_every=1,
    data=Data(name="own", buckets=2),
    model=Model(name="dense", input_shape=(), classes=0, time_steps=T, features=(8,)),
    chaos=Chaos(z0=(1.0,), taps=("fc1.membrane",)),
    optimizer=Optimizer(lr=0.02),
)
LOSSES = {
    "value": Loss(task="value", name="mse"),
    "labels": Loss(task="labels"),
    "steps": Loss(per="step"),
    "value_of_steps": Loss(task="value", per="step", name="huber"),
    "classes": Loss(name="tet"),
}
SLOW = ("value_of_steps", "classes")
OTHERS = [kind for kind in LOSSES if kind != "steps"]
KINDS = [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in LOSSES]
PRIMARY = {"value": "r2", "labels": "f1", "steps": "accuracy", "value_of_steps": "r2", "classes": "accuracy"}
LABELS = {"r2": "R2", "f1": "F1", "accuracy": "accuracy"}


def records(count=72, seed=0):
    """Sequences of 2 to T time steps, of which features 0 and 1 say the targets."""
    random = np.random.default_rng(seed)
    return [random.normal(0.5, 1, (length, FEATURES)).astype(np.float32) for length in random.integers(2, T + 1, count)]


TARGETS = {
    "labels": lambda x: [int(x[:, 0].mean() > 0.5), int(x[:, 1].mean() > 0.5), 1],
    "steps": lambda x: (x[:, 0] > 0.5).astype(int) + (x[:, 1] > 1),
    "value_of_steps": lambda x: x[:, 0],
    "classes": lambda x: int(x[:, 0].mean() > 0.5),
}


def own_data(kind):
    def split(config, data_dir):
        x = records()
        y = [TARGETS[kind](record) for record in x]
        return {"train": (x[:48], y[:48]), "test": (x[48:], y[48:])}

    return csbp_jax.Own(data=split)


def write_folder(folder):
    """Files of sequences, with two values of each."""
    folder.mkdir()
    lines = ["file,mean,last"]
    for i, record in enumerate(records()):
        np.save(folder / f"{i}.npy", record)
        lines.append(f"{i}.npy,{record[:, 0].mean()},{record[-1, 1]}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """``run(kind) -> (folder, own, result, what was printed)``."""
    root, made = tmp_path_factory.mktemp("targets"), dict[str, Any]()

    def run(kind):
        if kind not in made:
            config, own = dataclasses.replace(BASE, loss=LOSSES[kind]), csbp_jax.Own()
            if kind == "value":
                write_folder(root / "files")
                config = config.replace(**{"data.name": "folder", "data.dir": str(root / "files")})
            else:
                own = own_data(kind)
            made[kind] = root / kind / "run", own, *small_run.run(config, root / kind, name="run", own=own)
        return made[kind]

    return run


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_told_by_the_measure_of_its_task(kind, runs):
    folder, _, result, text = runs(kind)
    name, rows = PRIMARY[kind], read_rows(folder / "metrics.jsonl")
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert result["last"]["validation_" + name] == epochs[-1]["validation_" + name]
    best = max(epochs, key=lambda row: row["validation_" + name])
    assert result["chosen"]["validation_" + name] == best["validation_" + name]
    assert all(name in row for row in rows if row["kind"] == "train")
    assert f"test {LABELS[name]}" in text and "lengths 2 to 9 in " in text
    assert ("accuracy" in text + json.dumps([result, rows])) == (name == "accuracy")


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_gives_the_measures_of_the_run(kind, runs):
    folder, own, result, _ = runs(kind)
    text = io.StringIO()
    content = evaluate_run(folder, own=own, console=Console(file=text, width=200))
    for name in ("accuracy", "f1", "r2", "mae"):
        assert (name in content) == (f"test_{name}" in result["last"])
        if name in content:
            assert content[name] == pytest.approx(result["last"][f"test_{name}"], abs=1e-5), name
    assert content["count"] == result["last"]["test_count"] and 0 < content["rates"]["fc1"] < 1
    assert (folder / "figures" / "evaluation-test-last.png").exists()
    assert ("accuracy" in text.getvalue()) == (PRIMARY[kind] == "accuracy")


@pytest.mark.parametrize("loss", [{"task": "labels"}, {"task": "value", "name": "mse"}, {"per": "step"}])
def test_a_task_that_does_not_fit_the_targets_is_one_line(loss):
    config = configs.load("digits").replace(**{f"loss.{name}": value for name, value in loss.items()})
    with pytest.raises(
        ConfigError, match=r"of which each target is int32 \(\); a class of each example is --loss.task cl"
    ):
        build.resolve(config, data.load(config))


@pytest.mark.full
def test_a_run_of_which_no_epoch_can_be_chosen_has_diverged(tmp_path):
    x = np.random.default_rng(0).random((40, 1, 5)).astype(np.float32)
    split = (x, x.sum((1, 2)))
    own = csbp_jax.Own(data=lambda config, data_dir: {"train": split, "test": split})
    optimizer = Optimizer(name="sgd", lr=1e25)
    config = dataclasses.replace(BASE, loss=LOSSES["value"], optimizer=optimizer, batch_size=32, data=Data(name="own"))
    for _ in range(2):
        with pytest.raises(Diverged, match=r"no epoch has a finite validation loss\. Try a smaller"):
            small_run.run(config, tmp_path, name="r", own=own)


@pytest.mark.slow
def test_a_norm_of_each_time_step_takes_sequences_that_end_before(tmp_path):
    config = dataclasses.replace(BASE, loss=LOSSES["labels"]).replace(**{"model.norm": "bntt", "epochs": 1})
    own, quiet = own_data("labels"), Console(file=io.StringIO())
    result, _ = small_run.run(config, tmp_path, name="run", own=own)
    content = evaluate_run(tmp_path / "run", own=own, console=quiet)
    assert content["f1"] == pytest.approx(result["last"]["test_f1"], abs=1e-5)
    inspected = inspect(restore.restore(tmp_path / "run", own=own), console=quiet)
    assert inspected["examples"] == content["count"]


@pytest.mark.full
def test_inspection_counts_no_padding(runs):
    folder, own, _, _ = runs("steps")
    content = evaluate_run(folder, own=own, console=Console(file=io.StringIO()))
    restored = restore.restore(folder, own=own)
    seen = inspect(restored, console=Console(file=io.StringIO()))
    assert seen["examples"] == content["count"] and seen["example"] == {"number": 0}
    assert seen["layers"]["fc1"]["rate"] == pytest.approx(content["rates"]["fc1"], rel=0.2)  # of steps, of examples
    x = records()[48:]
    spikes = [restored.apply(restored.variables, r[None], inspect=("fc1",))[1].spikes["fc1"].sum() for r in x]
    rate = sum(map(float, spikes)) / sum(map(len, x)) / 8
    assert seen["layers"]["fc1"]["rate"] == pytest.approx(rate, rel=1e-4)
    assert seen["synapses"]["fc1.dense"]["dense"] == round(sum(map(len, x)) * 8 * FEATURES / len(x))


@pytest.mark.full
@pytest.mark.parametrize("kind", [pytest.param("labels", marks=pytest.mark.full), "steps"])
def test_a_stopped_run_goes_on_with_the_same_bits(kind, runs, tmp_path):
    _, own, result, _ = runs(kind)
    config, steps = dataclasses.replace(BASE, loss=LOSSES[kind]), 2
    with pytest.raises(Stopped):
        small_run.run(config, tmp_path, name="run", own=own, stop=After(steps))
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == steps
    resumed, text = small_run.run(config, tmp_path, name="run", own=own)
    assert "resumed after step 2" in text and resumed["params_sha256"] == result["params_sha256"]
    assert resumed["last"] == result["last"]


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_evaluation(kind, runs, tmp_path):
    """Of files, in the order of their names, whatever their lengths are, one time step too."""
    folder, own, _, _ = runs(kind)
    x = [record[: len(record) if i else 1] for i, record in enumerate(records()[48:])]
    files = [tmp_path / f"{i}.npy" for i in range(len(x))]
    for file, record in zip(files, x, strict=True):
        np.save(file, record)
    answers = predict.predict(folder, [*files, tmp_path / "gone.npy"], own=own)
    assert [answer.problem[-40:] for answer in answers if answer.problem]
    rows = list(csv.DictReader(io.StringIO(predict.table(answers))))
    counts = [len(record) if "steps" in kind else 1 for record in x]
    assert [row["file"] for row in rows] == [str(file) for file, n in zip(files, counts, strict=True) for _ in range(n)]
    if "steps" in kind:
        assert [int(row["step"]) for row in rows] == [t for record in x for t in range(len(record))]
    restored = restore.restore(folder, own=own)
    full = [np.pad(record, ((0, T - len(record)), (0, 0))) for record in x]
    logits = [restored.apply(restored.variables, f[None])[0][0, : len(r)] for f, r in zip(full, x, strict=True)]
    outputs = np.concatenate([o if "steps" in kind else o.mean(axis=0, keepdims=True) for o in logits])
    if kind in ("steps", "classes"):
        assert [row["label"] for row in rows] == [str(k) for k in outputs.argmax(axis=-1)]
    else:
        names = ["mean", "last"] if kind == "value" else [str(k) for k in range(outputs.shape[1])]
        expected = 1 / (1 + np.exp(-outputs)) if kind == "labels" else outputs
        np.testing.assert_allclose([[float(row[name]) for name in names] for row in rows], expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["steps", *full(OTHERS)])
def test_reports_and_model_cards_speak_of_the_measure(kind, runs, tmp_path):
    folder, own, result, _ = runs(kind)
    page = html_report.write(folder, tmp_path / "report.html").read_text()
    label, column = LABELS[PRIMARY[kind]], f"test_{PRIMARY[kind]}"
    text = measures.of(column).text(result["last"][column])
    assert f"test {label}</th>" in page and f"<td>{text}</td>" in page
    card = model_card.card(restore.restore(folder, own=own), folder, "a/b", pytest.importorskip("huggingface_hub"))
    assert f"| test {label} |" in card and f"| {text} |" in card and ("95 % interval" in card) == (kind == "classes")
    assert f"name: test {label}, n = {result['last']['test_count']}" in card
    assert ("accuracy" in (page + card).lower()) == (PRIMARY[kind] == "accuracy")


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_captions_speak_of_the_measure(kind, runs, tmp_path):
    folder, *_ = runs(kind)
    DRAW(tmp_path, read_rows(folder / "metrics.jsonl"))
    caption = plots.caption_of((tmp_path / "figures" / "training.png").read_bytes())
    assert f"; {LABELS[PRIMARY[kind]]} of each epoch on" in caption


@pytest.mark.full
def test_norms_with_parameters_of_time_steps_train_where_all_sequences_are_shorter(tmp_path):
    x = [sequence[: T - 2] for sequence in records()]
    own = csbp_jax.Own(data=lambda config, folder: {"train": (x, np.arange(72) % 2), "test": (x, np.arange(72) % 2)})
    config = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, norm="tebn"), epochs=1)
    result = csbp_jax.train(config, own=own, root=tmp_path, name="short", console=Console(quiet=True))
    assert 0 <= result["last"]["test_accuracy"] <= 1


@pytest.mark.full
def test_an_experiment_on_values_has_contrasts_in_r2(tmp_path):
    """Its members are those runs alone; sequences of one length stay on the device, of several do not."""
    random = np.random.default_rng(1)
    x = random.normal(0.5, 1, (72, T, FEATURES)).astype(np.float32)
    y = x[:, :, :2].mean(axis=1) + np.array([0, 10])
    pairs = {"train": (x[:48], y[:48]), "test": (x[48:], y[48:])}
    own = csbp_jax.Own(data=lambda config, data_dir: pairs)
    base, arms = dataclasses.replace(BASE, loss=LOSSES["value"]), {"csbp": {}, "bp": {"chaos.z0": 0.0}}
    experiment = Experiment(Training(base, own), arms, seeds=[0, 1])
    table = experiment.run(tmp_path / "e", console=Console(file=io.StringIO()))
    contrast = table.contrast("csbp", "bp")
    assert contrast.measure == "last_test_r2" and contrast.unit == "" and "points" not in repr(contrast)
    assert (contrast.frame["pairs"] == 2).all() and table.primary == "r2"
    assert "R2" in table.caption() and "accuracy" not in repr(table) + table.caption() + table.curves_caption()
    alone, _ = small_run.run(base.replace(seed=1), tmp_path, name="run", own=own)
    of_member = table.where(arm="csbp", seed=1).frame.iloc[0]
    assert of_member["last_test_r2"] == pytest.approx(alone["last"]["test_r2"], abs=1e-3)
    compared = compare.comparison(table, compare.controls(table))
    text = io.StringIO()
    compare.show(compared, tmp_path / "out", Console(file=text, width=200))
    assert "settings: mean test R2 over seeds [95 % interval]" in text.getvalue()
    assert RunTable.read(tmp_path / "e").primary == "r2"


@pytest.mark.full
def test_members_train_on_sequences_of_several_lengths_as_runs_alone(runs, tmp_path):
    _, own, result, _ = runs("steps")
    config = dataclasses.replace(BASE, loss=LOSSES["steps"])
    experiment = Experiment(Training(config, own), {"a": {}}, seeds=[0, 1])
    table = experiment.run(tmp_path / "e", console=Console(file=io.StringIO()))
    of_member = table.where(seed=0).frame.iloc[0]
    assert of_member["last_test_accuracy"] == pytest.approx(result["last"]["test_accuracy"], abs=0.02)
    assert of_member["last_test_loss"] == pytest.approx(result["last"]["test_loss"], rel=1e-3)
    drawn = Experiment(Training(config, own), {"a": {}}, seeds=[0], draw=lambda splits, seed: (range(8), range(8)))
    with pytest.raises(ConfigError, match=r"^draw: not possible of records of several lengths"):
        drawn.run(tmp_path / "drawn", console=Console(file=io.StringIO()))


@pytest.mark.full
@pytest.mark.parametrize("kind", ["value", "steps"])
def test_what_measures_classes_of_equally_long_examples_refuses_others_in_a_line(kind, runs):
    folder, own, _, _ = runs(kind)
    with pytest.raises(ConfigError, match="robustness measures classes of examples of one length") as error:
        robustness([restore.restore(folder, own=own)], Plan(battery.select("noise"), 4, 1, 0, "test"))
    assert "\n" not in str(error.value)
