"""Remedies that messages name for damaged, lost and foreign files of a run: each is followed, and works."""

import dataclasses
import json
import re
import shutil

import pytest

from csbp_jax.cli import main
from csbp_jax.config import CheckpointError, ConfigError, to_json
from csbp_jax.runtime import seals
from csbp_jax.training import continuation, run_json
from csbp_jax.training.checkpoint import layout
from csbp_jax.training.metrics_log import read_rows
from tests.support.older_checkpoints import change_metadata, forget_array, forget_run
from tests.support.small_run import SMALL, run, timeless_rows

pytestmark = pytest.mark.usefixtures("no_figures", "one_compilation_per_config")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root / "r", run(SMALL, root, name="r")[0]


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "r")


def damage(checkpoint):
    file = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.full
def test_a_finished_run_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before(finished, copy, refused):
    damage(copy / "checkpoints" / "4")
    error = refused("evaluate", copy, code=4)
    assert re.search(
        r"checkpoints: the newest checkpoint is damaged \(4: .* is damaged\); repeat the command that trained the run, "
        "which then goes on from step 2\n$",
        error,
    )
    before, log = (copy / "result.json").read_bytes(), timeless_rows(copy / "metrics.jsonl")
    result, text = run(SMALL, copy.parent, name="r")
    assert "was finished, but a checkpoint is damaged (4: " in text and "resumed after step 2" in text
    assert result | {"seconds": 0} == finished[1] | {"seconds": 0} == run_json.read_result(copy) | {"seconds": 0}
    assert timeless_rows(copy / "metrics.jsonl") == log
    (old,) = copy.glob("result.json.before-*")
    assert old.read_bytes() == before and list(layout.complete(copy / "checkpoints")) == [2, 4]
    assert main.main(["evaluate", str(copy)]) == 0
    assert "is finished" in run(SMALL, copy.parent, name="r")[1]


@pytest.mark.full
def test_a_finished_run_without_an_intact_checkpoint_stays_finished(finished, copy, refused):
    for step in (2, 4):
        damage(copy / "checkpoints" / str(step))
    said = refused("evaluate", copy, code=4)
    assert re.search(r"no checkpoint is intact \(4: .*; 2: .*\); restore one from a copy, or train", said)
    result, text = run(SMALL, copy.parent, name="r")
    assert result == finished[1] and "is finished; FRESH=1 (--fresh) starts from scratch" in text
    shutil.rmtree(copy / "checkpoints")
    said = refused("evaluate", copy)
    assert "the checkpoints of this finished run are missing; put them back, or train again" in said
    assert run(SMALL, copy.parent, name="r")[0] == finished[1]


