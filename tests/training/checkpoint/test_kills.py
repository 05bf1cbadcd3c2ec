"""Commands that are interrupted at random moments and repeated leave the same files as uninterrupted ones."""

import json
import shutil

import pytest

from csbp_jax.runtime import seals
from csbp_jax.training.metrics_log import read_rows
from tools import kills


@pytest.mark.slow
def test_interrupted_commands_leave_the_same_files(tmp_path, monkeypatch):
    """A share of ``python -m tools.kills``, whose record is in docs/checks/survival."""
    shutil.copy(kills.OUT / "README.md", tmp_path)
    monkeypatch.setattr(kills, "OUT", tmp_path)
    monkeypatch.setattr(kills, "WORK", tmp_path / "work")
    cases = ("train, zero1 on 2 devices", "sweep")
    kills.main(["--rounds", "1", "--cases", *cases])
    record = json.loads((tmp_path / "kills.json").read_text())
    assert {name: case["equal"] for name, case in record["cases"].items()} == dict.fromkeys(cases, 1)
    assert any(case["signals"] for case in record["cases"].values())
    assert kills.table(record) in (tmp_path / "README.md").read_text()


def test_the_comparison_sees_all_differences_but_those_of_clocks(trained, tmp_path):
    *rows, last = read_rows(trained / "metrics.jsonl")
    result = seals.parse((trained / "result.json").read_bytes())

    def change(**values):
        (tmp_path / "r" / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, last | values]))
        (tmp_path / "r" / "result.json").write_text(json.dumps(result | values))

    shutil.copytree(trained, tmp_path / "r")
    (tmp_path / "r" / "metrics.jsonl.before-1").touch()
    change(seconds=0.5)
    kills.compare(tmp_path / "r", trained)
    change(step=1)
    for name in ("left.part", "config.json", "figures/training.png"):
        (tmp_path / "r" / name).write_text("")
    shutil.rmtree(tmp_path / "r" / "checkpoints" / str(last["step"]))
    names = "checkpoints, config.json, figures/training.png, left.part, metrics.jsonl, result.json"
    with pytest.raises(kills.Fault, match=f"in {names}$"):
        kills.compare(tmp_path / "r", trained)
