"""Comparison of runs: settings, pairs and intervals computed by hand, and errors for runs that cannot be compared."""

import io
import json
import shutil

import pandas as pd
import pytest

from csbp_jax.config import ConfigError
from csbp_jax.evaluation import compare
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import interval_text
from csbp_jax.reporting.statistics import student, student_of_shares
from csbp_jax.runs import Run, RunTable
from csbp_jax.training import run_json
from tests.support.run_copies import edited

ACCURACIES = {0.0: {0: 0.90, 1: 0.92, 2: 0.97}, 30.0: {1: 0.95, 2: 0.96, 5: 0.99, 0: 0.94}}


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    return [
        edited(trained, root / f"z{z0:.0f}-{seed}", accuracy=accuracy, seed=seed, chaos__z0=[z0])
        for z0, runs in ACCURACIES.items()
        for seed, accuracy in runs.items()
    ]


@pytest.fixture
def no_figure(monkeypatch):
    for name in ("plots.save", "plots_runs.draw", "plots_runs.draw_curves"):
        monkeypatch.setattr(f"csbp_jax.reporting.{name}", lambda *_, **__: None)


def compared(folders, width=200, **options):
    """A comparison, and what it prints; its files go to the first folder."""
    text = io.StringIO()
    result = compare.compare(folders, terminal.Console(file=text, width=width), **options)
    return result, text.getvalue()


def rows(result, epoch=0):
    """Differences by arm and control."""
    return {(row["arm"], row["other"]): row for _, row in result.contrasts[epoch].frame.iterrows()}


PLAIN, CHAOTIC = "chaos.z0 0.0", "chaos.z0 30.0"


def test_the_differences_come_first_then_tables_and_files(folders, tmp_path):
    result, text = compared(folders, out=tmp_path)
    plain, chaotic = ACCURACIES.values()
    differences = [100 * (chaotic[seed] - plain[seed]) for seed in (0, 1, 2)]
    row = rows(result)[CHAOTIC, PLAIN]
    expected = student(differences)
    assert tuple(row[["difference", "low", "high"]]) == pytest.approx(expected) and row["pairs"] == 3
    assert rows(result, 1)[CHAOTIC, PLAIN]["difference"] == pytest.approx(expected.mean / 2)
    first, second, *rest = text.splitlines()
    ends = f"{expected.mean:+.2f} [{expected.low:+.2f}, {expected.high:+.2f}] points"
    assert first.startswith(f"last epoch: {CHAOTIC} - {PLAIN}: {ends}, p 0.32, not decided, 3 seeds (left out")
    assert first.endswith("about 57 pairs would decide 1 point") and second.startswith("epoch chosen by validation: ")
    means = [interval_text(student_of_shares(list(of.values()))) for of in (plain, chaotic)]
    for word in ("z0-2", "97.00% (2)", "48.50% (2)", "seed 1, chaos.z0 30.0", *means):
        assert word in "\n".join(rest)
    assert "note" not in text and "optimizer" not in text
    assert {file.name for file in tmp_path.iterdir()} == {
        *("runs.csv", "differences.csv", "tables.tex", "comparison.png", "comparison.pdf", "curves.png", "curves.pdf")
    }
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 7
    assert list(pd.read_csv(tmp_path / "differences.csv")["measure"]) == ["last_test_accuracy", "chosen_test_accuracy"]


def test_fields_that_change_no_result_make_no_setting(folders, tmp_path):
    fields = {"data__workers": 4, "data__threads": 3, "log_every": 7, "checkpoint_every": 9}
    moved = edited(folders[4], tmp_path / "moved", **fields)
    table = RunTable.read([*folders[:4], moved, *folders[5:]])
    assert table.arms == [PLAIN, CHAOTIC] and table.fields == ("chaos.z0",)
    assert Run.read(moved).fields["data.workers"] == 4


@pytest.mark.parametrize("runs, margin, text", [
    pytest.param((0, 6), 10, "+4.00 points, not decided, 1 seed", marks=pytest.mark.full),  # without an interval
    ((0, 1, 5), None, f"its seeds and those of {PLAIN} (5; 0, 1) make no pair"),
    pytest.param(range(7), 50, "equal within 50 points", marks=pytest.mark.full),
])  # fmt: skip
def test_what_few_seeds_and_a_margin_decide(no_figure, folders, tmp_path, runs, margin, text):
    assert text in compared([folders[number] for number in runs], margin=margin, out=tmp_path)[1]


