"""Evaluation of a run: its numbers follow from the logits and equal those of training."""

import dataclasses
import io
import json
import shutil
from typing import Any

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax import data
from csbp_jax.cli import main
from csbp_jax.evaluation import evaluate, forward
from csbp_jax.reporting import plots_evaluation, terminal
from csbp_jax.runs import restore
from csbp_jax.training import run_json
from tests.support.older_checkpoints import forget_run


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture
def no_figure(monkeypatch):
    """Skip the drawing, which takes most of the time."""
    monkeypatch.setattr(plots_evaluation, "draw", lambda *arguments: None)


@pytest.fixture(scope="module")
def evaluated(run):
    text = io.StringIO()
    result = evaluate.evaluate_run(run, console=terminal.Console(file=text, width=120))
    return result, text.getvalue()


@pytest.fixture(scope="module")
def by_hand(trained):
    """Logits of the test split in float64, their softmax, rates and labels."""
    apply, variables, config = csbp_jax.load(trained)
    test: Any = data.load(config)["test"]
    logits, aux = jax.jit(apply)(variables, test.x)
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits.mean(1) - logits.mean(1).max(1, keepdims=True))
    return logits, odds / odds.sum(1, keepdims=True), aux.rates, test.y


def test_numbers_equal_those_of_training(run, evaluated):
    last = json.loads((run / "result.json").read_text())["last"]
    result, _ = evaluated
    assert result["accuracy"] == pytest.approx(last["test_accuracy"], abs=1e-9)
    assert result["nll"] == pytest.approx(last["test_loss"], rel=1e-5)  # the loss is the cross-entropy of mean logits
    assert (result["count"], result["epoch"], result["data_changed"]) == (359, 2, False)


def test_numbers_follow_from_the_logits(evaluated, by_hand):
    result, _ = evaluated
    logits, probability, rates, y = by_hand
    for t, accuracy in enumerate(result["accuracy_by_time"], start=1):
        assert accuracy == pytest.approx((logits[:, :t].mean(1).argmax(1) == y).mean(), abs=1e-9)
    ranks = (probability > probability[np.arange(len(y)), y][:, None]).sum(1)
    assert result["top5"] == pytest.approx((ranks < 5).mean(), abs=1e-9)
    assert result["nll"] == pytest.approx(-np.log(probability[np.arange(len(y)), y]).mean(), rel=1e-5)
    # 359 examples are padded to 360: a mean over the padded batch would differ.
    assert result["rates"] == pytest.approx({layer: float(rate) for layer, rate in rates.items()}, rel=1e-5)
    answer = probability.argmax(1)
    assert result["confusion"] == [[int(((y == i) & (answer == j)).sum()) for j in range(10)] for i in range(10)]
    for label, row in enumerate(result["per_class"]):
        assert row == {"class": str(label), "count": (y == label).sum(), "accuracy": (answer == y)[y == label].mean()}
    assert len(set(result["accuracy_by_time"])) > 1


def test_numbers_are_printed_and_written(run, evaluated):
    result, text = evaluated
    assert json.loads((run / "evaluation-test-last.json").read_text()) == result
    assert (run / "figures" / "evaluation-test-last.png").stat().st_size > 10_000
    for word in (f"{result['accuracy']:.2%}", "expected calibration error", "confusion", "conv2", "top-5 accuracy"):
        assert word in text


def test_the_train_split_is_not_augmented(trained):
    """The source inverts its pictures in ``take``, as another would crop or flip them."""

    class Inverted(data.DataSource):
        num_uniforms, classes = 1, 10

        def __init__(self, source):
            self.source = source

        def __len__(self):
            return 50

        def __getitem__(self, i):
            return self.source[i]

        def take(self, indices, uniforms):
            return {"x": 1 - self.source.x[indices], "y": self.source.y[indices]}

    restored = restore.restore(trained)
    source = data.load(restored.config)["train"]
    measure = forward.apply_all(restored, False, forward.outcome)
    plain = measure(data.Unaugmented(Inverted(source)))["nll"]
    inverted = measure(Inverted(source))["nll"]
    expected = measure(source)["nll"][:50]
    assert np.allclose(plain, expected, atol=1e-5) and not np.allclose(inverted, expected, atol=0.1)


def test_other_splits_and_weights(run, no_figure, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert main.main(["evaluate", ".", "--split", "validation", "--weights-of", "chosen"]) == 0
    result = json.loads((run / "evaluation-validation-chosen.json").read_text())
    chosen = json.loads((run / "result.json").read_text())["chosen"]
    assert result["accuracy"] == pytest.approx(chosen["validation_accuracy"], abs=1e-9)
    assert result["run"] == "run" and result["epoch"] == chosen["epoch"] and capsys.readouterr().err == ""


def test_changed_data_are_reported(run, evaluated, no_figure, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    content = run_json.read_config(copy)
    (copy / "config.json").write_text(json.dumps(content | {"data": "other"}))
    forget_run(copy / "checkpoints")
    result = evaluate.evaluate_run(copy, console=terminal.Console(file=io.StringIO()))
    assert result["data_changed"] and "its data have changed since training" in capsys.readouterr().err
    assert result["accuracy"] == evaluated[0]["accuracy"]


def test_a_batch_is_not_much_larger_than_its_source(trained):
    """The config of a run from others may ask for any."""
    run = restore.restore(trained)
    run = run._replace(config=dataclasses.replace(run.config, eval_batch_size=100_000))
    source = data.Unaugmented(data.load(run.config)["test"], np.arange(20))
    ((mask, _),) = forward.apply_batched(run, False, forward.predictions(run.config.loss))(source)
    assert len(mask) == forward.MAX_PADDED and mask.sum() == 20
