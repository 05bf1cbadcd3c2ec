"""The study of robustness: its counts, its contrasts, its flow; its nets are those of the study of generalisation."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest

from csbp_jax import models
from csbp_jax.data.source import ArraySource
from csbp_jax.evaluation.robustness import battery
from csbp_jax.evaluation.robustness.measure import Measured, Outcome, Programs
from experiments.claims import nets, robustness, robustness_report, runs
from experiments.statistics import student_dict
from experiments.study import RESULTS
from tests.support import small_net


def test_counts_are_of_each_draw_and_of_the_worst_surrogate():
    rng = np.random.default_rng(0)

    def outcome(*shape):
        return Outcome(rng.random(shape) < 0.5, tuple(map(str, range(shape[1]))), np.arange(shape[2]))

    shapes = {"clean": (1, 1, 9), "noise": (3, 1, 9), "weight_noise": (4, 8, 9), "pgd": (3, 3, 5), "square": (3, 1, 5)}
    outcomes = {name: outcome(*shape) for name, shape in shapes.items()}
    result = robustness.counts(Measured(outcomes, {}))
    assert list(result)[:5] == ["clean", "noise 0.05", "noise 0.1", "noise 0.2", "weight_noise 0.01"]
    assert result["noise 0.1"] == (outcomes["noise"].correct[1].sum(), 9)
    assert result["weight_noise 0.05"] == (outcomes["weight_noise"].correct[2].sum(), 72)
    pgd, square = outcomes["pgd"].correct, outcomes["square"].correct[:, 0]
    assert result["pgd 4 1"] == (pgd[1, 1].sum(), 5) and result["pgd 4"] == (pgd[1].all(0).sum(), 5)
    assert result["both 8"] == ((pgd[2].all(0) & square[2]).sum(), 5)


def test_the_difference_at_equal_clean_accuracy_is_the_intercept():
    rng = np.random.default_rng(0)
    clean = rng.normal(-1, 1, 40)
    noise = rng.normal(0, 0.3, 40)
    for column in (np.ones(40), clean):  # orthogonal to both, so that the fit is exact
        basis = column - (0 if column[0] == 1 else column.mean())
        noise = noise - basis * (noise @ basis) / (basis @ basis)
    result = robustness_report.at_equal(0.2 + 0.7 * clean + noise, clean)
    assert (result["mean"], result["slope"]) == (pytest.approx(0.2), pytest.approx(0.7))
    assert result["low"] < 0.2 < result["high"] and result["tost"] < 0.05
    # With a covariate without influence, it is nearly the plain interval.
    balanced = np.tile([-1.0, 1.0], 20)
    outcome = np.repeat(rng.normal(3, 1, 20), 2)
    plain = student_dict(outcome)
    assert robustness_report.at_equal(outcome, balanced)["mean"] == pytest.approx(plain["mean"])
    assert robustness_report.at_equal(outcome, balanced)["low"] == pytest.approx(plain["low"], abs=0.02)


def test_the_claim_needs_all_arms():
    assert robustness_report.overall(["chaos helps", "the pull helps"]) == "confirmed"
    assert robustness_report.overall(["nothing", "harm"]) == "refuted"
    assert robustness_report.overall(["harm", "the pull helps"]) == "not decided"


def test_an_arm_is_finished_when_all_conditions_have_the_same_seeds():
    nets_of = {condition: {"0": "1"} for condition in robustness_report.CONDITIONS}
    arms = {"a": {"nets": nets_of}, "b": {"nets": nets_of | {"C": {}}}, "c": {"nets": {"P": {"0": "1"}}}}
    assert list(robustness_report.finished({"arms": arms})) == ["a"]


OF_EVENTS = {name: p for name, p in battery.PERTURBATIONS.items() if p.kind in ("events", "spikes", "weights")}


def arm_of_events(clean: int | None = None) -> dict[str, Any]:
    """An arm with counts of five seeds that are drawn at random, but for those without faults if these are given."""
    faults = [f"{name} {severity:g}" for name, p in OF_EVENTS.items() for severity in p.severities]
    columns = ["test", "clean", *faults]
    rng = np.random.default_rng(0)
    nets_of: dict[str, dict[str, str]] = {}
    for condition in robustness_report.CONDITIONS:
        counts = rng.integers(300, 359, (5, len(columns)))
        if clean is not None:
            counts[:, 1] = clean
        nets_of[condition] = {str(seed): " ".join(map(str, row)) for seed, row in enumerate(counts)}
    return {"columns": dict.fromkeys(columns, 359), "nets": nets_of, "differing": {"P": 1}}


def test_an_arm_whose_nets_agree_without_faults_has_no_regression():
    arm = arm_of_events(clean=350)
    arm["analysis"] = robustness_report.analyse(arm)
    assert arm["analysis"]["equal clean"] == dict.fromkeys(("C-P", "C-D", "C-S"))
    contrasts = robustness_report.arm_text("an arm", arm).splitlines()[6:9]
    assert all(row.startswith("| C-") and row.endswith(" |  |  |  |") for row in contrasts)
    robustness_report.draw({"an arm": arm})


def test_an_arm_of_events_has_four_corruptions_and_no_attacks():
    names, arm = OF_EVENTS, arm_of_events()
    of = robustness_report.accuracies(arm, "P")
    expected = [np.mean([of[f"{name} {s:g}"] for s in names[name].severities], axis=0) for name in list(names)[:4]]
    np.testing.assert_allclose(robustness_report.primary(of), np.mean(expected, axis=0))
    arm["analysis"] = robustness_report.analyse(arm)
    assert list(arm["analysis"]["measures"]) == list(names) and "masking" not in arm["analysis"]
    text = robustness_report.arm_text("an arm", arm)
    assert "5 seeds, 359 recordings, not attacked." in text and "surrogates" not in text
    assert robustness_report.draw({"an arm": arm}).axes[0].get_title() == "an arm"


def test_primary_severities_are_among_those_measured():
    for name, severities in robustness_report.MEASURES.items():
        assert name == "both" or set(severities) <= set(battery.PERTURBATIONS[name].severities)


def test_the_flow_is_that_of_the_plan_and_resumes(tmp_path, monkeypatch, capsys):
    """With counts drawn at random in place of nets: C is better by two points, whatever the accuracy without faults."""
    measured = []

    def train(task, kind, knobs, draws):
        helps = [float(own["z0"] > 0 and own["chaos"] > 0 and kind == "plain") for own in knobs]
        return {"helps": np.array(helps), "seed": np.array([jax.random.key_data(own.key)[-1] for own in draws])}

    def measure_net(subjects, variables, attacked):
        measured.append(attacked)
        rng = np.random.default_rng([int(variables["seed"]), len(measured)])
        names = {"test": 1, "clean": 1}
        for name, perturbation in battery.PERTURBATIONS.items():
            if attacked or perturbation.kind != "attack":
                names |= {f"{name} {s:g}": len(perturbation.variants) for s in perturbation.severities}
        names |= dict.fromkeys(["both 2", "both 4", "both 8"] if attacked else [], 1)
        better = {name: 0.02 * variables["helps"] * (name not in ("test", "clean")) for name in names}
        return {
            name: (int(1000 * draws * (0.5 + better[name] + rng.normal(0, 0.005))), 1000 * draws)
            for name, draws in names.items()
        }

    drawn = []
    monkeypatch.setattr(robustness_report.plots_robustness, "draw", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr(robustness, "CHUNK", 8)
    monkeypatch.setitem(robustness.ARMS, "digits", robustness.Arm("digits", 20, 10))
    monkeypatch.setattr(nets, "train", train)
    monkeypatch.setattr(robustness, "measure_net", measure_net)
    arguments = ["--out", str(tmp_path), "--data-dir", str(tmp_path)]
    robustness.main([*arguments, "--arms", "digits", "cifar10"])
    assert "cifar10 is left out" in capsys.readouterr().out
    assert len(measured) == 7 * 20 and sum(measured) == 7 * 10
    content = json.loads((tmp_path / "robustness.json").read_text())
    assert content["provenance"]["command"].endswith(f"--out {tmp_path} --arms digits cifar10")
    assert list(content["data_marks"]) == ["digits"]
    analysis = content["arms"]["digits"]["analysis"]
    assert analysis["against base"]["C"]["mean"] == pytest.approx(2, abs=0.5)
    assert analysis["verdict"] == "chaos helps" and content["verdict"] == "confirmed"
    assert analysis["equal clean"]["C-P"]["mean"] == pytest.approx(2, abs=0.5)
    assert analysis["lost"]["C-P"]["mean"] == pytest.approx(-2, abs=0.5)
    assert (analysis["measures"]["noise"]["n"], analysis["measures"]["square"]["n"]) == (20, 10)
    assert min(content["arms"]["digits"]["differing"].values()) > 15
    assert (tmp_path / "robustness.png").exists() and [panel.name for panel in drawn[0][1]][-1] == "square"
    robustness.main([*arguments, "--arms", "digits"])
    assert len(measured) == 7 * 20
    with pytest.raises(SystemExit):
        robustness.main(["--nets", "nowhere.json", "--out", str(tmp_path)])
    assert "--nets: there is no file nowhere.json" in capsys.readouterr().err


def test_too_few_seeds_are_refused_before_any_net(tmp_path, capsys):
    with pytest.raises(SystemExit):
        robustness.main(["--seeds", "2", "--out", str(tmp_path / "out")])
    assert "--seeds: from 3 on, which the regression" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_table_is_made_from_the_committed_counts():
    folder = RESULTS / "robustness"
    content = json.loads((folder / "robustness.json").read_text())
    for name, arm in robustness_report.finished(content).items():
        assert robustness_report.analyse(arm)["verdict"] == arm["analysis"]["verdict"], name
    assert robustness_report.page(content) + "\n" == (folder / "table.md").read_text()


def test_the_page_of_claims_says_of_cifar10_what_its_difference_of_gains_shows():
    content = json.loads((RESULTS / "robustness" / "robustness.json").read_text())
    lost = content["arms"]["cifar10"]["analysis"]["lost"]["C-P"]
    assert lost["low"] < 0 < lost["high"]
    difference = f"{lost['mean']:+.2f} [{lost['low']:+.2f}, {lost['high']:+.2f}], is not decided"
    assert difference in (RESULTS / "README.md").read_text()


@pytest.mark.slow
def test_nets_are_those_of_the_runs():
    """Trained again for its weights, a net classifies the test pictures as its run did."""
    model = dataclasses.replace(small_net.CONFIG.model, name="dense", input_shape=(4, 4, 1), features=(6, 6))
    optimizer = dataclasses.replace(small_net.SGD, weight_decay=0.0)
    chaos = dataclasses.replace(small_net.CONFIG.chaos, z0=(3.0,), taps=("fc1.membrane",))
    config = dataclasses.replace(
        small_net.CONFIG, model=model, chaos=chaos, optimizer=optimizer, epochs=3, batch_size=6
    )
    x, y = np.random.default_rng(0).random((60, 1, 4, 4, 1), np.float32), (np.arange(60) % 3).astype(np.int32)
    task = runs.Task(config, 8, (x, y), (x, y), (x, y))
    knobs = [runs.OFF, runs.OFF | {"z0": 3.0}]
    draws = [runs.draw(task, seed, 0.0) for seed in (0, 1)]
    expected = [result["test"] for result in runs.train(task, "plain", knobs, draws, 2)]
    weights = nets.train(task, "plain", knobs, draws)
    network = models.build(config.model)
    source = ArraySource(x, y, 3)
    apply: Any = network.apply
    subjects = robustness.Subjects(task, Programs(config, apply, network.neuron, False), source, source)
    for number in range(2):
        result = robustness.measure_net(subjects, jax.tree.map(lambda leaf, n=number: leaf[n], weights), True)
        assert result["test"] == result["clean"] == (round(60 * expected[number]), 60)
        assert {"noise 0.05", "lost_spikes 0.1", "weight_bits 4", "pgd 2", "square 8", "both 8"} <= set(result)
