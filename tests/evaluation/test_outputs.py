"""Commands on a run whose folder is read-only: results go to the working directory, and one line says so."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.evaluation import outputs
from csbp_jax.runtime import files
from tests.support.run_copies import edited

ROOT = pathlib.Path(__file__).parents[2]


def on_read_only(folder, code, cwd):
    """Runs Python with a folder mounted read-only, which binds root too; skips where that is not possible."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    enter = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*enter, mount, folder, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [*enter, mount, folder, sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_that_can_be_written_has_its_results(tmp_path, capsys):
    assert outputs.output_folder(tmp_path / "new") == tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == [] and capsys.readouterr().err == ""


def test_results_on_a_read_only_run_go_to_the_working_directory(tmp_path):
    code = "from csbp_jax.evaluation.outputs import output_folder, pathlib; print(output_folder(pathlib.Path('a/run')))"
    (tmp_path / "a" / "run").mkdir(parents=True)
    done = on_read_only(tmp_path / "a" / "run", code, tmp_path)
    assert done.stdout == "evaluation/run\n"
    line = "csbp_jax: a/run: cannot be written (Read-only file system); results are written to evaluation/run\n"
    assert done.stderr == line


def test_read_only_runs_of_one_name_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = files.write_problem
    problem = "Read-only file system"
    monkeypatch.setattr(files, "write_problem", lambda f: problem if f.parts[0] in ("alice", "bob") else check(f))
    runs = [pathlib.Path(name, "run") for name in ("alice", "bob")]
    first, second = map(outputs.output_folder, runs)
    assert first == pathlib.Path("evaluation/run") and re.fullmatch("evaluation/run-[0-9a-f]{8}", str(second))
    assert [outputs.output_folder(run) for run in runs] == [first, second]
    assert (second / "run.txt").read_text() == str(tmp_path.resolve() / "bob" / "run")
    (first / "run.txt").unlink()
    os.mkfifo(first / "run.txt")
    with pytest.raises(ConfigError, match=r"run/run\.txt: is not a regular file"):
        outputs.output_folder(runs[0])


def test_where_neither_can_be_written_that_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluation").touch()
    reason = r"\(Not a directory\)"
    with pytest.raises(ConfigError, match=rf"^evaluation/run: cannot be written {reason}, nor can .*/run {reason}; "):
        outputs.output_folder(pathlib.Path("evaluation/run"))


@pytest.mark.parametrize("folder, name, target, said", [
    *((n, n, ".", "is a link, and results would be") for n in ("figures", "figures/inspect", "tensorboard", "track")),
    ("export", "export", ".", "is a link, and results would be written where it leads"),
    *(("export", n, os.devnull, "is a pipe or a device, or a link to one") for n in ("report.html", "export/last.nir")),
])  # fmt: skip
def test_a_link_or_a_device_in_the_place_of_results_is_refused(tmp_path, folder, name, target, said):
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match=f"run/{name}: {said}"):
        outputs.output_folder(tmp_path / "run", folder)


@pytest.mark.slow
def test_all_commands_work_on_a_read_only_run(trained, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.uint8))
    commands = [
        ["evaluate", str(trained)],
        ["inspect", str(trained), "--examples", "10"],
        ["export", str(trained)],
        ["report", str(trained)],
        ["predict", str(trained), "x.npy"],
        ["compare", str(trained), str(edited(trained, tmp_path / "other", seed=5))],
    ]
    code = f"import sys; from csbp_jax.cli.main import main; sys.exit(max(map(main, {commands!r})))"
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    done = on_read_only(trained, code, tmp_path)
    assert done.stderr.count("; results are written to evaluation/trained\n") == 4
    assert before == sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "evaluation").rglob("*") if path.is_file()}
    names = {"evaluation-test-last.json", "inspect.json", "export/last.safetensors", "report.html"}
    assert {f"evaluation/trained/{name}" for name in names} <= written
    assert "evaluation/trained/figures/evaluation-test-last.png" in written
