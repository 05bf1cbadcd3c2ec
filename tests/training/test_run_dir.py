"""The directory of a run in training: links in it are refused, and so is a save once something in it was replaced."""

import shutil
import time

import numpy as np
import pytest

from csbp_jax.config import CheckpointError, ConfigError, to_json
from csbp_jax.experiment import Experiment, system
from csbp_jax.runs import restore
from csbp_jax.runtime.preemption import Stop
from csbp_jax.training import loop, run_dir
from tests.support import small_runs
from tests.support.rows import full
from tests.support.small_run import SMALL, run, timeless_rows
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
    shards = tmp_path / "s" / "shards"
    for link in (shards / "0-of-2" / "chunks", shards / "0-of-2", shards):
        if link.is_dir():
            shutil.rmtree(link)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(own)
        with pytest.raises(ConfigError, match=rf"{link}: is a link, and results would be written where it leads"):
            experiment.run(tmp_path / "s", shard=(0, 2), console=QUIET())
        link.unlink()


class Then(Stop):
    """Calls a function when a run has looked for a request ``times`` times, and then requests a stop, or nothing."""

    def __init__(self, times, function, code=None):
        super().__init__()
        self.times, self.function, self.code = times, function, code

    def poll(self):
        self.times -= 1
        if self.times == 0:
            self.function()
        return self.code if self.times <= 0 else None


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
@pytest.mark.parametrize("times", [5, *(pytest.param(n, marks=pytest.mark.full) for n in TIMES if n != 5)])
@pytest.mark.parametrize("how", ["deleted", *full(["moved", "replaced", "emptied"])])
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


