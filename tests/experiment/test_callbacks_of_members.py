"""Callbacks of an experiment: they see runs that train at once, add curves, stop some, and go on after a kill."""

import io

import numpy as np
import pandas
import pytest

from csbp_jax.data.source import ArraySource
from csbp_jax.experiment import Experiment, Training, chunk, saves
from csbp_jax.training.plugins import Own
from tests.support.small_runs import QUIET, SMALL

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

BASE = SMALL.replace(epochs=3)
ARMS = {"a": {}, "b": {"chaos.z0": 0.0}}


def experiment(seeds=(0, 1, 2), base=BASE):
    return Experiment(base, ARMS, seeds=seeds)


def test_it_sees_the_runs_without_copies_and_its_metrics_are_curves(tmp_path):
    """Eight devices hold six runs, and two copies."""
    seen = []

    def watch(trainer, row):
        count = trainer.count
        shapes = {np.shape(value) for name, value in row.items() if name not in ("kind", "epoch", "step")}
        assert shapes == {(count,)} and trainer.state.step.shape == (count,)
        strengths = [(config.chaos.z0, config.seed) for config in trainer.configs]
        validation = trainer.evaluate("validation")
        np.testing.assert_array_equal(validation["loss"], row["validation_loss"])
        own = ArraySource(trainer.splits["test"].x[:7], trainer.splits["test"].y[:7], classes=10)
        measured = trainer.evaluate(own, trainer.state)
        assert measured["count"].tolist() == [7] * count
        assert trainer.folder == tmp_path / "e"
        seen.append((row["epoch"], *strengths))
        return {"number": 1, "loss": measured["loss"]}

    experiment().run(tmp_path / "e", callbacks=[watch], console=QUIET())
    assert [epoch for epoch, *_ in seen] == [1, 2, 3]
    of_runs = seen[0][1:]
    assert len(of_runs) == 6 and {seed for _, seed in of_runs} == {0, 1, 2}
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    assert (curves["watch.number"] == 1).all() and curves["watch.loss"].nunique() > 6
    experiment().run(tmp_path / "without", console=QUIET())
    without = pandas.read_csv(tmp_path / "without" / "epochs.csv")
    pandas.testing.assert_frame_equal(curves.drop(columns=["watch.number", "watch.loss"]), without)
    runs = [(tmp_path / name / "runs.csv").read_bytes() for name in ("e", "without")]
    assert runs[0] == runs[1]


class Stops:
    """Ends the runs without chaos after the second epoch, and all after the fourth."""

    def __call__(self, trainer, row):
        if row["epoch"] == 2:
            trainer.stop([not any(config.chaos.z0) for config in trainer.configs], why="no chaos")
        if row["epoch"] == 4:
            trainer.stop()
        return {"epoch": row["epoch"]}


def test_it_ends_some_runs_which_stay_as_they_were(tmp_path):
    console = QUIET(file=(text := io.StringIO()), width=200)
    base = BASE.replace(epochs=6)
    runs = experiment(base=base).run(tmp_path / "e", callbacks=[Stops()], console=console).frame
    assert "callback Stops: no chaos; runs end after epoch 2" in text.getvalue()
    assert {arm: of["last_epoch"].unique().tolist() for arm, of in runs.groupby("arm")} == {"a": [4], "b": [2]}
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    assert curves.groupby("arm")["epoch"].max().to_dict() == {"a": 4, "b": 2}
    experiment(base=base).run(tmp_path / "whole", console=QUIET())
    of_whole = pandas.read_csv(tmp_path / "whole" / "epochs.csv")
    both = curves.merge(of_whole, on=["arm", "seed", "epoch"], suffixes=("", "_whole"))
    assert len(both) == len(curves) == 18
    np.testing.assert_array_equal(both["validation_loss"], both["validation_loss_whole"])
    last = curves[curves["epoch"] == curves.groupby("arm")["epoch"].transform("max")]
    tested = runs.merge(last, on=["arm", "seed"])
    np.testing.assert_array_equal(tested["last_validation_accuracy"], tested["validation_accuracy"])


class Counting:
    """Counts the epochs of the runs that train at once, in the state that it was given with."""

    name = "counting"

    def __init__(self):
        self.epochs = np.asarray(10)

    def __call__(self, trainer, row):
        self.epochs = self.epochs + 1
        return {"epochs": self.epochs}

    def state(self):
        return {"epochs": self.epochs}

    def restore(self, state):
        self.epochs = state["epochs"]


class KilledError(Exception):
    """Raised in place of an epoch."""


def test_each_chunk_begins_with_its_first_state_and_a_killed_one_goes_on(tmp_path, monkeypatch):
    experiment(range(16)).run(tmp_path / "whole", chunk=8, callbacks=[Counting()], console=QUIET())
    curves = pandas.read_csv(tmp_path / "whole" / "epochs.csv")
    assert (curves["counting.epochs"] == 10 + curves["epoch"]).all()
    monkeypatch.setattr(saves, "SAVE_EVERY", 0.0)
    row = chunk.Curves.row

    def killed(curves, epoch, *arguments):
        if epoch == 3:
            raise KilledError
        return row(curves, epoch, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(chunk.Curves, "row", killed)
        experiment(range(16)).run(tmp_path / "killed", chunk=8, callbacks=[Counting()], console=QUIET())
    experiment(range(16)).run(tmp_path / "killed", chunk=8, callbacks=[Counting()], console=QUIET())
    for name in ("runs.csv", "epochs.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def twice(trainer, row):
    return {"loss": 2 * row["validation_loss"]} if row["epoch"] != 2 else None


def test_those_of_own_parts_are_called_and_may_measure_in_some_epochs(tmp_path):
    experiment((0,), Training(BASE, Own(callbacks=lambda config: [twice]))).run(tmp_path / "e", console=QUIET())
    curves = pandas.read_csv(tmp_path / "e" / "epochs.csv")
    expected = np.where(curves["epoch"] == 2, np.nan, 2 * curves["validation_loss"])
    np.testing.assert_allclose(curves["twice.loss"], expected, rtol=1e-12)


def test_what_is_no_callback_is_refused_before_anything_trains(tmp_path):
    with pytest.raises(TypeError, match="5 cannot be called"):
        experiment((0,)).run(tmp_path / "e", callbacks=[5], console=QUIET())

    def wrong(trainer, row):
        return {"a": [1.0, 2.0, 3.0]}

    with pytest.raises(
        TypeError, match=r"returned \[1.0, 2.0, 3.0\] as 'a'; expected are numbers or arrays of 2 numbers"
    ):
        experiment((0,)).run(tmp_path / "e", callbacks=[wrong], console=QUIET())
