"""Times of both arms of the accuracy study, measured in turn."""

import json
import math
import time

import jax
import pytest

from experiments import accuracy, arm_times
from experiments.study import PRESETS


def test_the_order_of_the_arms_alternates():
    assert list(arm_times.orders(["csbp", "bp"], 3)) == [["csbp", "bp"], ["bp", "csbp"], ["csbp", "bp"]]


def test_the_ratio_is_that_of_the_blocks_times():
    content = arm_times.measure({"csbp": lambda: time.sleep(0.03), "bp": lambda: None}, 4)
    wall = content["ratio"]["wall"]
    assert wall["low"] <= wall["mean"] <= wall["high"] and wall["mean"] > 2
    assert content["milliseconds"]["wall"]["csbp"] >= 3
    assert arm_times.ratio([2.0, 8.0], [1.0, 4.0])["mean"] == pytest.approx(2)
    assert math.isclose(arm_times.ratio([2.0, 0.5], [1.0, 1.0])["mean"], 1)


@pytest.mark.parametrize(("ratio", "sentence"), [(1.0, "which leaves the machine"), (1.5, "differ as much.")])
def test_the_page_says_whether_the_steps_explain_the_time_of_the_runs(ratio, sentence):
    content = json.loads((PRESETS / "mnist" / "accuracy.json").read_text())
    interval = {"mean": ratio, "low": ratio - 0.1, "high": ratio + 0.1}
    content["arm_times"] = {
        **{"blocks": 4, "steps_of_a_block": 10, "load_average": 1.0, "command": "x"},
        "milliseconds": {"cpu": {"csbp": 100 * ratio, "bp": 100.0}},
        "ratio": {"cpu": interval, "wall": interval},
    }
    assert sentence in accuracy.page(content)


def test_results_of_the_accuracy_study_that_are_missing_are_named_before_any_step(tmp_path, capsys):
    jax.config.update("jax_platforms", "")  # as where a user sets nothing: JAX would take a GPU
    with pytest.raises(SystemExit):
        arm_times.main(["digits", "--out", str(tmp_path)])
    assert jax.config.values["jax_platforms"] == "cpu"
    error = capsys.readouterr().err
    assert f"{tmp_path}/accuracy.json: there is no such file; run python -m experiments.accuracy digits first" in error


def test_a_block_of_steps_goes_on_where_the_last_one_ended(tmp_path, capsys):
    small = ["--batch-size", "16", "--model.name", "dense", "--model.features", "8", "--model.time-steps", "2"]
    small += ["--chaos.taps", "fc1.membrane"]
    stored = json.loads((PRESETS / "digits" / "accuracy.json").read_text()) | {"fields": small}
    (tmp_path / "accuracy.json").write_text(json.dumps(stored))
    arm_times.main(["digits", "--blocks", "2", "--out", str(tmp_path), *small])
    content = json.loads((tmp_path / "accuracy.json").read_text())
    assert content["arm_times"]["milliseconds"]["cpu"]["csbp"] > 0
    assert "in turn" in capsys.readouterr().out
    assert (tmp_path / "accuracy.md").read_text() == accuracy.page(content)
    del content["arm_times"]
    assert content == stored


def test_times_are_not_added_to_results_of_other_fields(tmp_path, capsys):
    (tmp_path / "accuracy.json").write_text((PRESETS / "digits" / "accuracy.json").read_text())
    with pytest.raises(SystemExit):
        arm_times.main(["digits", "--out", str(tmp_path), "--batch-size", "16"])
    assert "accuracy.json: made with other options; give those, or another --out" in capsys.readouterr().err
