"""Checkpoints: whatever part of one is damaged, that is found; the newest whole one is used; a failure is one line."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from csbp_jax.config import CheckpointError
from csbp_jax.runtime import multihost, preemption, seals
from csbp_jax.training.checkpoint import checkpoint, layout, manifest
from tests.support.checkout import ROOT
from tests.support.matching import search

TREE: dict[str, Any] = {
    "params": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(4, jnp.bfloat16)},
    "key": jax.random.key(3),
    "mean": np.asarray(1 / 3),
    "nothing": {},
}


def at(step):
    return {**TREE, "params": jax.tree.map(lambda leaf: leaf + step, TREE["params"])}


def save(folder, *numbers):
    with checkpoint.open_folder(folder) as checkpoints:
        for step in numbers:
            checkpoints.save(step, at(step))


def restore(folder, like=TREE):
    reported: list[str] = []
    with checkpoint.open_folder(folder, reported.append) as checkpoints:
        tree = checkpoints.restore(like)
        checkpoints.set_damaged_aside()
        return tree, reported


def equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save(folder, 4, 9, 11)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of these checkpoints."""
    return shutil.copytree(saved, tmp_path / "c")


@pytest.fixture
def copy(folder):
    """A copy of the newest of them."""
    return folder / "11"


@pytest.fixture(params=["disk", "bucket"])
def names(request, monkeypatch):
    """Checkpoints are named as on a disk, or as in a bucket, which test_bucket.py has; a manifest's name on the way."""
    monkeypatch.setattr(layout, "is_bucket", lambda folder: request.param == "bucket")
    return {"disk": "{}.part.manifest", "bucket": "{}.manifest"}[request.param]


