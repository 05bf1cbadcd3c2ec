"""Curves of a preset: conditions, table, resuming, and the committed results."""

import json
import re

import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import from_json, replaced
from experiments import curves, speakers, study
from tests.support import shared_programs, small_run
from tests.support.quotes import body


def run(accuracy):
    tested = {"epoch": 2, "test_accuracy": accuracy}
    return {"epochs": [], "result": {"last": tested, "chosen": tested | {"epoch": 1}, "seconds": 1800.0}}


def test_conditions_differ_in_the_chaos_term_only():
    preset = configs.load("cifar10_quick")
    csbp, plain, drift = (preset.replace(**changes) for changes in curves.CONDITIONS.values())
    assert csbp == preset and csbp.chaos.term == "chaos" and csbp.chaos.z0[0] > 0
    assert plain == configs.load("cifar10_quick_bp") and drift == replaced(csbp, "chaos.term", "drift")


def test_curves_are_the_epochs_of_a_run_without_a_test_accuracy(tmp_path):
    with shared_programs.patched():
        small_run.run(small_run.SMALL, tmp_path, name="run")
    rows = curves.curves_of(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2] and all(row["validation_accuracy"] > 0 for row in rows)
    assert not any("test" in key for row in rows for key in row)


def test_differences_are_paired_over_the_seeds_that_both_have():
    runs = {
        "csbp": {"0": run(0.86), "1": run(0.88)},
        "plain": {"0": run(0.85), "1": run(0.85)},
        "drift": {"1": run(0.88)},
    }
    rows = [line.strip("| ").split(" | ") for line in curves.table(runs).splitlines()[2:]]
    assert [row[1] for row in rows] == ["2", "2", "1"] and rows[0][2].startswith("87.00 [") and rows[0][4] == ""
    assert rows[1][4].startswith("2.00 [") and rows[2][4] == "0.00" and rows[0][5] == "30.0"


def committed(preset):
    """The folder of a preset's committed results, and their content."""
    folder = study.PRESETS / preset
    return folder, json.loads((folder / "curves.json").read_text())


def test_finished_runs_are_not_repeated(tmp_path, monkeypatch):
    _, content = committed("cifar10_quick")
    run = content["runs"]["csbp"]["0"]
    begun = content | {"runs": {"csbp": {"0": run}}, "data_marks": {"cifar10": "a"}}
    (tmp_path / "curves.json").write_text(json.dumps(begun))
    monkeypatch.setattr(study, "data_mark", lambda config, data_dir: "a")
    trained = []

    def train_run(config, data_dir):
        trained.append((config.chaos.term, config.seed))
        return dict(run)

    monkeypatch.setattr(curves, "train_run", train_run)
    curves.main(["--conditions", "csbp", "--seeds", "2", "--out", str(tmp_path)])
    assert trained == [("chaos", 1)]
    runs = json.loads((tmp_path / "curves.json").read_text())["runs"]["csbp"]
    assert runs["0"] == run and list(runs) == ["0", "1"]
    assert runs["1"]["command"].endswith(f"curves --out {tmp_path} --seeds 2 --conditions csbp")


@pytest.mark.parametrize("known", [{}, {"data_marks": {"cifar10": "JPEG"}}])
def test_runs_join_no_file_of_other_or_unknown_pictures(known, tmp_path, monkeypatch, capsys):
    _, content = committed("cifar10_quick")
    file, words = tmp_path / "curves.json", ["--conditions", "csbp", "--out"]
    file.write_text(json.dumps(content | known))
    monkeypatch.setattr(curves, "train_run", lambda config, data_dir: dict(content["runs"]["csbp"]["0"]))
    monkeypatch.setattr(study, "data_mark", lambda config, data_dir: "original")
    with pytest.raises(SystemExit, match="2"):
        curves.main([*words, str(tmp_path), "--seeds", "2"])
    assert f"{file}: of other data, or without a record of its data" in capsys.readouterr().err
    assert json.loads(file.read_text()) == content | known
    curves.main([*words, str(tmp_path), "--seeds", "1"])  # its table is made all the same
    assert (tmp_path / "table.md").exists()
    curves.main([*words, str(tmp_path / "new"), "--seeds", "1"])
    assert json.loads((tmp_path / "new" / "curves.json").read_text())["data_marks"] == {"cifar10": "original"}


@pytest.mark.parametrize("preset", curves.PRESETS)
def test_committed_results_are_those_of_the_preset_and_never_the_best_on_test(preset):
    _, content = committed(preset)
    assert from_json(content["config"]) == configs.load(preset)
    count = {"cifar10": 10_000, "fsdd": 300}[content["config"]["data"]["name"]]
    for of_seed in content["runs"].values():
        for result, epochs in ((run["result"], run["epochs"]) for run in of_seed.values()):
            assert len(epochs) == from_json(content["config"]).epochs == result["last"]["epoch"]
            accuracies, losses = ([row[f"validation_{key}"] for row in epochs] for key in ("accuracy", "loss"))
            best = epochs[np.lexsort((losses, -np.array(accuracies)))[0]]["epoch"]
            assert result["chosen"]["epoch"] == best and result["last"]["test_count"] == count


def test_the_page_of_presets_has_their_accuracies():
    page = (study.PRESETS / "README.md").read_text()
    for preset in curves.PRESETS:
        folder, content = committed(preset)
        csbp, *others = body((folder / "table.md").read_text())
        difference = others[0][4] if others else ""
        assert re.search(rf"{preset}/table.md\).* \| {len(content['runs']['csbp'])} \| {re.escape(csbp[2])} ", page), (
            preset
        )
        assert difference in page
    for preset in ("digits", "digits_events", "mnist", "fsdd_speakers"):
        rows = {row[0]: row for row in body((study.PRESETS / preset / "accuracy.md").read_text())}
        row = rows.get("last epoch") or rows[speakers.UNKNOWN][1:]
        assert f"| {row[1]} | {row[3]} |" in page, preset
    lowest = min(
        run["result"]["last"]["test_accuracy"]
        for runs in committed("fsdd")[1]["runs"].values()
        for run in runs.values()
    )
    assert f"{100 * lowest:.1f} %" in page
