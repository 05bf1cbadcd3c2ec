"""Atomic writes and locks."""

import errno
import os
import signal
import subprocess
import sys
from unittest import mock

import pytest

from csbp_jax.config import CheckpointError, ConfigError
from csbp_jax.reporting import plots
from csbp_jax.runtime import files
from csbp_jax.training import metrics_log
from tests.support.checkout import ROOT
from tests.support.full_disk import full_disk


def test_a_file_is_replaced_at_once(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    with files.replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old" and temporary.parent == tmp_path
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]
    files.write_json(file, {"a": [1]})
    assert file.read_text() == '{\n "a": [\n  1\n ]\n}\n'
    files.write_bytes(file, b"\xff")
    assert file.read_bytes() == b"\xff"


def test_a_file_is_on_the_disk_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    calls = mock.Mock(**{"fsync.side_effect": os.fsync, "replace.side_effect": os.replace})
    monkeypatch.setattr(os, "fsync", calls.fsync)
    monkeypatch.setattr(os, "replace", calls.replace)
    files.write_text(tmp_path / "a", "new")
    assert [name for name, *_ in calls.method_calls] == ["fsync", "replace"]
    assert (tmp_path / "a").read_text() == "new"


def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text" and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


@pytest.mark.parametrize("shared", [False, True])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path, shared):
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(OSError, match="full"), files.replacing(file, shared=shared) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def write_row(file):
    with metrics_log.opened(file) as log:
        log.write({"kind": "train", "text": "x" * 200})


@pytest.mark.parametrize(
    "write",
    [
        lambda file: files.write_json(file, "x" * 200),
        write_row,
        lambda file: plots.save(plots.empty_figure(1, 1), file),
    ],
    ids=["complete", "appended", "figure"],
)
def test_a_failed_write_names_its_file_and_is_that_of_a_run(tmp_path, write):
    with pytest.raises(CheckpointError) as raised, full_disk(100):
        write(tmp_path / "a.png")
    assert str(raised.value) == (
        f"{tmp_path}/a.png: cannot be written (File too large); give it a disk that can be written, and the same "
        "command resumes"
    )
    assert isinstance(raised.value, OSError) and raised.value.errno == errno.EFBIG


def test_an_error_of_closing_does_not_replace_the_first_one():
    def close():
        raise OSError("closed")

    with pytest.raises(ValueError, match="first"), files.closed_after(close):
        raise ValueError("first")
    with pytest.raises(OSError, match="closed"), files.closed_after(close):
        pass


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to("lock")
    with pytest.raises(ConfigError, match=r"lock: is a link; remove it"), files.locked(tmp_path / "lock", refuse):
        pass


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("old")
    (tmp_path / "a.part").symlink_to(tmp_path / "other")
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "other").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new" and not (tmp_path / "a").is_symlink()


def test_what_is_set_aside_is_named_in_the_order_of_time(tmp_path):
    for number in range(6):
        (tmp_path / "a").write_text(str(number))
        files.set_aside(tmp_path / "a")
    assert [file.read_text() for file in sorted(tmp_path.glob("a.before-*"))] == list("012345")


def test_processes_that_share_a_file_use_temporary_paths_of_their_own(tmp_path):
    with files.replacing(tmp_path / "a", shared=True) as temporary:
        temporary.write_text("")
        assert str(os.getpid()) in temporary.name


HOLDER = """
import sys, time
from csbp_jax.runtime import files
with files.locked(sys.argv[1], on_wait=lambda: sys.exit("locked")):
    print("locked", flush=True)
    time.sleep(60)
"""


def refuse():
    raise ConfigError("another process has it")


def test_a_lock_excludes_other_processes_until_its_holder_is_killed(tmp_path):
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == b"locked\n"
            with pytest.raises(ConfigError), files.locked(lock, on_wait=refuse):
                pass
            # It waits if on_wait returns.
            with files.locked(lock, on_wait=lambda: holder.send_signal(signal.SIGKILL)):
                pass
        finally:
            holder.kill()
    with files.locked(lock, on_wait=refuse):
        pass
    assert lock.exists()