def test_the_newest_two_stay_and_come_back_bit_for_bit(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["11", "9"]
    tree, reported = restore(saved)
    equal(tree, at(11))
    assert reported == []


def test_an_empty_folder_has_none(tmp_path):
    assert restore(tmp_path / "new") == (None, [])


def damage(folder, rng):
    """Flips a bit of a file, cuts or empties it, or takes it or a folder away; returns what it did."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = rng.choice(files)
    kind = rng.choice(["flip", "flip", "flip", "cut", "empty", "delete", "folder"])
    content = bytearray(file.read_bytes())
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    elif kind == "cut":
        os.truncate(file, rng.randrange(len(content)))
    elif kind == "empty":
        os.truncate(file, 0)
    elif kind == "delete":
        file.unlink()
    else:
        shutil.rmtree(rng.choice([path for path in sorted(folder.rglob("*")) if path.is_dir()]))
    return kind, file.relative_to(folder)


@pytest.mark.parametrize("times", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_damages_are_all_found(saved, tmp_path, times):
    rng, files = random.Random(0), set()
    for _ in range(times):
        copy = shutil.copytree(saved / "11", tmp_path / "11")
        done = damage(copy, rng)
        files.add(done[1])
        assert manifest.verify(copy) is not None, done
        shutil.rmtree(copy)
    assert len(files) >= 5


def link_to(target):
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize("make", [os.mkfifo, link_to("/dev/zero"), link_to(".")], ids=["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ["manifest.json", "_METADATA", "d/unlisted"])
def test_a_file_that_is_none_is_not_opened(copy, name, make):
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    assert manifest.verify(copy) == f"{name} is not a regular file, but a folder, pipe or device; give a file"


NOT_ITS_OWN = "manifest.json names {}, which is not in its folder"


@pytest.mark.parametrize("listed, problem", [
    ({"/dev/zero": {"bytes": 1, "sha256": "0"}}, NOT_ITS_OWN.format("/dev/zero")),
    ({"d/../../x": {"bytes": 1, "sha256": "0"}}, NOT_ITS_OWN.format("d/../../x")),
    *((other, "manifest.json is damaged") for other in [[], 5, None]),
    *(({"_METADATA": other}, "_METADATA is damaged") for other in [5, {}]),
])  # fmt: skip
def test_a_manifest_names_files_of_its_folder(copy, listed, problem):
    content = json.loads((copy / "manifest.json").read_bytes()) | {"files": listed}
    del content["sha256"]
    seals.write_json(copy / "manifest.json", content)
    assert manifest.verify(copy) == problem


def test_a_manifest_that_is_too_large_is_not_read(copy):
    os.truncate(copy / "manifest.json", 2**40)
    assert manifest.verify(copy) == "manifest.json is damaged"


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_every_bit_of_the_manifest_and_of_the_smallest_file_is_guarded(copy, stride):
    assert manifest.verify(copy) is None
    for file in (copy / "manifest.json", copy / "commit_success.txt"):
        content = file.read_bytes()
        for position in range(0, len(content), stride):
            flipped = bytearray(content)
            flipped[position] ^= 1 << position % 8
            file.write_bytes(flipped)
            assert manifest.verify(copy) is not None, (file.name, position)
        file.write_bytes(content)
    assert manifest.verify(copy) is None


def test_a_damaged_checkpoint_is_renamed_and_reported_and_the_one_before_it_is_used(folder):
    (folder / "11" / "_METADATA").unlink()
    tree, reported = restore(folder)
    equal(tree, at(9))
    (aside,) = folder.glob("11.damaged-*")
    assert reported == [f"{folder}/11: _METADATA is missing; renamed to {aside.name}"]
    save(folder, 10, 11)  # older than the newest was
    assert list(layout.complete(folder)) == [10, 11] and aside.exists()
    equal(restore(folder)[0], at(11))


RESTORES_DAMAGED = """
import pathlib, sys
import jax
from csbp_jax.config import CheckpointError
from csbp_jax.training.checkpoint import checkpoint, manifest

folder = pathlib.Path(sys.argv[1])
tree = {f"layer{i}": jax.random.normal(jax.random.key(i), (64, 64)) for i in range(8)}
with checkpoint.open_folder(folder) as checkpoints:
    checkpoints.save(1, tree)
metadata = manifest.metadata(folder / "1")
for file in (folder / "1").glob("ocdbt.process_0/d/*"):
    file.write_bytes(bytes(file.stat().st_size))
(folder / "1" / manifest.NAME).unlink()
manifest.write_manifest(folder / "1", metadata)
for _ in range(10):
    try:
        checkpoint.restore_newest(folder, tree)
    except CheckpointError as error:
        print(error)

class Other:
    def __del__(self):
        raise RuntimeError("of another cause")

Other()
"""


@pytest.mark.full
def test_a_read_that_fails_is_raised_and_its_remains_print_nothing(tmp_path):
    """Orbax leaves reads of the other arrays behind, whose threads have nobody to report to."""
    line = [sys.executable, "-c", RESTORES_DAMAGED, str(tmp_path / "c")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count("this checkpoint cannot be read") == len(done.stdout.splitlines()) == 10
    assert "Encountered error while reading array" in done.stdout and "TensorStore" not in done.stdout
    assert done.stderr.count("Traceback") == 1 and done.stderr.endswith("RuntimeError: of another cause\n")


@pytest.mark.parametrize("number, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, preemption.Stopped)])
def test_a_signal_while_one_is_read_is_no_damage(number, raised, saved, monkeypatch):
    async def signalled(**_):
        signal.raise_signal(number)

    monkeypatch.setattr("orbax.checkpoint._src.serialization.serialization._read_shard", signalled)
    stopping = preemption.on_signals() if number == signal.SIGTERM else contextlib.nullcontext()
    with pytest.raises(raised), stopping:
        restore(saved)


def test_if_all_are_damaged_nothing_is_changed(folder):
    (folder / "9" / "manifest.json").unlink()
    (folder / "11" / "manifest.json").write_text("[3]")
    with pytest.raises(CheckpointError, match=r"intact \(11: manifest.json is damaged; 9: manifest.json is missing\)"):
        restore(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["11", "9"]


def test_remains_of_a_kill_are_removed(folder, saved):
    shutil.copytree(saved / "11", folder / "12.part")  # between seal and name
    shutil.copytree(saved / "9", folder / "9.1.part")  # the same, in place of another
    (folder / "13.part.orbax-checkpoint-tmp").mkdir()
    shutil.copytree(saved / "9", folder / "14.part")
    (folder / "14.part" / "manifest.json").unlink()  # before its seal
    (folder / "14.part.manifest").write_text("{")
    shutil.copytree(saved / "9", folder / "4.gone")
    (folder / "4.gone" / "_METADATA").unlink()
    equal(restore(folder)[0], at(11))
    assert sorted(path.name for path in folder.iterdir()) == ["11", "9"]


def test_the_newest_of_a_step_stays_also_if_a_kill_left_the_older(folder, saved, names):
    with checkpoint.open_folder(folder) as checkpoints:
        checkpoints.save(11, at(100))
    assert sorted(path.name for path in folder.iterdir()) == ["11.1", "9"]
    equal(checkpoint.restore_newest(folder, TREE), at(100))
    shutil.copytree(saved / "11", folder / "11")
    equal(restore(folder)[0], at(100))
    save(folder, 12)
    assert sorted(path.name for path in folder.iterdir()) == ["11.1", "12"]


@pytest.fixture
def bucket(folder, monkeypatch):
    """The steps 9 and 11 in a folder whose checkpoints are named as in a bucket."""
    monkeypatch.setattr(layout, "is_bucket", lambda folder: True)
    return folder


def test_a_checkpoint_without_a_manifest_is_incomplete_and_removed(bucket):
    shutil.copytree(bucket / "11", bucket / "12")
    (bucket / "12" / "manifest.json").unlink()  # a kill before the seal, or within a deletion
    (bucket / "13.manifest").write_text("{")
    assert list(layout.complete(bucket)) == [9, 11]
    equal(restore(bucket), (at(11), []))
    assert sorted(path.name for path in bucket.iterdir()) == ["11", "9"]


def test_a_damaged_checkpoint_loses_its_manifest_and_its_step_is_saved_again(bucket):
    (bucket / "11" / "_METADATA").write_text("{}")
    tree, (line,) = restore(bucket)
    equal(tree, at(9))
    (aside,) = (bucket / "11").glob("manifest.json.damaged-*")
    assert line == f"{bucket}/11: _METADATA is damaged; renamed to 11/{aside.name}"
    save(bucket, 11)
    assert sorted(path.name for path in bucket.iterdir()) == ["11", "11.1", "9"] and aside.exists()
    equal(restore(bucket), (at(11), []))
    for path in (bucket / "11.1", bucket / "9"):
        (path / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match=r"intact \(11.1: _METADATA is missing; 9: _METADATA is missing\)"):
        restore(bucket)
    assert (bucket / "11.1" / "manifest.json").exists() and (bucket / "9" / "manifest.json").exists()


def test_only_remains_of_checkpoints_are_removed(tmp_path):
    names = ["film.part1.rar", "x.gone", "x.part"]
    for name in (*names, "12.part.manifest"):
        (tmp_path / name).touch()
    (tmp_path / "my.partition").mkdir()
    (tmp_path / "13.part").mkdir()
    (tmp_path / "14.part").symlink_to(tmp_path / "my.partition")
    with checkpoint.open_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "my.partition"])


def test_only_checkpoints_with_a_manifest_are_deleted(folder, tmp_path, saved):
    """Folders of the user's that have numbers stay, and so does what a link leads to."""
    elsewhere, reported = shutil.copytree(saved / "9", tmp_path / "elsewhere"), list[str]()
    with checkpoint.open_folder(folder, reported.append) as checkpoints:
        for name in ("1", "2", "12", "20"):
            (folder / name).mkdir()
            (folder / name / "image").write_text("precious")
        (folder / "2" / "manifest.json").write_text('{"name": "of a web page"}')
        (folder / "3").symlink_to(elsewhere)
        theirs = {path: path.read_bytes() for path in folder.rglob("*") if path.parent.name in ("1", "2", "12", "20")}
        for step in (12, 13):
            checkpoints.save(step, at(step))
    assert sorted(path.name for path in folder.iterdir()) == ["1", "12", "12.1", "13", "2", "20", "3"]
    assert {path: path.read_bytes() for path in theirs} == theirs and manifest.verify(elsewhere) is None
    assert reported == [
        f"{folder}/12: is not a checkpoint, as it has no intact manifest.json, and stays; that of step 12 is saved as "
        "12.1"
    ]
    shutil.rmtree(folder / "20")
    shutil.rmtree(folder / "13")
    equal(restore(folder)[0], at(12))


@pytest.fixture
def swapped(folder, tmp_path):
    """Puts something in the place of a folder of checkpoints, and returns the path that it gives the folder."""

    def swap(replacement):
        aside = folder.rename(tmp_path / "aside")
        replacement(folder, aside)
        return aside

    return swap


@pytest.mark.parametrize("replacement", [
    lambda folder, aside: folder.symlink_to(aside),
    lambda folder, aside: folder.symlink_to(shutil.copytree(aside, aside.with_name("larger disk"))),
    lambda folder, aside: shutil.copytree(aside, folder),
], ids=["a link to it", "a link to a copy", "a copy"])  # fmt: skip
def test_what_takes_the_place_of_the_folder_ends_the_run_and_stays_as_it_is(replacement, folder, swapped):
    message = (
        r"c: was replaced while the run trained; nothing more is saved, .*\. Put the directory of its checkpoints ba"
    )
    with pytest.raises(CheckpointError, match=message), checkpoint.open_folder(folder) as checkpoints:
        aside = swapped(replacement)
        (aside / "7.part").mkdir()
        (folder / "8.part").mkdir(exist_ok=True)
        before = sorted(folder.rglob("*"))
        checkpoints.save(12, at(12))
    assert sorted(folder.rglob("*")) == before and sorted(path.name for path in aside.iterdir())[:2] == ["11", "7.part"]


def test_a_link_that_takes_the_place_of_the_folder_while_a_save_is_written_loses_nothing(folder, swapped, tmp_path):
    theirs, reported = shutil.copytree(folder, tmp_path / "theirs"), list[str]()
    (theirs / "1.gone").mkdir()
    before = sorted(theirs.rglob("*"))
    check_of_run = iter([lambda: None, lambda: swapped(lambda folder, _: folder.symlink_to(theirs))])
    with (
        pytest.raises(CheckpointError, match="c: was replaced while the run trained"),
        checkpoint.open_folder(folder, reported.append, check=lambda: next(check_of_run)()) as checkpoints,
    ):
        checkpoints.save(12, at(12))
    assert sorted(theirs.rglob("*")) == before


def test_a_link_to_the_folder_that_was_there_from_the_start_may_stay(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    save(link, 12)
    assert sorted(path.name for path in folder.iterdir()) == ["11", "12"]


def test_a_folder_that_was_deleted_is_created_again(folder):
    with checkpoint.open_folder(folder) as checkpoints:
        for step in (12, 13):
            shutil.rmtree(folder)
            checkpoints.save(step, at(step))
            assert checkpoints.newest_step() == step
    equal(restore(folder)[0], at(13))


def test_a_directory_that_another_process_does_not_see_is_refused_and_removed(tmp_path, monkeypatch):
    """The other has a disk of its own; what process 0 made is gone, so that another location can be given."""
    for disk in ("0", "1"):
        (tmp_path / disk).mkdir()

    def all_succeed(function):
        with contextlib.chdir(tmp_path / "1"):
            return function()

    monkeypatch.chdir(tmp_path / "0")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost, "broadcast_from_host0", lambda function: function())
    monkeypatch.setattr(multihost, "all_succeed", all_succeed)
    monkeypatch.setattr(checkpoint, "SHARED_WITHIN", 0)
    message = r"^checkpoints: not all processes see what process 0 writes there; it must be on a disk that they share"
    with pytest.raises(CheckpointError, match=message), checkpoint.open_folder("checkpoints"):
        pass
    assert not list((tmp_path / "0").iterdir())


@pytest.mark.parametrize("kernel, reported", [
    (jnp.zeros((3, 5)), r"params/kernel \('float32\[3, 4\]' there, 'float32\[3, 5\]' here\)"),
    (jnp.zeros((3, 4), jnp.bfloat16), r"params/kernel \('float32\[3, 4\]' there, 'bfloat16\[3, 4\]' here\)"),
    ({"a": jnp.zeros(1)}, r"params/kernel \('float32\[3, 4\]' there, None here\); params/kernel/a \(None there"),
])  # fmt: skip
def test_another_shape_dtype_or_structure_is_an_error_that_names_it(saved, kernel, reported):
    with pytest.raises(
        CheckpointError, match=rf"11: was written by another version .*: it holds other arrays \({reported}"
    ):
        restore(saved, {**TREE, "params": {**TREE["params"], "kernel": kernel}})


def test_some_parts_may_lack_arrays_and_others_are_restored_as_they_are_stored(tmp_path):
    """Each leaf keeps its dtype, and one without elements its shape, though Orbax cannot write it."""
    stored = {"x": np.asarray(jnp.ones(2, jnp.bfloat16)), "none": np.zeros((0, 3), np.int8), "yes": np.asarray(True)}
    progress = {"count": np.asarray(3), "sums": {"old": np.asarray(1.0), "wider": np.zeros(2), "loss": np.asarray(0.5)}}
    with checkpoint.open_folder(tmp_path / "c") as checkpoints:
        checkpoints.save(1, {"state": TREE, "progress": progress, "callbacks": {"f": stored}})
    assert manifest.metadata(tmp_path / "c" / "1")["format"] == 2
    sums = {"new": np.zeros(()), "wider": np.zeros(3), "loss": np.zeros(())}
    like = {"state": TREE, "progress": {"count": np.asarray(0), "sums": sums}}
    with checkpoint.open_folder(tmp_path / "c") as checkpoints:
        tree = checkpoints.restore(like, optional=["progress"], as_stored=["callbacks", "others"])
        with pytest.raises(CheckpointError, match=r"other arrays \(state/more \(None there, 'float32\[1\]' here\)\)"):
            checkpoints.restore(like | {"state": TREE | {"more": jnp.zeros(1)}}, ["progress"], ["callbacks"])
    assert tree is not None and tree.keys() == {"state", "progress", "callbacks", "others"} and tree["others"] == {}
    equal(tree["state"], TREE)
    equal(tree["progress"], {"count": np.asarray(3), "sums": {"loss": np.asarray(0.5)}})
    assert tree["callbacks"]["f"].keys() == stored.keys() and tree["callbacks"]["f"]["none"].shape == (0, 3)
    equal(tree["callbacks"], {"f": stored})


def test_a_failed_save_is_one_line(tmp_path):
    folder = tmp_path / "checkpoints"
    with (
        pytest.raises(CheckpointError, match="the checkpoint of step 1 cannot be written"),
        checkpoint.open_folder(folder) as c,
    ):
        (folder / "1.part.manifest").mkdir()
        c.save(1, TREE)


def save_all(folder, failing, succeeding, last, manifest_name="{}.part.manifest"):
    """Save a number of steps, some without a manifest; return the lines that are reported meanwhile."""
    reported: list[str] = []
    with checkpoint.open_folder(folder, reported.append) as c:
        for step in range(1, last + 1):
            if step in failing:
                c.failed()  # what the one before left is cleared away by then
                (folder / manifest_name.format(step)).mkdir()
            c.save(step, TREE)
            assert c.failed() == (step in failing) and (step not in succeeding or c.newest_step() == step)
    return reported


def test_failed_saves_are_reported_and_the_next_one_may_succeed(tmp_path, names):
    folder = tmp_path / "checkpoints"
    reported = save_all(folder, {1, 2, 4, 5}, {3, 6, 7}, 7, names)
    assert [
        search(r"^.*: the checkpoint of step (\d) cannot be written \(.*\); the run ends with an error if", line)[1]
        for line in reported
    ]
    assert [line.split("step ")[1][0] for line in reported] == list("1245")
    assert sorted(path.name for path in folder.iterdir()) == ["6", "7"]
    equal(restore(folder)[0], TREE)


def test_three_saves_that_fail_in_a_row_stop_it_and_so_does_the_last(tmp_path):
    for last, failing in ((9, {3, 4, 5}), (3, {3})):
        folder = tmp_path / str(last)
        with pytest.raises(CheckpointError, match=f"step {max(failing)} cannot be written"):
            save_all(folder, failing, {1, 2}, last)
        assert sorted(path.name for path in folder.iterdir())[:2] == ["1", "2"]
        equal(restore(folder)[0], TREE)


def test_an_error_of_closing_does_not_replace_the_first(tmp_path, monkeypatch):
    close = ocp.StandardCheckpointer.close

    def fail(self):
        close(self)
        raise OSError("closed")

    monkeypatch.setattr(ocp.StandardCheckpointer, "close", fail)
    with pytest.raises(CheckpointError, match="first"), checkpoint.open_folder(tmp_path / "c"):
        raise CheckpointError("first")


def test_a_place_that_is_lost_while_a_save_is_written_completes_no_checkpoint(tmp_path):
    """Before it is complete, a save checks again: another process may have started the run from scratch."""
    folder, checked = tmp_path / "checkpoints", list[int]()

    def check():
        checked.append(len(checked))
        if len(checked) == 4:
            raise CheckpointError("lost")

    with (
        pytest.raises(CheckpointError, match="lost"),
        checkpoint.open_folder(folder, lambda line: None, check=check) as checkpoints,
    ):
        checkpoints.save(1, TREE)
        assert checkpoints.newest_step() == 1
        checkpoints.save(2, TREE)
        assert checkpoints.newest_step() == 1
    assert checked == [0, 1, 2, 3] and sorted(path.name for path in folder.iterdir()) == ["1"]
