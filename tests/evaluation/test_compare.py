"""Comparison of runs: settings, pairs and intervals computed by hand, and errors for runs that cannot be compared."""

import io
import json
import shutil

import numpy as np
import pytest

from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.evaluation import compare
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import percent, points
from csbp_jax.reporting.statistics import student, student_of_shares
from csbp_jax.training import run_json


def edited(run, folder, *, accuracy=None, **fields):
    """A copy of a run with other numbers and other fields of its config, named with ``__`` for dots."""
    copy = shutil.copytree(run, folder)
    content, result = run_json.read_config(copy), run_json.read_result(copy)
    for name, value in fields.items():
        *path, last = name.split("__")
        fields_at = content["config"]
        for key in path:
            fields_at = fields_at[key]
        fields_at[last] = value
    if accuracy is not None:
        result["last"]["test_accuracy"], result["chosen"]["test_accuracy"] = accuracy, accuracy / 2
    (copy / "config.json").write_text(json.dumps(content))
    (copy / "result.json").write_text(json.dumps(result))
    return copy


ACCURACIES = {0.0: {0: 0.90, 1: 0.92, 2: 0.97}, 30.0: {1: 0.95, 2: 0.96, 5: 0.99, 0: 0.94}}


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    return [
        edited(trained, root / f"z{z0:.0f}-{seed}", accuracy=accuracy, seed=seed, chaos__z0=[z0])
        for z0, runs in ACCURACIES.items()
        for seed, accuracy in runs.items()
    ]


def test_settings_pairs_and_intervals(folders):
    text = io.StringIO()
    compared = compare.compare(folders, terminal.Console(file=text, width=200))
    plain, chaotic = ACCURACIES.values()
    assert [(s.label, s.seeds, s.plain, s.control) for s in compared] == [
        ("chaos.z0 0.0", [0, 1, 2], True, None),
        ("chaos.z0 30.0", [0, 1, 2, 5], False, "chaos.z0 0.0"),
    ]
    assert compared[0].accuracies["last"] == student_of_shares(list(plain.values())) and compared[0].differences == {}
    assert compared[1].accuracies["last"].mean == pytest.approx(np.mean(list(chaotic.values())))
    expected = student([chaotic[seed] - plain[seed] for seed in (0, 1, 2)])
    assert compared[1].differences["last"].difference == pytest.approx(expected)
    assert compared[1].differences["last"].pairs == 3
    assert compared[1].differences["chosen"].difference.mean == pytest.approx(expected.mean / 2)
    mean = percent(compared[1].accuracies["last"])
    for word in ("z0-2", "97.00% (2)", "48.50% (2)", "seed 1, chaos.z0 30.0", mean, points(expected)):
        assert word in text.getvalue()
    assert "note" not in text.getvalue() and "optimizer" not in text.getvalue()


def test_fields_that_change_no_result_make_no_setting(folders, tmp_path):
    fields = {"data__workers": 4, "data__threads": 3, "log_every": 7, "checkpoint_every": 9}
    moved = edited(folders[4], tmp_path / "moved", **fields)
    runs = [compare.read(folder) for folder in (*folders[:4], moved, *folders[5:])]
    plain, chaotic = compare.settings(runs)
    assert (plain.seeds, chaotic.seeds) == ([0, 1, 2], [0, 1, 2, 5])
    assert chaotic.label == "chaos.z0 30.0" and chaotic.differences["last"].pairs == 3
    assert compare.run_table(runs)[0][3:] == ["seed", "chaos.z0"] and runs[4].fields["data.workers"] == 4


def test_a_single_seed_has_no_interval(folders):
    text = io.StringIO()
    _, other = compare.compare([folders[0], folders[6]], terminal.Console(file=text, width=80), margin=10)
    assert other.differences["last"].pairs == 1
    assert other.differences["last"].difference == pytest.approx((0.04, None, None), abs=1e-9)
    assert "+4.00 (n = 1)" in text.getvalue() and "not decided" in text.getvalue()


def test_the_control_is_that_without_chaos_in_any_order_unless_a_run_is_named(folders, tmp_path):
    def controls(runs, control=None, text=None):
        console = terminal.Console(file=text or io.StringIO(), width=80)
        return {s.label: s.control for s in compare.compare(runs, console, control=control)}

    plain, chaotic = "chaos.z0 0.0", "chaos.z0 30.0"
    swapped = [folders[6], folders[0]]
    assert controls(swapped) == {chaotic: plain, plain: None}
    assert controls(swapped, folders[6]) == controls(swapped[1:], folders[6]) == {chaotic: None, plain: chaotic}
    # Without such a control, the first run's setting.
    stronger = edited(folders[6], tmp_path / "stronger", chaos__z0=[50.0])
    assert controls([folders[6], stronger]) == {chaotic: None, "chaos.z0 50.0": chaotic}
    # With one for some, not for others.
    text = io.StringIO()
    faster = edited(folders[6], tmp_path / "faster", optimizer__lr=0.5)
    labels = controls([folders[0], folders[6], faster], text=text)
    assert list(labels.values()) == [None, next(iter(labels)), None]
    assert "optimizer.lr 0.5: no run is its control, equal but for chaos.z0 0; no difference" in text.getvalue()


