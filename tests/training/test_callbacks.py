"""Callbacks of a run: what they see and add, their state across a stop, how they end a run, and what is refused."""

import functools
import pathlib
import shutil
import types
from typing import Any

import numpy as np
import pytest

from csbp_jax.cli import main
from csbp_jax.data.source import ArraySource
from csbp_jax.runtime.preemption import Stopped
from csbp_jax.training import run_json
from csbp_jax.training.callbacks import Callbacks, Trainer
from csbp_jax.training.metrics_log import read_rows
from tests.support import processes, small_run, smoothed
from tests.support.checkpoint_arrays import arrays
from tests.support.small_run import SMALL, timeless_rows
from tests.support.smoothed import Smoothed
from tests.support.stops import After

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")

LONGER = SMALL.replace(epochs=3)
run = functools.partial(small_run.run, name="r")


def by_epoch(folder, key):
    return [row[key] for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "epoch"]


def test_a_callback_sees_each_epoch_once_and_its_metrics_join_the_row(tmp_path):
    seen = []

    def first(trainer, row):
        assert (row["kind"], row["step"]) == ("epoch", int(trainer.state.step)) and trainer.folder == tmp_path / "r"
        assert trainer.evaluate("validation") == {
            name: row[f"validation_{name}"] for name in ("count", "accuracy", "loss")
        }
        own = ArraySource(trainer.splits["test"].x[:7], trainer.splits["test"].y[:7], classes=10)
        assert trainer.evaluate(own)["count"] == 7
        seen.append(row["epoch"])
        assert by_epoch(trainer.folder, "epoch") == seen[:-1]
        return {"seven": np.float32(7), "config": trainer.config.epochs}

    def second(trainer, row):
        return {"twice": 2 * row["first.seven"]}

    run(SMALL, tmp_path, callbacks=[first, second])
    assert seen == [1, 2]
    last = read_rows(tmp_path / "r" / "metrics.jsonl")[-1]
    assert (last["first.seven"], last["first.config"], last["second.twice"]) == (7, 2, 14)
    run(SMALL, tmp_path, name="without")
    rows, expected = (timeless_rows(tmp_path / name / "metrics.jsonl") for name in ("r", "without"))
    assert [{key: row[key] for key in row if "." not in key} for row in rows] == expected


class Noted:
    name = "notes"

    def __init__(self):
        self.calls = []

    def __call__(self, trainer, row):
        self.calls.append(row["epoch"])

    def start(self, trainer):
        self.calls.append(f"start at {int(trainer.state.step)}")

    def end(self, trainer, result):
        self.calls.append(f"tested {result['last']['epoch']}, {(trainer.folder / 'result.json').exists()}")

    def close(self):
        self.calls.append("close")


