"""The directory of a run in training: links in it are refused, and so is a save once it was moved or deleted."""

import shutil

import numpy as np
import pytest

from csbp_jax.config import CheckpointError, ConfigError, to_json
from csbp_jax.experiment import Experiment, system
from csbp_jax.runtime.preemption import Stop
from csbp_jax.training import loop, run_dir
from tests.support import small_runs
from tests.support.small_run import SMALL, run
from tests.support.small_runs import QUIET

pytestmark = pytest.mark.usefixtures("one_compilation_per_config")


@pytest.fixture
def own(tmp_path):
    """A folder of the user's that a link leads to, with what training could delete or overwrite."""
    folder = tmp_path / "own"
    (folder / "77.gone").mkdir(parents=True)
    for name in ("77.gone/f", "training.png", "accuracy.png", "000000.json"):
        (folder / name).write_text("precious")
    yield folder
    assert {path.read_text() for path in folder.rglob("*") if path.is_file()} == {"precious"}
    assert len(list(folder.rglob("*"))) == 5


@pytest.mark.parametrize("name", run_dir.FOLDERS)
def test_training_does_not_go_on_through_a_link(name, own, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / name).symlink_to(own)
    message = rf"r/{name}: is a link, and results would be written where it leads; remove it$"
    with pytest.raises(ConfigError, match=message), run_dir.open_run(tmp_path, to_json(SMALL), "r", False, QUIET()):
        pass


def test_neither_a_shard_nor_the_best_goes_where_a_link_leads(own, tmp_path, monkeypatch, refused):
    accuracies = {f"last_{split}_accuracy": np.full(8, 0.5) for split in ("test", "validation")}
    monkeypatch.setattr(system, "train", lambda *_: accuracies | {"diverged": np.zeros(8, bool)})
    experiment = Experiment(small_runs.SMALL, {"a": {}, "b": {"chaos.z0": 0.0}}, seeds=(0,))
    experiment.run(tmp_path / "s", console=QUIET())
    (tmp_path / "s" / "best-seeds-1-2-with-control").symlink_to(own)
    assert "s/best-seeds-1-2-with-control: is a link" in refused("best", tmp_path / "s", "--seeds", "2")
    (tmp_path / "s" / "shards" / "0-of-2").symlink_to(own)
    with pytest.raises(ConfigError, match=r"s/shards/0-of-2: is a link"):
        experiment.run(tmp_path / "s", shard=(0, 2), console=QUIET())


class Then(Stop):
    """Requests nothing, but calls a function when a run has looked for a request ``times`` times."""

    def __init__(self, times, function):
        super().__init__()
        self.times, self.function = times, function

    def poll(self):
        self.times -= 1
        if self.times == 0:
            self.function()
        return None


def replaced(folder):
    folder.rename(folder.with_name("moved"))
    folder.mkdir()


def emptied(folder):
    """As ``rm -r`` does that meets a save."""
    shutil.copytree(folder, folder.with_name("moved"))
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


GONE = {
    "deleted": lambda folder: shutil.rmtree(folder.rename(folder.with_name("moved"))),
    "moved": lambda folder: folder.rename(folder.with_name("moved")),
    "replaced": replaced,
    "emptied": emptied,
}
# Within the first epoch, after its save, and in the final test, which nothing is saved after.
TIMES = (2, 5, 11)


# Of TensorStore's threads, whose save has failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("how", GONE)
def test_a_run_whose_directory_has_gone_ends_at_the_next_save(how, times, tmp_path):
    folder = tmp_path / "r"
    stop = Then(times, lambda: GONE[how](folder))
    with pytest.raises(CheckpointError, match=r"r: was moved or deleted while it trained, and nothing more is saved; "):
        run(SMALL, tmp_path, name="r", stop=stop)
    assert stop.times <= 0
    assert not folder.exists() or not list(folder.iterdir())
    if how == "moved":
        (tmp_path / "moved").rename(folder)
        assert run(SMALL, tmp_path, name="r")[0]["last"]["epoch"] == SMALL.epochs


def test_a_name_is_refused_before_the_data_are_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"^NAME: 'a/b' is not possible"):
        loop.train("mnist", name="a/b", data_dir=tmp_path)