def once_saved(function):
    """A callback that calls ``function(folder)`` once the checkpoint of the first epoch is complete."""

    def in_the_second_epoch(trainer, row):
        if row["epoch"] == 2:
            deadline = time.monotonic() + 60
            while not (trainer.folder / "checkpoints" / "2").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            function(trainer.folder)

    return [in_the_second_epoch]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The result of a run and its rows."""
    root = tmp_path_factory.mktemp("undisturbed")
    return run(SMALL, root, name="r")[0], timeless_rows(root / "r" / "metrics.jsonl")


def as_an_editor_saves(log):
    """As ``sed -i`` does too: the same content in another file."""
    shutil.copy(log, log.with_name("new"))
    log.with_name("new").replace(log)


def linked_to_another(log):
    log.rename(log.with_name("m2"))
    log.with_name("other").touch()
    log.symlink_to("other")


def linked_to_itself(log):
    log.rename(log.with_name("m2"))
    log.symlink_to("m2")


def older(log):
    """As a program that synchronises folders may do."""
    log.with_name("new").write_text("".join(log.read_text().splitlines(True)[:2]))
    log.with_name("new").replace(log)


REPLACED = [as_an_editor_saves, linked_to_another, linked_to_itself, older, lambda log: log.unlink()]
OF_METRICS = "metrics.jsonl: was replaced, moved or deleted while the run trained, and nothing more is saved; rename "


@pytest.mark.parametrize(
    "replace",
    [REPLACED[0], *full(REPLACED[1:])],
    ids=["editor", "link", "link to itself", "older", "deleted"],
)
def test_metrics_that_are_replaced_end_the_run_at_its_next_save_and_their_rows_are_kept(replace, undisturbed, tmp_path):
    log = tmp_path / "r" / "metrics.jsonl"
    with pytest.raises(CheckpointError, match=OF_METRICS) as raised:
        run(SMALL, tmp_path, name="r", callbacks=once_saved(lambda _: replace(log)))
    assert not (log.parent / "result.json").exists()
    (kept,) = log.parent.glob("metrics.jsonl.kept-*")
    assert f"rename {kept.name}, which has all rows, to metrics.jsonl, and the same command resumes" in str(
        raised.value
    )
    assert timeless_rows(kept) == undisturbed[1]
    if replace != as_an_editor_saves:
        kept.replace(log)
    result, text = run(SMALL, tmp_path, name="r")
    assert "resumed after step 2" in text and result | {"seconds": 0} == undisturbed[0] | {"seconds": 0}
    assert timeless_rows(log) == undisturbed[1] and not log.is_symlink()


def test_a_run_whose_metrics_were_replaced_does_not_say_that_all_is_saved_when_it_is_stopped(tmp_path):
    log = tmp_path / "r" / "metrics.jsonl"
    with pytest.raises(CheckpointError, match=OF_METRICS):
        run(SMALL, tmp_path, name="r", stop=Then(2, lambda: as_an_editor_saves(log), code=42))
    assert not list((log.parent / "checkpoints").iterdir())


def without_an_epoch(folder):
    log = folder / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"step": 4' not in line))


def test_rows_that_are_missing_at_the_end_are_one_line_and_no_result(tmp_path):
    with pytest.raises(ConfigError, match=r"metrics.jsonl: rows up to step 4 are missing; put back a copy of the file"):
        run(SMALL, tmp_path, name="r", stop=Then(9, lambda: without_an_epoch(tmp_path / "r")))
    assert not (tmp_path / "r" / "result.json").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda place, theirs: place.symlink_to(theirs),
        pytest.param(lambda place, theirs: theirs.rename(place), marks=pytest.mark.full),
    ],
    ids=["link", "folder"],
)
def test_what_takes_the_place_of_the_checkpoints_ends_the_run_at_its_next_save(make, undisturbed, tmp_path):
    """As where they were moved to a larger disk: nothing there is deleted, whatever it is called."""
    place, theirs = tmp_path / "r" / "checkpoints", tmp_path / "theirs"
    for name in ("0", "1", "2", "3", "99999"):
        (theirs / name).mkdir(parents=True)
        (theirs / name / "image").write_text("precious")

    def swap(_):
        place.rename(tmp_path / "moved")
        make(place, theirs)

    with pytest.raises(CheckpointError, match=r"r/checkpoints: was replaced while the run trained; nothing more is sa"):
        run(SMALL, tmp_path, name="r", callbacks=once_saved(swap))
    assert sorted(f"{path.parent.name} {path.read_text()}" for path in place.rglob("image")) == [
        f"{name} precious" for name in ("0", "1", "2", "3", "99999")
    ]
    assert len(list(place.rglob("*"))) == 10
    place.rename(tmp_path / "seen")
    (tmp_path / "moved").rename(place)
    result, text = run(SMALL, tmp_path, name="r")
    assert "resumed after step 2" in text and result["params_sha256"] == undisturbed[0]["params_sha256"]


def test_folders_of_the_users_among_the_checkpoints_stay(undisturbed, tmp_path):
    checkpoints = tmp_path / "r" / "checkpoints"

    def put_folders(_):
        for name in ("1", "4"):
            (checkpoints / name).mkdir()
            (checkpoints / name / "image").write_text("precious")

    result, text = run(SMALL, tmp_path, name="r", callbacks=once_saved(put_folders))
    assert f"{checkpoints}/4: is not a checkpoint, as it has no intact manifest.json, and stays; that of step 4" in text
    assert result["params_sha256"] == undisturbed[0]["params_sha256"]
    assert sorted(path.name for path in checkpoints.iterdir()) == ["1", "2", "4", "4.1"]
    assert [path.read_text() for path in checkpoints.glob("*/image")] == ["precious", "precious"]
    assert restore.restore(tmp_path / "r").epoch == 2


def test_figures_and_a_profile_are_not_written_through_a_link_that_was_put_there_in_training(own, tmp_path):
    for number, (name, options) in enumerate({"figures": {}, "profile": {"profile": "3:1"}}.items()):

        def link(trainer, row, name=name):
            if row["epoch"] == 1:
                (trainer.folder / name).symlink_to(own)

        with pytest.raises(
            ConfigError, match=rf"{number}/{name}: is a link, and results would be written where it lea"
        ):
            run(SMALL, tmp_path, name=str(number), callbacks=[link], **options)


def test_a_name_is_refused_before_the_data_are_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"^NAME: 'a/b' is not possible"):
        loop.train("mnist", name="a/b", data_dir=tmp_path)