@pytest.mark.parametrize("epochs", ["abc", None])
def test_a_config_that_was_edited_into_nonsense_is_one_line(copy, epochs):
    content = json.loads((copy / "config.json").read_text())
    del content["sha256"]
    content["config"] |= {"epochs": epochs}
    (copy / "config.json").write_text(json.dumps(content))
    (copy / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json"):
        run(SMALL, copy.parent, name="r")


def test_a_damaged_result_is_written_again_by_a_test_without_training(finished, copy):
    content = json.loads((copy / "result.json").read_text())
    content["last"]["test_accuracy"] += 0.01
    (copy / "result.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"result.json: was damaged .*, its sha256 differs; delete it, and the"):
        run(SMALL, copy.parent, name="r")
    (copy / "result.json").unlink()
    result, text = run(SMALL, copy.parent, name="r")
    assert result == finished[1] and "resumed after step 4" in text


def test_a_checkpoint_of_another_run_is_refused(finished, copy, tmp_path, refused):
    other = dataclasses.replace(SMALL, seed=1)
    run(other, tmp_path / "others", name="r")
    theirs = tmp_path / "others" / "r" / "checkpoints" / "4"
    shutil.rmtree(copy / "checkpoints" / "4")
    shutil.copytree(theirs, copy / "checkpoints" / "4")
    (copy / "result.json").unlink()
    line = r"4: is a checkpoint of another run; differing are seed \(1 there, 0 here\). Put the run's own in its place"
    assert re.search(line, refused("evaluate", copy, code=4))
    with pytest.raises(CheckpointError, match=line):
        run(SMALL, copy.parent, name="r")
    assert list(layout.complete(copy / "checkpoints")) == [2, 4]
    shutil.move(copy / "checkpoints" / "4", tmp_path)
    result, text = run(SMALL, copy.parent, name="r")
    assert "resumed after step 2" in text and result | {"seconds": 0} == finished[1] | {"seconds": 0}


def test_a_checkpoint_of_an_older_version_names_no_run_and_resumes(finished, copy):
    assert [run["seed"] for run in forget_run(copy / "checkpoints")] == [0, 0]
    shutil.rmtree(copy / "checkpoints" / "4")
    (copy / "result.json").unlink()
    result, text = run(SMALL, copy.parent, name="r")
    assert "resumed after step 2" in text and result["params_sha256"] == finished[1]["params_sha256"]


def edit(copy, **fields):
    """The config after an edit of a run's ``config.json``."""
    content = json.loads((copy / "config.json").read_text())
    content["config"] |= fields
    del content["sha256"]
    (copy / "config.json").write_text(json.dumps(content))
    return dataclasses.replace(SMALL, **fields)


def test_a_finished_run_goes_on_after_its_epochs_were_raised(finished, copy):
    before, log = (copy / "result.json").read_bytes(), read_rows(copy / "metrics.jsonl")
    edited = edit(copy, epochs=3, eval_batch_size=90)  # neither tells runs apart
    result, text = run(edited, copy.parent, name="r")
    (old,) = copy.glob("result.json.before-*")
    assert f"was finished, but after 2 of now 3 epochs; its result is kept as {old.name}" in text
    assert "resumed after step 4" in text and result["last"]["epoch"] == 3 and old.read_bytes() == before
    rows = read_rows(copy / "metrics.jsonl")
    assert rows[: len(log)] == log and [row["step"] for row in rows if row["kind"] == "epoch"] == [2, 4, 6]
    again, text = run(edited, copy.parent, name="r")
    assert again == result and "r is finished; FRESH=1" in text


@pytest.mark.parametrize("schedule, said", [("cosine", True), ("step", False), ("constant", False)])
def test_only_a_schedule_that_ends_with_the_run_is_that_of_its_new_epochs(copy, schedule, said):
    config = SMALL.replace(**{"optimizer.schedule": schedule})
    seals.write_json(copy / "config.json", run_json.read_config(copy) | {"config": to_json(config)})
    longer, lines = config.replace(epochs=3), list[str]()
    decision = continuation.decide(copy, str(copy / "checkpoints"), longer)
    assert list(copy.glob("result.json*")) == [copy / "result.json"]
    continuation.carry_out(decision, copy, longer, lines.append)
    assert "epochs (2 there, 3 here)" in lines[-1] and ("schedule of the rate" in lines[-1]) == said


def test_a_run_goes_on_with_other_values_of_what_changes_no_step(copy):
    """By its folder, from the command line; fewer epochs and another seed are refused."""
    content = json.loads((copy / "config.json").read_text())
    for change, fields in (({"seed": 1}, r"seed \(0 there, 1 here\)"), ({"epochs": 1}, r"epochs \(2 there, 1 here\)")):
        with pytest.raises(ConfigError, match=rf"{fields}.*\. Give another NAME \(train DATASET --name NAME\), or"):
            run(SMALL.replace(**change), copy.parent, name="r")
    assert json.loads((copy / "config.json").read_text()) == content
    result, text = run(SMALL.replace(epochs=3, loss_limit=0), copy.parent, name="r")
    assert result["last"]["epoch"] == 3 and "goes on with other values: epochs (2 there, 3 here); loss_limit" in text
    assert (
        run_json.read_config(copy)["config"]["epochs"] == 3 and "schedule of the rate is now that of 3 epochs" in text
    )


def test_train_takes_the_folder_of_a_run(copy, monkeypatch, capsys, refused):
    monkeypatch.chdir(copy.parent.parent)
    folder = str(copy.relative_to(copy.parent.parent))
    before = (copy / "config.json").read_bytes()
    assert main.main(["train", folder, "--patience", "7"]) == 0
    out = capsys.readouterr().out
    assert "without effect, as it is finished: patience (0 there, 7 here)" in out and f"{folder} is finished" in out
    assert (copy / "config.json").read_bytes() == before
    for option, message in {
        "--name other": "is the run that goes on; leave them out; or, for a run of another name, write its data set in",
        "--epochs 1": "a run goes on for more epochs, not for fewer. Give another NAME (train DATASET",
        "--optimizer.lr 1": "optimizer.lr",
    }.items():
        assert message in refused("train", folder, *option.split())


@pytest.mark.parametrize("problem", ["4: .*; 2: .*", "all are missing"])
def test_epochs_raised_without_an_intact_checkpoint_change_nothing(copy, problem):
    for checkpoint in (copy / "checkpoints" / "2", copy / "checkpoints" / "4"):
        if problem == "all are missing":
            shutil.rmtree(checkpoint)
        else:
            damage(checkpoint)
    with pytest.raises(CheckpointError, match=rf"no checkpoint is intact \({problem}\); start from scratch"):
        run(edit(copy, epochs=3), copy.parent, name="r")
    assert (copy / "result.json").exists() and not list(copy.glob("result.json.before-*"))


def of_another_version(copy):
    forget_array(copy / "checkpoints", "state/params/conv1/conv/kernel")


def of_a_later_format(copy):
    change_metadata(copy / "checkpoints", lambda metadata: metadata.update(format=3))


def damaged_and_of_another_version(copy):
    of_another_version(copy)
    damage(copy / "checkpoints" / "4")


def without_a_row(copy):
    log = copy / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"kind": "epoch"' not in line))


VERSION = (
    r"was written by another version of csbp_jax \(format 2\), or with other code of your own: it holds other arrays "
    r"\(state/params/conv1/conv/kernel \(None there, 'float32\[3, 3, 1, 2\]' here\)\); use the version that trained "
)


@pytest.mark.parametrize("spoil, code, line", [
    (of_another_version, 4, rf"checkpoints/4: {VERSION}"),
    (of_a_later_format, 4, "checkpoints/4: its format is 3, and this version of csbp_jax reads those up to 2; use the"),
    (damaged_and_of_another_version, 4, rf"checkpoints/2: {VERSION}"),
    (without_a_row, 2, "metrics.jsonl: rows up to step 4 are missing; put back a copy of the file, or start from scr"),
])  # fmt: skip
def test_a_finished_run_that_cannot_go_on_keeps_all_its_files(spoil, code, line, copy, refused):
    """Its result above all: without it the run would count as unfinished."""
    spoil(copy)
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert copy / "result.json" in files and copy / "config.json" in files
    assert re.search(line, refused("train", copy, "--epochs", "3", code=code))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files


def with_an_older_metric(metadata):
    metadata["arrays"]["progress/sums/older"] = "float64[]"


@pytest.mark.parametrize("change", [
    lambda metadata: metadata["arrays"].pop("progress/sums/task_loss"),
    with_an_older_metric,
    lambda metadata: metadata.pop("format"),
], ids=["one metric more", "one metric less", "the first format"])  # fmt: skip
def test_a_run_goes_on_whatever_metrics_the_version_had_that_stored_it(change, finished, copy):
    change_metadata(copy / "checkpoints", change)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "4")
    result, text = run(SMALL, copy.parent, name="r")
    assert "resumed after step 2" in text and result | {"seconds": 0} == finished[1] | {"seconds": 0}
    assert timeless_rows(copy / "metrics.jsonl") == timeless_rows(finished[0] / "metrics.jsonl")


def test_a_refused_run_keeps_its_metrics_also_if_its_checkpoints_have_a_copy(tmp_path):
    run(SMALL, tmp_path / "apart", name="r", checkpoints=str(tmp_path / "saves"))
    folder = tmp_path / "apart" / "r"
    (folder / "result.json").unlink()
    edited, rows = edit(folder, epochs=1), (folder / "metrics.jsonl").read_text() + '{"kind": "mine"}'
    (folder / "metrics.jsonl").write_text(rows)
    with pytest.raises(ConfigError, match=r"^epochs: 1 is not possible"):
        run(edited, folder.parent, name="r", checkpoints=str(tmp_path / "saves"))
    assert (folder / "metrics.jsonl").read_text() == rows


def test_a_command_that_reads_a_run_of_another_version_says_so(copy, refused):
    forget_array(copy / "checkpoints", "state/params/conv1/conv/kernel")
    error = refused("evaluate", copy, code=4)
    assert "4: was written by another version" in error and error.endswith("; use the version that trained the run\n")
    of_a_later_format(copy)
    error = refused("evaluate", copy, code=4)
    assert error.endswith(
        "4: its format is 3, and this version of csbp_jax reads those up to 2; use the version that trained the run\n"
    )


def test_a_run_that_stopped_early_stays_finished_after_its_epochs_were_raised(copy):
    content = run_json.read_result(copy)
    content["chosen"]["epoch"] = 1
    (copy / "result.json").write_text(json.dumps(content))
    result, text = run(edit(copy, epochs=9, patience=1), copy.parent, name="r")
    assert result == content and "r is finished after 2 epochs, not 9; FRESH=1" in text


def test_epochs_before_the_newest_checkpoint_are_refused(copy):
    """Its weights would be taken for those of the last of these epochs."""
    edited = edit(copy, epochs=1)
    result, text = run(edited, copy.parent, name="r")
    assert result["last"]["epoch"] == 2 and "r is finished after 2 epochs, not 1; FRESH=1" in text
    (copy / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"^epochs: 1 is not possible, .*/r is of epoch 2; allowed is from this ep"):
        run(edited, copy.parent, name="r")
    assert not (copy / "result.json").exists()


def test_rows_without_a_checkpoint_are_kept(finished, copy):
    before = (copy / "metrics.jsonl").read_bytes()
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    result, text = run(SMALL, copy.parent, name="r")
    (old,) = copy.glob("metrics.jsonl.before-*")
    assert f"r: has metrics but no checkpoint; they are kept as {old.name}" in text and "a new run" in text
    assert old.read_bytes() == before
    assert timeless_rows(copy / "metrics.jsonl") == timeless_rows(old)
    assert result["params_sha256"] == finished[1]["params_sha256"]
