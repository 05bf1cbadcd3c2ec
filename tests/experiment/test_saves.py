"""Runs that train together are saved within their training: a killed sweep goes on, and ends as without the kill."""

import dataclasses
import io

import pytest

from csbp_jax.config import CheckpointError
from csbp_jax.experiment import Experiment, Training, chunk, saves
from csbp_jax.reporting.terminal import Console
from csbp_jax.training import compiled_group
from csbp_jax.training.checkpoint import checkpoint
from tests.experiment.test_training import DENSE

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")

BASE = dataclasses.replace(DENSE, epochs=4)
EARLY = dataclasses.replace(BASE, patience=1, optimizer=dataclasses.replace(BASE.optimizer, ema=0.9))
ARMS = {"calm": {"chaos.z0": 0.0, "optimizer.lr": 0.0}, "chaotic": {}}
"""The loss of the first does not fall, so that it stops as soon as patience allows."""


class KilledError(Exception):
    """Ends a sweep where a signal might."""


def run(config, folder, seeds=(0, 1)):
    output = io.StringIO()
    Experiment(Training(config), ARMS, seeds=seeds).run(folder, console=Console(file=output, width=200))
    return output.getvalue()


def contents(folder):
    """The bytes of all results, by their names."""
    files = [*folder.glob("blocks/*"), *folder.glob("*.csv"), folder / "settings.json"]
    assert len(files) > 3
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def recorded(monkeypatch, kill_in=None):
    """Record the epochs that are trained, from 0 on, and raise an error instead of one of them."""
    trained, row = [], chunk.Curves.row

    def row_of(curves, epoch, *arguments):
        if epoch - 1 == kill_in:
            raise KilledError
        trained.append(epoch - 1)
        return row(curves, epoch, *arguments)

    monkeypatch.setattr(chunk.Curves, "row", row_of)
    return trained


@pytest.mark.parametrize(
    ("config", "resident"),
    [(BASE, True), (EARLY, True), pytest.param(EARLY, False, marks=pytest.mark.full)],
    ids=["scan", "patience and averages", "streams"],
)
def test_a_killed_chunk_goes_on_and_ends_to_the_byte(tmp_path, monkeypatch, config, resident):
    if not resident:
        monkeypatch.setattr(compiled_group, "MOST_RESIDENT", 0)
    run(config, tmp_path / "whole")
    assert not list(tmp_path.glob("whole/shards/*/chunks")), "a chunk of less than a minute is not saved"
    monkeypatch.setattr(saves, "SAVE_EVERY", 0)
    with monkeypatch.context() as killed:
        assert recorded(killed, kill_in=2) == []
        with pytest.raises(KilledError):
            run(config, tmp_path / "killed")
    assert list(tmp_path.glob("killed/shards/*/chunks/*/*")) and not list(tmp_path.glob("killed/blocks/*"))
    trained = recorded(monkeypatch)
    run(config, tmp_path / "killed")
    assert trained[0] == 2, "two epochs were saved"
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob("killed/shards/*/chunks")), "they are removed once the results are written"


@pytest.mark.parametrize("change", ["damaged", "other seeds"])
def test_a_damaged_save_or_one_of_other_runs_is_not_gone_on_from(tmp_path, monkeypatch, change):
    monkeypatch.setattr(saves, "SAVE_EVERY", 0)
    with monkeypatch.context() as killed, pytest.raises(KilledError):
        recorded(killed, kill_in=2)
        run(BASE, tmp_path / "e")
    if change == "damaged":
        for file in tmp_path.glob("e/shards/*/chunks/*/*/manifest.json"):
            file.write_text(file.read_text().replace("0", "1"))
    trained = recorded(monkeypatch)
    output = run(BASE, tmp_path / "e", (0, 1) if change == "damaged" else (2, 3))
    assert trained == [0, 1, 2, 3]
    is_said = "no checkpoint is intact" in output and "The runs of this chunk begin again" in output
    assert is_said == (change == "damaged")


def test_a_chunk_that_cannot_be_saved_trains_on(tmp_path, monkeypatch):
    run(BASE, tmp_path / "whole")
    monkeypatch.setattr(saves, "SAVE_EVERY", 0)

    def no_folder(*arguments, **options):
        raise CheckpointError("the disk is full; make room")

    monkeypatch.setattr(checkpoint, "open_folder", no_folder)
    output = run(BASE, tmp_path / "e")
    assert output.count("the disk is full; make room. The runs of this chunk train on") == 1
    assert contents(tmp_path / "e") == contents(tmp_path / "whole")
