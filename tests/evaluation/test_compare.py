"""Comparison of runs: settings, pairs and intervals computed by hand, and errors for runs that cannot be compared."""

import io
import json
import shutil

import numpy as np
import pytest

from csbp_jax.cli import main
from csbp_jax.evaluation import compare
from csbp_jax.reporting import terminal
from csbp_jax.reporting.format import percent
from csbp_jax.reporting.intervals import student
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
    assert [(s.label, s.seeds, s.pairs) for s in compared] == [
        ("chaos.z0 0.0", [0, 1, 2], 0),
        ("chaos.z0 30.0", [0, 1, 2, 5], 3),
    ]
    assert compared[0].accuracies["last"] == student(list(plain.values())) and compared[0].differences == {}
    assert compared[1].accuracies["last"].mean == pytest.approx(np.mean(list(chaotic.values())))
    expected = student([chaotic[seed] - plain[seed] for seed in (0, 1, 2)])
    assert compared[1].differences["last"] == pytest.approx(expected)
    assert compared[1].differences["chosen"].mean == pytest.approx(expected.mean / 2)
    for word in ("z0-2", "97.00% (2)", "48.50% (2)", "chaos.z0", "seed", percent(expected)):
        assert word in text.getvalue()
    assert "note" not in text.getvalue() and "optimizer" not in text.getvalue()


def test_a_single_seed_has_no_interval(folders):
    (_, other) = compare.settings([compare.read(folder) for folder in (folders[0], folders[6])])
    assert other.pairs == 1 and other.differences["last"] == pytest.approx((0.04, None, None), abs=1e-9)


def test_warnings_of_different_data_and_versions(folders, tmp_path):
    copy = shutil.copytree(folders[3], tmp_path / "other")
    content = run_json.read_config(copy)
    content |= {"data": "changed", "versions": content["versions"] | {"jax": "0.9.9"}}
    (copy / "config.json").write_text(json.dumps(content))
    runs = [compare.read(folder) for folder in (folders[1], copy)]
    first, second = compare.warnings(runs)
    assert "not all runs were trained on the same data" in first and "versions of jax differ: 0." in second
    assert [setting.pairs for setting in compare.settings(runs)] == [0, 0]


def test_errors_are_one_line(folders, tmp_path, capsys):
    unfinished = shutil.copytree(folders[0], tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    sweep = edited(folders[0], tmp_path / "sweep", grid={"seed": [0]})
    for words, message in {
        (folders[0],): "RUN: two or more are compared; write csbp_jax compare RUN RUN ...",
        (folders[0], "nowhere"): "nowhere: is not a run's folder",
        (folders[0], unfinished): "is not finished; repeat the command that started it to resume it",
        (folders[0], sweep): "is a sweep; its settings are compared in its own tables",
        (folders[0], folders[0]): "has the config and seed of",
        (folders[0], folders[1], "--data"): "--data: there is no such option",
    }.items():
        assert main.main(["compare", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