def test_the_control_is_that_without_chaos_in_any_order_unless_a_run_is_named(no_figure, folders, tmp_path):
    def controls(runs, control=None):
        finished, named = compare.read_with_control(runs, control)
        return dict(compare.controls(RunTable.of(finished), named))

    swapped = [folders[6], folders[0]]
    assert controls(swapped) == {CHAOTIC: PLAIN}
    assert controls(swapped, folders[6]) == controls(swapped[1:], folders[6]) == {PLAIN: CHAOTIC}
    # Without such a control, the first run's setting.
    stronger = edited(folders[6], tmp_path / "stronger", chaos__z0=[50.0])
    assert controls([folders[6], stronger]) == {"chaos.z0 50.0": CHAOTIC}
    # With one for some, not for others.
    faster = edited(folders[6], tmp_path / "faster", optimizer__lr=0.5)
    result, text = compared([folders[0], folders[6], faster], out=tmp_path)
    assert len(rows(result)) == 1
    assert "faster: no run is its control, equal but for chaos.z0 0; no difference" in text


def test_80_columns_show_the_name_and_cut_nothing(no_figure, folders, tmp_path):
    """Though the runs differ in more fields than there is room for."""
    name = "a-name-of-forty-characters-and-some-more"
    changed = {"optimizer__lr": 0.123, "optimizer__weight_decay": 0.1, "epochs": 77, "batch_size": 12, "seed": 12345}
    other = edited(folders[3], tmp_path / name, chaos__target=0.7, chaos__scale=9.0, **changed)
    _, text = compared([folders[0], other], width=80, out=tmp_path)
    tables = text[text.index("settings") :].split("runs: test accuracy")[1]
    lines = [line for line in tables.splitlines() if line.startswith(("┃", "│"))]
    assert "…" not in text and max(map(len, lines)) <= 80
    # The first column's pieces, from one row.
    pieces = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert name in "".join(pieces) and name[:12] in max(pieces, key=lambda piece: piece.startswith("a-"))
    headings = [[cell.strip() for cell in line.split("┃")[1:3]] for line in lines if line.startswith("┃")]
    assert ["run", "last (epoch)"] in headings


def test_notes_of_different_data_and_versions(no_figure, folders, tmp_path):
    copy = shutil.copytree(folders[3], tmp_path / "other")
    content = run_json.read_config(copy)
    content |= {"data": "changed", "versions": content["versions"] | {"jax": "0.9.9"}}
    (copy / "config.json").write_text(json.dumps(content))
    result, text = compared([folders[1], folders[0], copy], out=tmp_path / "out")
    assert "note: versions of jax differ: 0." in text and "note: not all runs were trained on the same data" in text
    assert rows(result) == {}


def test_a_difference_that_may_have_several_causes_is_said(no_figure, folders, trained, tmp_path):
    longer = edited(trained, tmp_path / "longer", accuracy=0.95, seed=0, chaos__z0=[30.0], epochs=9)
    result, _ = compared([folders[0], longer], out=tmp_path / "out")
    (line,) = result.notes
    assert "in epochs, chaos.z0; the difference may come from any of them" in line
    other_term = edited(trained, tmp_path / "drift", accuracy=0.95, seed=0, chaos__z0=[30.0], chaos__term="drift")
    assert compared([folders[0], other_term], out=tmp_path / "out")[0].notes == []


def test_runs_with_other_code_of_their_own_are_other_settings(trained, tmp_path):
    runs = [edited(trained, tmp_path / name, accuracy=0.9, seed=0) for name in "abc"]
    for folder, code in zip(runs[1:], "12", strict=True):
        content = run_json.read_config(folder) | {"own": {"parts": ["loss"], "file": "loss.py", "sha256": 64 * code}}
        (folder / "config.json").write_text(json.dumps(content))
    assert RunTable.read(runs).arms == ["own None", "own loss 11111111", "own loss 22222222"]


def test_one_directory_is_not_read_letter_by_letter(folders):
    with pytest.raises(ConfigError, match=r"^RUN: two or more are compared"):
        compare.compare(str(folders[0]))
