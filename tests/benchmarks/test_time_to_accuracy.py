"""Time to an accuracy: what is run, when an accuracy is reached, and the page. Nothing is trained."""

import functools
import json
import math
import os
import sys
from typing import Any

import pytest

from benchmarks import time_page, time_to_accuracy
from csbp_jax.config import to_json
from csbp_jax.reporting.statistics import student
from tests.support.checkout import ROOT


def run_of(accuracies: list[float], seconds: float, start: float = 10.0) -> dict[str, Any]:
    """A run whose epochs take ``seconds``, the first ``start`` more; CPU time is half the wall time."""
    epochs = [
        {"epoch": n, "accuracy": value, "wall": start + n * seconds, "cpu": (start + n * seconds) / 2}
        for n, value in enumerate(accuracies, start=1)
    ]
    return {"epochs": epochs, "load": 1.0, "versions": {"jax": "1"}, "command": "python -m x --seeds 1"}


def content(ours: list[dict[str, Any]], peers: list[dict[str, Any]]) -> dict[str, Any]:
    runs = {"csbp_jax": ours, "spikingjelly": peers}
    return {
        "config": to_json(time_to_accuracy.config("small")),
        "machine": "a machine",
        "cores": 1,
        "peers": ["spikingjelly==2"],
        "runs": {name: {str(seed): run for seed, run in enumerate(rows)} for name, rows in runs.items()},
    }


def test_when_an_accuracy_is_reached():
    run = run_of([0.5, 0.72, 0.69, 0.75], seconds=20.0)
    assert time_page.reached(run, 0.7) == run["epochs"][1]
    assert time_page.reached(run, 0.8) is None
    assert time_page.per_epoch(run, "wall") == 20


def test_a_crossing_lies_between_the_ends_of_two_epochs():
    run = run_of([0.5, 0.66, 0.71, 0.69], seconds=20.0)
    assert time_page.seconds_to_crossing(0.7, run, "wall") == pytest.approx(50 + 20 * 4 / 5)
    assert time_page.seconds_to_crossing(0.7, run, "cpu") == pytest.approx(25 + 10 * 4 / 5)
    assert time_page.seconds_to_crossing(0.5, run, "wall") == 30
    assert time_page.seconds_to_crossing(0.66, run, "wall") == pytest.approx(50)
    assert time_page.seconds_to_crossing(0.8, run, "wall") is None


def test_ratios_are_of_pairs_that_both_reached_it():
    ours = [run_of([0.6, 0.71], 10.0), run_of([0.6, 0.65], 10.0), run_of([0.8, 0.8], 10.0)]
    peers = [run_of([0.6, 0.71], 25.0), run_of([0.7, 0.75], 10.0)]
    result = content(ours, peers)
    assert time_page.ratios(result, functools.partial(time_page.seconds_to, 0.7), "wall") == [60 / 30]
    mean, low, high = time_page.mean_ratio([1.0, 4.0])
    assert mean == pytest.approx(2) and low is not None and high is not None and low * high == pytest.approx(4)
    assert time_page.mean_ratio([3.0])[1:] == (None, None)


def test_the_page_says_what_was_not_reached_and_what_is_not_resolved():
    fast = time_page.page(content([run_of([0.6, 0.71], 10.0)] * 3, [run_of([0.6, 0.71], 30.0)] * 3))
    row = "| to 70 % | eagerly | 2.33 [2.33, 2.33] | 2.33 [2.33, 2.33] | 3 of 3 | met | met |"
    assert row in fast and "| to 80 %" not in fast  # no run reached it
    assert "Convolutions alone" not in fast
    single = time_page.page(content([run_of([0.6, 0.71], 10.0)], [run_of([0.6, 0.71], 30.0)]))
    assert (
        "| to 70 % | eagerly | 2.33 | 2.33 | 1 of 1 | not resolved, mean above | not resolved, mean above |" in single
    )


def test_pairs_that_were_added_after_a_look_widen_the_intervals():
    seconds = [30.0, 28.0, 31.0]
    ours, peers = [run_of([0.6, 0.71], 10.0)] * 3, [run_of([0.6, 0.71], s) for s in seconds]
    added = [*peers[:2], peers[2] | {"command": "python -m x --seeds 3"}]
    first = [run | {"command": "python -m x --seeds 2"} for run in added[:2]] + added[2:]
    values = time_page.ratios(content(ours, peers), time_page.per_epoch, "wall")
    for runs, wanted, level in ((added, [3], 0.95), (first, [2, 3], 0.975)):
        result = content(ours, runs)
        assert time_page.looks(result) == wanted and time_page.confidence(result) == pytest.approx(level)
        mean, low, high = student([math.log(value) for value in values], level)
        assert low is not None and high is not None
        cell = " [".join([f"{math.exp(mean):.2f}", f"{math.exp(low):.2f}, {math.exp(high):.2f}]"])
        page = time_page.page(result)
        assert (
            f"| an epoch, without start and compilation | eagerly | {cell} |" in page
            and f"[{100 * level:g} % interval" in page
        )
        assert ("looked at with 2 and 3 pairs, at 95 and 97.5 %" in page) == (len(wanted) == 2)
        assert ("together they err in at most 7.5 %" in page) == (len(wanted) == 2)


