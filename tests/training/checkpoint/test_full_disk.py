"""A disk that really fills up: one line, nothing lost; with space again the run continues, by itself or by a resume."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from csbp_jax.training.metrics_log import read_rows

ROOT = pathlib.Path(__file__).parents[3]
LINE = "train digits --name r --batch-size 512 --log-every 1 --chaos.taps fc1.membrane \
--model.name dense --model.time-steps 2"
# The state has some 0.3 MB, so that some checkpoints fit and one does not.
STAYS_FULL = """
mount -t tmpfs -o size={size} none "$1" || exit 99
"$2" -m csbp_jax {line} --runs "$1" > "$1.out" 2> "$1.err"
echo $? > "$1.code"
mount -o remount,size=100m "$1"
"$2" -m csbp_jax {line} --runs "$1" > "$1.again"
"""
# Filled to the last byte once a checkpoint is there, till a save has failed. Between two saves there is a second.
FULL_FOR_A_WHILE = """
mount -t tmpfs -o size=10m none "$1" || exit 99
"$2" -u -m csbp_jax {line} --runs "$1" > "$1.out" 2> "$1.err" &
until [ -e "$1/r/checkpoints/40" ] || ! kill -0 $!; do sleep 0.01; done
cat /dev/zero > "$1/ballast" 2> /dev/null
until [ $(grep -c "cannot be written" "$1.out") -ge 1 ] || ! kill -0 $!; do sleep 0.01; done
rm "$1/ballast"
wait $!
echo $? > "$1.code"
cp -r "$1/r" "$1.run"
"""


def on_a_small_disk(script, folder, **more):
    # A name space of its own: mounted without rights, and gone with the shell.
    line = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script.format(**more)]
    folder.mkdir()
    try:
        done = subprocess.run(
            [*line, "sh", folder, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets no user mount a disk")
    assert done.returncode == 0, done.stderr
    return [pathlib.Path(f"{folder}.{part}").read_text() for part in ("code", "out", "err")]


@pytest.mark.parametrize("size, features, epochs", [
    pytest.param("2000k", 1024, 8, marks=pytest.mark.slow),  # within Orbax's save
    pytest.param("400k", 8, 60, marks=pytest.mark.slow),  # in a manifest, or in the metrics
])  # fmt: skip
def test_a_disk_that_stays_full_is_one_line_and_with_space_the_run_resumes(tmp_path, size, features, epochs):
    line = f"{LINE} --checkpoint-every 1 --model.features {features} --epochs {epochs}"
    code, out, err = on_a_small_disk(STAYS_FULL, tmp_path / "disk", size=size, line=line)
    assert code == "4\n"
    assert re.fullmatch(r"csbp_jax: .*(disk is full|No space left on device).*; make room.*\n", err)
    reported = r"the checkpoint of step (\d+) cannot be written \(the disk is full; make room\)"
    failed = [int(step) for step in re.findall(f"{reported}; the run ends with an error if", out)]
    # Files differ a little in size from save to save, so that one may find room again: then the last of all fails, or
    # what is left after it, as figures.
    match = re.search(reported, err)
    ended = int(match[1]) if match else 2 * epochs + 2
    assert failed and (failed[-2:] == [ended - 4, ended - 2] or ended >= 2 * epochs)
    newest = max(step for step in range(2, ended, 2) if step not in failed)
    again = (tmp_path / "disk.again").read_text()
    assert f"resumed after step {newest}," in again and "last epoch" in again


@pytest.mark.slow
def test_a_run_outlives_a_disk_that_is_full_for_a_while(tmp_path):
    """To the same rows and the same weights as where there was always room."""
    line = f"{LINE} --checkpoint-every 20 --model.features 1024 --epochs 120"
    code, out, err = on_a_small_disk(FULL_FOR_A_WHILE, tmp_path / "disk", line=line)
    assert (code, err) == ("0\n", "")
    assert 1 <= len(re.findall("cannot be written", out)) <= 2
    subprocess.run(
        [sys.executable, "-m", "csbp_jax", *line.split(), "--runs", str(tmp_path / "roomy")], cwd=ROOT, check=True
    )
    here, there = tmp_path / "disk.run", tmp_path / "roomy" / "r"
    digests = [json.loads((run / "result.json").read_text())["params_sha256"] for run in (here, there)]
    assert digests[0] == digests[1]
    rows = [
        [(row["kind"], row["step"], row.get("loss")) for row in read_rows(run / "metrics.jsonl")]
        for run in (here, there)
    ]
    assert rows[0] == rows[1]
    assert not list(here.glob("checkpoints/*.part*"))