def test_it_starts_and_ends_with_the_run_and_is_closed_after_an_error(tmp_path):
    for calls in (["start at 0", 1, 2, "tested 2, False", "close"], ["tested 2, True", "close"]):
        run(SMALL, tmp_path, callbacks=[noted := Noted()])
        assert noted.calls == calls

    def failing(trainer, row):
        if row["epoch"] == 2:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(SMALL, tmp_path, name="fails", callbacks=[noted := Noted(), failing])
    assert noted.calls == ["start at 0", 1, 2, "close"]
    assert by_epoch(tmp_path / "fails", "epoch") == [1]
    run(SMALL, tmp_path, name="fails", callbacks=[noted := Noted()])
    assert noted.calls == ["start at 2", 2, "tested 2, False", "close"]
    assert timeless_rows(tmp_path / "fails" / "metrics.jsonl") == timeless_rows(tmp_path / "r" / "metrics.jsonl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    return root / "r", run(LONGER, root, callbacks=[Smoothed()])[0]


def test_stopped_and_resumed_it_ends_as_without_a_stop(undisturbed, tmp_path):
    """Its state too: within an epoch, also within its call, it is saved as after the epoch before.

    A run looks for a stop before each of the two steps of an epoch, after them, and before each batch of an evaluation.
    """
    folder, result = undisturbed
    # Before the second step; in the validation; in the callback; within the second epoch.
    for polls, step in ((1, 1), (2, 2), (2, 2), (5, 3)):
        with pytest.raises(Stopped) as stopped:
            run(LONGER, tmp_path, callbacks=[Smoothed()], stop=After(polls))
        assert stopped.value.step == step
    assert run(LONGER, tmp_path, callbacks=[Smoothed()])[0] | {"seconds": 0} == result | {"seconds": 0}
    assert timeless_rows(tmp_path / "r" / "metrics.jsonl") == timeless_rows(folder / "metrics.jsonl")
    assert by_epoch(folder, "Smoothed.epochs") == [1, 2, 3]
    held = arrays(tmp_path / "r" / "checkpoints")
    assert held == arrays(folder / "checkpoints")
    shapes = {name: shape for name, (_, shape, _) in held.items() if name.startswith("callbacks/")}
    assert shapes == {"callbacks/Smoothed/mean": (), "callbacks/Smoothed/history": (3, 2)}


@pytest.mark.slow
def test_two_processes_resume_with_the_state_of_their_callback(tmp_path):
    """Over four devices, on which the state of the training is distributed."""

    def train(name):
        line = [smoothed.__file__, "--layout", "fsdp", "--name", name, "--runs", str(tmp_path)]
        codes, outputs, errors = processes.finish(processes.start(line))
        assert codes == [0, 0], errors
        return outputs[0]

    train("whole")
    stopped = shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (stopped / "result.json").unlink()
    shutil.rmtree(stopped / "checkpoints" / "6")
    assert "resumed after step 4" in train("stopped")
    assert timeless_rows(stopped / "metrics.jsonl") == timeless_rows(tmp_path / "whole" / "metrics.jsonl")
    assert arrays(stopped / "checkpoints") == arrays(tmp_path / "whole" / "checkpoints")
    assert by_epoch(stopped, "Smoothed.epochs") == [1, 2, 3]


def test_a_run_goes_on_with_other_callbacks_than_it_was_stored_with(undisturbed, tmp_path):
    with pytest.raises(Stopped):
        run(LONGER, tmp_path, callbacks=[Smoothed()], stop=After(6))

    class Other(Smoothed):
        name = "other"

    result, text = run(LONGER, tmp_path, callbacks=[Other()])
    assert "callback other: begins anew, as the checkpoint holds no state of it" in text
    assert "callback Smoothed: is not given, and the state that the checkpoint holds of it is dropped" in text
    assert result["params_sha256"] == undisturbed[1]["params_sha256"]


def enough(trainer, row):
    if row["epoch"] == 2:
        trainer.stop(why="no need to go on")


def test_it_ends_the_run_which_stays_finished(tmp_path):
    """Also if it is killed between its last checkpoint and its result, and without the callback."""
    result, text = run(LONGER, tmp_path, callbacks=[enough])
    assert result["last"]["epoch"] == 2 and result["stopped"] == "enough: no need to go on"
    assert "callback enough: no need to go on; the training ends after epoch 2" in text
    assert "stopped by callback enough: no need to go on" in text
    (tmp_path / "r" / "result.json").unlink()
    again, text = run(LONGER, tmp_path)
    assert again | {"seconds": 0} == result | {"seconds": 0} and "resumed after step 4" in text
    again, text = run(LONGER.replace(epochs=9), tmp_path)
    assert again == run_json.read_result(tmp_path / "r") and "r is finished after 2 epochs, not 9; FRESH=1" in text


@pytest.mark.parametrize("returned, message", [
    (0.5, r"callback mine: returned 0\.5; expected are numbers by name, such as \{\"loss\": 0\.5\}, or None"),
    ({"a": [1.0, 2.0]}, r"callback mine: returned \[1\.0, 2\.0\] as 'a'; expected are numbers by name"),
    ({"a": "1"}, "callback mine: returned '1' as 'a'; expected are numbers by name"),
])  # fmt: skip
def test_what_it_returns_must_be_numbers_by_name(returned, message):
    def mine(trainer, row):
        return returned

    of_a_run: Any = types.SimpleNamespace(count=None)
    trainer = Trainer(of_a_run, {}, pathlib.Path(), print, lambda: None)
    with pytest.raises(TypeError, match=message):
        Callbacks([mine], SMALL)(trainer, {})


@pytest.mark.parametrize("state, message", [
    ([1.0], r"callback Smoothed: its state is \[1\.0\]; expected are arrays by name"),
    ({"a/b": 1.0}, "callback Smoothed: 'a/b' is no name of an array of its state"),
    ({"a": "text"}, "callback Smoothed: a of its state is 'text'; expected is an array of numbers"),
])  # fmt: skip
def test_its_state_must_be_arrays_by_name(state, message, monkeypatch):
    monkeypatch.setattr(Smoothed, "state", lambda self: state)
    with pytest.raises(TypeError, match=message):
        Callbacks([Smoothed()], SMALL).states()


class Forgetful:
    def __call__(self, trainer, row):
        pass

    def state(self):
        return {}


@pytest.mark.parametrize("callbacks, error, message", [
    ([3], TypeError, "callbacks: 3 cannot be called"),
    ([lambda trainer, row: None], ValueError, "callbacks: '<lambda>' is no name, which has letters"),
    ([enough, functools.partial(enough)], ValueError, "callbacks: two are called 'enough'; give one of them another"),
    ([Forgetful()], TypeError, "callbacks: Forgetful has state, but no method restore"),
])  # fmt: skip
def test_what_is_no_callback_is_refused_before_the_run_has_a_folder(callbacks, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run(SMALL, tmp_path, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    def unknown(trainer, row):
        trainer.evaluate("dev")

    class Late(Noted):
        def end(self, trainer, result):
            trainer.evaluate("test")

    with pytest.raises(ValueError, match="evaluate: there is no split 'dev'; there are train, validation, test"):
        run(SMALL, tmp_path, callbacks=[unknown])
    run(SMALL, tmp_path)
    with pytest.raises(ValueError, match="evaluate: the run was finished before, so that its state is not in memory"):
        run(SMALL, tmp_path, callbacks=[Late()])


OF_A_FILE = """
from tests.support.small_run import SMALL as config

class Counter:
    def __call__(self, trainer, row):
        return {"seed": trainer.config.seed, "epochs": row["epoch"] / HALVED}

HALVED = 2

def callbacks(config):
    return [Counter()]
"""


def test_a_plugin_file_has_callbacks_which_reading_the_run_does_not_need(tmp_path, refused):
    file, folder = tmp_path / "mine.py", tmp_path / "runs" / "r"
    file.write_text(OF_A_FILE)
    command = ["train", str(file), "--name", "r", "--runs", str(tmp_path / "runs")]
    assert main.main(command) == 0
    assert by_epoch(folder, "Counter.epochs") == [0.5, 1.0]
    assert run_json.read_config(folder)["own"]["parts"] == []
    assert main.main(["evaluate", str(folder)]) == 0
    file.write_text(OF_A_FILE.replace("HALVED = 2", "HALVED = 0"))
    assert "has other code of your own; differing are own.sha256" in refused(*command)
    command[3] = "other"
    assert f"{file}:6: in __call__: ZeroDivisionError: " in refused(*command)
    file.write_text(OF_A_FILE.replace("[Counter()]", "Counter()"))
    assert "mine.py: callbacks: TypeError: callbacks: returned <" in refused(*command[:2])
