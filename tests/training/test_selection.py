"""The weights that a run reports: moving averages, and the best epoch of a run that stops early."""

import dataclasses
import functools
import io
import json
from typing import Any

import jax
import numpy as np
import pytest

import csbp_jax
from csbp_jax import configs, data, learner, weights
from csbp_jax.config import ConfigError, Optimizer, replaced
from csbp_jax.experiment import Experiment
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import restore
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import build, compiled, run_json
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.epochs import Session
from csbp_jax.training.metrics_log import read_rows
from tests.support import shared_programs, small_run
from tests.support.stops import After

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=40,
    batch_size=256,
    checkpoint_every=5,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(8,), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",)),
)


run = functools.partial(small_run.run, name="r")
ALL_ON = dataclasses.replace(SMALL, patience=1, optimizer=Optimizer(lr=0.05, schedule="constant", ema=0.9))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with averages and patience: its folder, its result, its output."""
    root = tmp_path_factory.mktemp("finished")
    return root / "r", *run(ALL_ON, root)


def test_averages_are_checkpointed_evaluated_and_loaded(finished, tmp_path):
    folder, result, text = finished
    assert "moving average" in text and json.loads((folder / "config.json").read_text())["config"]["optimizer"]["ema"]
    last = read_rows(folder / "metrics.jsonl")[-1]
    assert last["ema_validation_accuracy"] == result["ema"]["validation_accuracy"]
    assert last["ema_validation_loss"] != last["validation_loss"]
    opened = restore.restore(folder, "ema")
    test: Any = data.load(opened.config)["test"]
    right = np.asarray(jax.jit(opened.apply)(opened.variables, test.x)[0]).mean(1).argmax(1) == test.y
    assert right.mean() == pytest.approx(result["ema"]["test_accuracy"], abs=1e-9)
    assert result["ema"]["test_loss"] != result["last"]["test_loss"]
    content = run_json.read_config(folder)
    content["config"]["optimizer"]["ema"] = 0.0
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"has no moving average of its weights \(optimizer.ema 0\)"):
        csbp_jax.load(tmp_path, "ema")


def test_the_last_epoch_is_tested_once_where_it_is_the_chosen_one(tmp_path, monkeypatch):
    sizes: list[int] = []
    evaluate = compiled.CompiledRun.evaluate

    def counted(self, state, source, check):
        sizes.append(len(source))
        return evaluate(self, state, source, check)

    monkeypatch.setattr(compiled.CompiledRun, "evaluate", counted)
    result, _ = run(replaced(ALL_ON, "epochs", 1), tmp_path)
    assert result["chosen"] == result["last"] != result["ema"]
    assert sizes.count(result["last"]["test_count"]) == 2  # the other time with the averages


def test_averages_start_from_loaded_weights(monkeypatch):
    config = build.resolve(ALL_ON, splits := data.load(SMALL))
    program = shared_programs.compile_run(config, splits["train"], 4)
    other = program.init(jax.random.key(7))
    monkeypatch.setattr(weights, "apply", lambda *_: learner.weights_of(other))
    state = compiled.initial_state(program, weights.Plan("file", None, {}, "", None), print)
    jax.tree.map(np.testing.assert_array_equal, state.ema, learner.weights_of(other))


@pytest.mark.full
def test_an_experiment_tabulates_averages(finished, tmp_path):
    """As the run alone has them."""
    config = replaced(replaced(ALL_ON, "patience", 0), "epochs", 1)
    table = Experiment(config, {"": {}}, seeds=(0, 1)).run(tmp_path / "s", console=Console(file=io.StringIO()))
    header, row, _ = (tmp_path / "s" / "epochs.csv").read_text().splitlines()
    first = next(row for row in read_rows(finished[0] / "metrics.jsonl") if row["kind"] == "epoch")
    member = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(member["ema_validation_loss"]) == pytest.approx(first["ema_validation_loss"], rel=2e-3)
    assert "ema_test_accuracy" in table.measures


def validations(folder):
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "epoch"]
    return [(row["validation_accuracy"], -row["validation_loss"]) for row in rows]


def test_it_stops_at_the_first_epoch_that_is_not_better(finished):
    folder, result, text = finished
    epochs = validations(folder)
    worse = next(n for n in range(1, len(epochs)) if epochs[n] <= max(epochs[:n]))
    assert result["last"]["epoch"] == len(epochs) == worse + 1 < ALL_ON.epochs
    assert result["chosen"]["epoch"] == worse and epochs[worse - 1] == max(epochs)
    assert result["stopped_early"] and f"stopped early: no epoch after {worse} was better in validation" in text
    assert list(layout.complete(folder / "checkpoints"))[-1] == len(epochs) * 4


def test_killed_and_resumed_it_stops_at_the_same_epoch(finished, tmp_path):
    """Stopped within its second epoch; and killed between the last checkpoint and the result."""
    folder, result, _ = finished
    with pytest.raises(Stopped):
        run(ALL_ON, tmp_path, stop=After(8))
    for _ in range(2):
        assert {**run(ALL_ON, tmp_path)[0], "seconds": 0} == {**result, "seconds": 0}
        assert validations(tmp_path / "r") == validations(folder)
        (tmp_path / "r" / "result.json").unlink()


@pytest.mark.full
def test_a_run_that_goes_on_with_less_patience_ends_the_epoch_that_it_was_stopped_in(finished, tmp_path):
    """Weights from within an epoch have no validation of their own."""
    worse, polls = finished[1]["last"]["epoch"], 4 + 1 + 2  # of each epoch: its steps, its end, and two validations
    with pytest.raises(Stopped) as stopped:
        run(replaced(ALL_ON, "patience", 0), tmp_path, stop=After(polls * worse + 2))
    assert 4 * worse < stopped.value.step < 4 * (worse + 1)
    after, _ = run(ALL_ON, tmp_path)
    epochs = validations(tmp_path / "r")
    assert after["last"]["epoch"] == len(epochs) > worse
    assert after["last"]["validation_accuracy"] == epochs[-1][0]
    assert list(layout.complete(tmp_path / "r" / "checkpoints"))[-1] == 4 * len(epochs)


@pytest.mark.parametrize(("patience", "ended", "chosen", "over"), [
    (0, 9, 1, False), (3, 3, 1, False), (3, 4, 1, True), (3, 0, 0, False), (1, 1, 1, False),
])  # fmt: skip
def test_patience_counts_the_epochs_since_the_best(patience, ended, chosen, over):
    numbers = {"epoch": np.asarray(chosen)}
    state: Any = None
    session = Session(state, numbers, {"epochs": np.asarray(ended), "stopped": np.asarray(False)})
    assert session.is_over(SMALL.replace(patience=patience, epochs=10)) == over
