"""The study of cost: ratios of interleaved blocks and their verdicts, and accuracy against the number of tries."""

import itertools
import json

import numpy as np
import pytest

from csbp_jax.config import Chaos
from experiments import study
from experiments.claims import cost, tries


def pairs(factor, again=1.0, busy=1.0, sets=5, rounds=30, noise=0.01):
    """Times of a step with log-normal noise, and those of CPU for a machine of which the process has a share."""
    generator = np.random.default_rng(0)
    factors = {"plain": 1.0, "plain again": again, "CSBP": factor}
    made = []
    for _ in range(sets):
        wall = {name: f * np.exp(generator.normal(0, noise, rounds)) for name, f in factors.items()}
        made.append({"wall": wall, "cpu": {name: busy * values for name, values in wall.items()}})
    return made


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"factor": 1.005}, "free"),
        ({"factor": 1.05}, "dearer"),
        ({"factor": 0.95}, "cheaper"),
        ({"factor": 1.02, "noise": 0.1}, "not decided"),
        ({"factor": 1.0, "busy": 0.9}, "not decided"),
        ({"factor": 1.0, "again": 1.03}, "not decided"),
    ],
)
def test_verdicts_of_the_time_of_a_step(options, word, monkeypatch):
    monkeypatch.setattr(cost, "DRAWS", 300)
    analysis = cost.analyse(pairs(**options))
    assert cost.verdict(analysis) == word
    result = analysis["wall"]["CSBP"]
    assert result["low"] <= result["low90"] <= result["high90"] <= result["high"]
    assert result["ratio"] == pytest.approx(options["factor"], rel=0.05)
    assert analysis["quiet"] == ("busy" not in options)


def test_intervals_allow_for_differences_between_processes(monkeypatch):
    """Rounds within a process say nothing about where its buffers lie."""
    monkeypatch.setattr(cost, "DRAWS", 300)
    one, other = pairs(1.0, sets=2, noise=0.001), pairs(1.1, sets=2, noise=0.001)
    result = cost.ratio([*one, *other], "wall", "CSBP")
    assert result["high"] - result["low"] > 0.05


def test_a_bootstrap_of_few_sets_is_narrower_than_students_t(monkeypatch):
    """Two sets that differ, by either; one set has no interval."""
    monkeypatch.setattr(cost, "DRAWS", 300)
    sets = [pairs(factor, sets=1, noise=0.001)[0] for factor in (1.02, 1.03)]
    analysis = cost.analyse(sets)
    assert cost.verdict(analysis) == "dearer" and analysis["wall"]["CSBP"]["low"] > 1.01
    wall = cost.by_student(sets)
    assert cost.verdict(analysis | {"wall": wall}) == "not decided"
    # Half of it is 12.7 times half the difference of both logarithms.
    assert wall["CSBP"]["high"] / wall["CSBP"]["ratio"] == pytest.approx((1.03 / 1.02) ** (12.71 / 2), rel=0.01)
    assert wall["CSBP"]["ratio"] == pytest.approx(analysis["wall"]["CSBP"]["ratio"])
    assert cost.verdict(analysis | {"wall": cost.by_student(sets[:1])}) == "not decided"


def test_the_committed_table_is_that_of_the_committed_times():
    folder = study.RESULTS / "claims_cost"
    table = (folder / "table.md").read_text()
    assert table == cost.page(json.loads((folder / "cost.json").read_text())) + "\n"
    assert "| dearer | 1.023 [0.997, 1.050] | not decided |" in table


def results(values):
    """Runs of settings with these validation accuracies, whose test accuracy is lower by 0.1."""
    return {
        str(number): {
            str(seed): {"validation": value, "validation_loss": None, "test": value - 0.1}
            for seed in tries.TUNING_SEEDS
        }
        for number, value in enumerate(values)
    }


def test_expected_accuracy_is_the_mean_over_all_draws_of_tries():
    generator = np.random.default_rng(0)
    arm = {"base": 0, "runs": {"P": results([0.5] * 8), "C": results(generator.random(6))}}
    base, further = tries.rows_of(tries.read(arm, "P"), [0]), tries.read(arm, "C")
    for count in (1, 3, 6):
        best = [
            max(0.5, *(further.validation[i].mean() for i in drawn)) - 0.1
            for drawn in itertools.combinations(range(6), count)
        ]
        assert tries.expected_test(base, further, count) == pytest.approx(np.mean(best))


def test_further_tries_are_compared_from_the_same_start(monkeypatch):
    monkeypatch.setattr(tries, "DRAWS", 50)
    plain = results([0.3, 0.6, *[0.2] * 6, *[0.1] * 8])
    arm = {"base": 1, "runs": {"P": plain, "C": results([0.8] * 8), "D": results([0.4] * 8), "S": results([0.7] * 8)}}
    compared = tries.compare(arm)
    assert compared["base"] == pytest.approx(50)
    assert compared["plain"] == pytest.approx({"2": 50, "4": 50, "8": 50})
    assert compared["C"]["8"]["mean"] == pytest.approx(20) and compared["C"]["8"]["low"] == pytest.approx(20)
    assert compared["D"]["2"]["mean"] == 0  # keeps plain backpropagation
    assert "+20.00 [+20.00, +20.00]" in tries.table({"digits": compared})


def test_every_net_has_the_term_and_plain_backpropagation_does_not():
    for name, config in cost.NETS.items():
        assert config.chaos.taps and any(config.chaos.z0), name
        assert cost.steps.plain(config).chaos == Chaos()
    assert set(cost.TITLES) == set(cost.NETS)


def test_a_trial_on_a_quiet_machine_is_measured_again_at_full_size(tmp_path, monkeypatch):
    def measure_pair(config, rounds):
        (pair,) = pairs(1.0, sets=1, rounds=rounds)
        seconds = {clock: {name: values.tolist() for name, values in of.items()} for clock, of in pair.items()}
        sizes.append(rounds)
        return seconds | {"memory": {"plain": 1.0, "CSBP": 1.0}}

    monkeypatch.setattr(cost, "measure_pair", measure_pair)
    monkeypatch.setattr(cost, "DRAWS", 30)
    monkeypatch.setattr(tries, "FILES", ())
    sizes: list[int] = []
    for count, rounds in ((1, 3), (2, 3), (2, 4), (2, 4), (1, 3)):
        words = ["--pairs", str(count), "--rounds", str(rounds)]
        cost.main(["--nets", "dense", *words, "--out", str(tmp_path)])
    assert sizes == [3, 3, 3, 4, 4]
    net = json.loads((tmp_path / "cost.json").read_text())["nets"]["dense"]
    assert [len(pair["wall"]["plain"]) for pair in net["pairs"]] == [4, 4]


@pytest.mark.slow
def test_a_net_is_measured_and_not_again_on_a_quiet_machine(tmp_path, monkeypatch):
    arguments = ["--nets", "dense", "--pairs", "1", "--rounds", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(cost, "QUIET", 0.0)
    monkeypatch.setattr(cost, "DRAWS", 100)
    monkeypatch.setattr(tries, "DRAWS", 5)
    cost.main(arguments)
    table = (tmp_path / "table.md").read_text()
    assert cost.TITLES["dense"] in table and "Peak memory" in table
    monkeypatch.setattr(cost, "measure_pair", None)
    cost.main(arguments)
    assert (tmp_path / "table.md").read_text() == table