def test_seeds_that_do_not_pair_are_named_and_give_no_difference(folders):
    text = io.StringIO()
    _, other = compare.compare([folders[0], folders[1], folders[5]], terminal.Console(file=text, width=200))
    assert other.control == "chaos.z0 0.0" and other.differences == {}
    assert "its seeds (5) and those of its control (0, 1) have none in common; no paired" in text.getvalue()


def test_verdicts_of_a_margin(folders):
    text = io.StringIO()
    _, other = compare.compare(folders, terminal.Console(file=text, width=80), margin=50)
    assert other.differences["last"].verdict == "equal within 50" and "equal within 50" in text.getvalue()
    _, other = compare.compare(folders, terminal.Console(file=text, width=80), margin=0.5)
    assert other.differences["last"].verdict == "not decided"


def test_80_columns_show_the_name_and_cut_nothing(folders, tmp_path):
    """Though the runs differ in more fields than there is room for."""
    name = "a-name-of-forty-characters-and-some-more"
    changed = {"optimizer__lr": 0.123, "optimizer__weight_decay": 0.1, "epochs": 77, "batch_size": 12, "seed": 12345}
    other = edited(folders[3], tmp_path / name, chaos__target=0.7, chaos__scale=9.0, **changed)
    text = io.StringIO()
    compare.compare([folders[0], other], terminal.Console(file=text, width=80))
    lines = [line for line in text.getvalue().splitlines() if not line.startswith("note")]
    assert "…" not in text.getvalue() and max(map(len, lines)) <= 80
    # The first column's pieces, from one row.
    pieces = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert name in "".join(pieces) and name[:12] in max(pieces, key=lambda piece: piece.startswith("a-"))
    assert lines[2].split("┃")[1].strip() == "run" and lines[2].split("┃")[2].strip() == "last (epoch)"


def test_warnings_of_different_data_and_versions(folders, tmp_path):
    copy = shutil.copytree(folders[3], tmp_path / "other")
    content = run_json.read_config(copy)
    content |= {"data": "changed", "versions": content["versions"] | {"jax": "0.9.9"}}
    (copy / "config.json").write_text(json.dumps(content))
    runs = [compare.read(folder) for folder in (folders[1], copy)]
    first, second = compare.warnings(runs, compare.settings(runs))
    assert "not all runs were trained on the same data" in first and "versions of jax differ: 0." in second
    assert [setting.differences for setting in compare.settings(runs)] == [{}, {}]


def test_a_difference_that_may_have_several_causes_is_said(folders, trained, tmp_path):
    longer = edited(trained, tmp_path / "longer", accuracy=0.95, seed=0, chaos__z0=[30.0], epochs=9)
    runs = [compare.read(folders[0]), compare.read(longer)]
    (line,) = compare.warnings(runs, compare.settings(runs))
    assert "in epochs, chaos.z0; the difference in accuracy may come from any of them" in line
    other_term = edited(trained, tmp_path / "drift", accuracy=0.95, seed=0, chaos__z0=[30.0], chaos__term="drift")
    runs = [compare.read(folders[0]), compare.read(other_term)]
    assert compare.warnings(runs, compare.settings(runs)) == []


def test_runs_with_other_code_of_their_own_are_other_settings(trained, tmp_path):
    runs = [edited(trained, tmp_path / name, accuracy=0.9, seed=0) for name in "abc"]
    for folder, code in zip(runs[1:], "12", strict=True):
        content = run_json.read_config(folder) | {"own": {"parts": ["loss"], "file": "loss.py", "sha256": 64 * code}}
        (folder / "config.json").write_text(json.dumps(content))
    settings = compare.settings([compare.read(run) for run in runs])
    assert [setting.label for setting in settings] == ["own None", "own loss 11111111", "own loss 22222222"]


def test_one_directory_is_not_read_letter_by_letter(folders):
    with pytest.raises(ConfigError, match=r"^RUN: two or more are compared"):
        compare.compare(str(folders[0]))


def test_errors_are_one_line(folders, tmp_path, capsys):
    unfinished = shutil.copytree(folders[0], tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    sweep = edited(folders[0], tmp_path / "sweep", grid={"seed": [0]})
    for words, message in {
        (folders[0],): "RUN: two or more are compared; write csbp_jax compare RUN RUN ...",
        (folders[0], "nowhere"): "nowhere: there is no such directory",
        (folders[0], unfinished): "is not finished; repeat the command that started it to resume it or, if it diverged",
        (folders[0], sweep): "is a sweep, whose settings are compared in its own tables",
        (folders[0], folders[0]): "differs in no field that can change a result; name one",
        (folders[0], folders[1], "--data"): "--data: there is no such option",
        (folders[0], folders[1], "--margin", "nan"): "--margin: nan is not possible",
        (folders[0], folders[1], "--control", "nowhere"): "nowhere: there is no such directory",
    }.items():
        assert main.main(["compare", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