def test_each_clock_has_its_own_verdict():
    ours, peer = run_of([0.6, 0.71], 10.0), run_of([0.6, 0.71], 30.0)
    idle = peer | {"epochs": [epoch | {"cpu": epoch["cpu"] / 2} for epoch in peer["epochs"]]}
    row = "| to 70 % | eagerly | 2.33 [2.33, 2.33] | 1.17 [1.17, 1.17] | 3 of 3 | met | missed |"
    assert row in time_page.page(content([ours] * 3, [idle] * 3))


def test_pairs_follow_each_other_and_finished_runs_are_not_repeated():
    runs = list(time_to_accuracy.missing({}, seeds=8))
    assert [seed for seed, _ in runs] == [seed for seed in range(8) for _ in range(3)]
    assert {name for _, name in runs[::3]} == set(time_to_accuracy.LIBRARIES)  # each may be the first
    done: dict[str, Any] = {
        "csbp_jax": {"0": {}, "1": {}},
        "spikingjelly": {"0": {}},
        "spikingjelly_compiled": {"0": {}, "1": {}},
    }
    assert list(time_to_accuracy.missing(done, seeds=2)) == [(1, "spikingjelly")]
    assert list(time_to_accuracy.missing(done, 2, ["csbp_jax", "spikingjelly_compiled"])) == []


PROGRAM = """
import pathlib, time
for epoch in range(1, {epochs} + 1):
    sum(range(1_000_000))
    with open("ended.txt", "a") as file:
        file.write(str(epoch))
    time.sleep(0.15)
"""


def test_the_clocks_of_a_process_are_read_at_the_end_of_each_epoch(tmp_path):
    """Its last epoch is read although the process has ended."""

    def ended():
        return [(int(digit), 0.1) for digit in (tmp_path / "ended.txt").read_text()]

    epochs = 3
    command = [sys.executable, "-c", PROGRAM.format(epochs=epochs)]
    result = time_to_accuracy.run(command, tmp_path, ended, epochs)
    assert [row["epoch"] for row in result] == list(range(1, epochs + 1))
    assert all(row["wall"] > 0 and math.isfinite(row["cpu"]) for row in result)
    assert [row["cpu"] for row in result] == sorted(row["cpu"] for row in result)


def test_a_run_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(SystemExit, match=r"ended after 0 epochs\n.*no data"):
        time_to_accuracy.run([sys.executable, "-c", "raise SystemExit('no data')"], tmp_path, list, 3)


@pytest.mark.parametrize("names", [["4000"], ["{usable}", "4000"], ["{usable}", "{usable}"]])
def test_only_cores_that_the_process_may_use_are_taken(names, monkeypatch, capsys):
    """The system would pin to those alone, and the page would name a wrong number of cores."""
    monkeypatch.setattr(time_to_accuracy, "measure", pytest.fail)
    usable = min(os.sched_getaffinity(0))
    with pytest.raises(SystemExit, match="2"):
        time_to_accuracy.main(["--cores", *(name.format(usable=usable) for name in names)])
    assert f"--cores: name cores that this process may use, each once; they are {usable}" in capsys.readouterr().err


@pytest.mark.parametrize("name", time_to_accuracy.NAMES.values())
def test_the_published_page_is_made_from_its_numbers(name):
    file = time_to_accuracy.study.CHECKS / "bench" / f"{name}.json"
    if not file.exists():
        pytest.skip("not measured yet")
    assert file.with_suffix(".md").read_text() == time_page.page(json.loads(file.read_text()))


def test_the_readmes_have_the_ratio_of_the_small_network():
    content = json.loads((time_to_accuracy.study.CHECKS / "bench" / "time_to_accuracy.json").read_text())
    front, checks = ((folder / "README.md").read_text() for folder in (ROOT, ROOT / "docs" / "checks"))
    level, to_accuracy = time_page.confidence(content), functools.partial(time_page.seconds_to_crossing, 0.7)
    mean, low, high = time_page.mean_ratio(time_page.ratios(content, to_accuracy, "wall", time_page.COMPILED), level)
    assert f"[{mean:.2f} times]" in front
    assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in checks
