"""A disk that really fills up: one line, exit code 4, nothing lost, and with room again the run goes on."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# The state has some 0.3 MB, so that some checkpoints fit and one does not.
SCRIPT = """
mount -t tmpfs -o size={size} none "$1" || exit 99
"$2" -m csbp_jax {line} --runs "$1" > "$1.out" 2> "$1.err"
echo $? > "$1.code"
mount -o remount,size=100m "$1"
"$2" -m csbp_jax {line} --runs "$1" > "$1.again"
"""
LINE = "train digits --name r --batch-size 512 --log-every 1 --checkpoint-every 1 --chaos.taps fc1.membrane \
--model.name dense --model.time-steps 2"


def in_a_disk_of(size, folder, more):
    """Runs it on a disk of this size until that is full, and again with room."""
    script = SCRIPT.format(size=size, line=f"{LINE} {more}")
    # A name space of its own: mounted without rights, and gone with the shell.
    line = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", folder, sys.executable]
    try:
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets no user mount a disk")
    assert done.returncode == 0, done.stderr
    return [pathlib.Path(f"{folder}.{part}").read_text() for part in ("code", "err", "again")]


@pytest.mark.parametrize("size, more", [
    ("2000k", "--model.features 1024 --epochs 6"),  # within Orbax's save
    pytest.param("400k", "--model.features 8 --epochs 60", marks=pytest.mark.slow),  # in a manifest, or in the metrics
])  # fmt: skip
def test_a_full_disk_is_told_in_one_line_and_with_room_it_goes_on(tmp_path, size, more):
    (tmp_path / "disk").mkdir()
    code, told, again = in_a_disk_of(size, tmp_path / "disk", more)
    assert code == "4\n"
    assert re.fullmatch(r"csbp_jax: .*(disk is full|No space left on device).*; make room, .*\n", told)
    assert re.search(r"resumed after step \d+,", again) and "last epoch" in again
