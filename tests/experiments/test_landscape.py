"""The study of minima: its words, its statistics, and its flow on two seeds."""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax import learner, losses
from csbp_jax.config import Loss
from experiments.claims import landscape, landscape_report, loss_reached, minima, nets, robustness, runs
from tests.support import small_net

SIZES = list(minima.SIZES)
RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results" / "landscape"


def stored_arm(seeds=12):
    """An arm with known differences: C's rises are twice P's, and each condition's follow its gap."""
    generator = np.random.default_rng(0)
    level = {"P": 1.0, "B": 1.0, "C": 2.0, "D": 2.0, "S": 1.5, "SAM": 0.5}
    spread = generator.normal(size=seeds)

    def net(condition, i):
        scale = level[condition] * np.exp(0.1 * spread[i] + 0.001 * generator.normal())
        numbers = {"loss": 0.1, "train": 1.0, "test": 0.9 - 0.01 * spread[i] - 0.01 * (condition == "C")}
        return numbers | {"rises": [scale * size**2 for size in SIZES], "worst": scale}

    def pair(name, i):
        level, own = 0.5 * ("B" in name and "C" in name), np.random.default_rng([i, *map(ord, name)]).normal()
        return {"barrier": level + 0.01 * own, "unmatched": 1.0, "distance": 1.0}

    return {
        "wrong": 0.0,
        "differs": {"largest": 0.01, "mean": 0.0},
        "nets": {c: {str(i): net(c, i) for i in range(seeds)} for c in landscape.CONDITIONS},
        "pairs": {p: {str(i): pair(p, i) for i in range(seeds)} for p in landscape.PAIRS},
    }


def test_sharpness_is_compared_by_logarithms_and_correlated_with_the_gap():
    stored = stored_arm()
    analysis = landscape_report.analyse_sharpness(stored, SIZES)
    family = analysis["family"]
    assert family["C-P"]["mean"] == pytest.approx(np.log(2), abs=0.01)
    words = [landscape_report.word(family[pair], "flatter", "sharper") for pair in ("C-P", "C-B", "C-D")]
    assert words == ["sharper", "sharper", "equal"]
    assert analysis["slopes"]["P"] == pytest.approx(2) and landscape_report.slope(-1.0, 1.0) is None
    assert analysis["correlations"]["mean rise"]["gap"]["P"]["tau"] > 0.9
    assert analysis["correlations"]["mean rise"]["training loss"]["P"] == {"tau": 0.0, "p": 1.0, "holm": 1.0}
    # C is sharper and less accurate, and sharpness follows the gap in both.
    assert landscape_report.explains(analysis, stored) == "explains the difference"
    text = landscape_report.sharpness_text("digits", stored, analysis, SIZES)
    assert "C-P sharper; C-B sharper; C-D equal" in text and "| C-P | 2 [" in text


def test_the_gap_is_that_to_pictures_with_as_many_wrong_labels():
    stored = {"wrong": 0.2, "nets": {"P": {"0": {"train": 0.9, "test": 0.8}}}}
    assert landscape_report.gap(stored, "P").tolist() == pytest.approx([0.9 - (0.8 * 0.8 + 0.2 * 0.2 / 9)])


def test_verdicts_of_basins_are_the_plans_words():
    analysis = landscape_report.analyse_barriers(stored_arm())
    assert landscape_report.basin_verdict(analysis) == "another basin"
    assert analysis["family"]["(B-C') - (B-B')"]["mean"] == pytest.approx(0.5, abs=0.05)

    def word(excess, low, high):
        means = {"B-C'": {"high": high}, "B-B'": {"low": low}}
        return landscape_report.basin_verdict({"family": {"(B-C') - (B-B')": excess}, "means": means})

    nothing = {"holm": 0.5, "mean": 0.1}
    assert word(nothing, 0.0, 0.02) == "the same basin"
    assert word(nothing, 0.1, 0.3) == "another basin, but no more than other batches do"
    assert word(nothing, 0.0, 0.3) == "not decided"


def test_verdicts_of_losses_are_the_plans_words():
    def pair(mean, holm=1.0, tost=1.0):
        return {"mean": mean, "holm": holm, "tost": tost, "high": mean + 0.1}

    def word(p, d, s0):
        return landscape_report.loss_verdict({"C-P": p, "C-D": d}, {"C-S0": s0})

    below, same, open_ = pair(-0.5, holm=0.01), pair(0.0, tost=0.01), pair(0.1)
    assert word(below, below, below) == "deeper, by chaos"
    assert word(below, same, open_) == "deeper, by its pull"
    assert word(below, open_, open_) == "deeper"
    assert word(same, below, below) == "nothing"
    assert word(pair(0.5, holm=0.01), same, same) == "less deep"
    assert word(open_, same, same) == "not decided"


def test_losses_are_compared_and_told():
    def condition(level, i):
        test = {str(seed): level + 0.01 * np.random.default_rng([seed, i]).normal() for seed in range(8)}
        return {"chosen": 1, "seconds": 1.0, "test": test, "tuning": {"0": {"2000": None}, "1": {"2000": -1.0}}}

    levels = {"P": 0.0, "C": -0.5, "D": -0.5, "S": 0.5, "S0": -0.5}
    stored = {"conditions": {name: condition(level, i) for i, (name, level) in enumerate(levels.items())}}
    assert landscape_report.complete(stored, 5) and not landscape_report.complete({}, 5)
    analysis = landscape_report.analyse_losses(stored)
    assert analysis["verdict"] == "deeper, by its pull"
    text = landscape_report.losses_text("digits", stored, analysis, loss_reached.SETTINGS)
    assert "| C-P | -0." in text and "8 seeds" in text
    analysis = landscape_report.analyse_barriers(stored_arm())
    assert "**another basin**" in landscape_report.barriers_text("digits", stored_arm(), analysis)


def test_a_charged_sub_step_leaves_a_tenth_of_the_steps_and_the_same_annealing():
    assert loss_reached.CONDITIONS["S"].epochs * 10 == loss_reached.CONDITIONS["P"].epochs
    setting = loss_reached.SETTINGS[0]
    knobs = {n: loss_reached.knobs_of(loss_reached.CONDITIONS["C"], setting, 0.01, n) for n in (80, 800)}
    for steps, value in knobs.items():
        assert value["beta"] ** steps == pytest.approx(setting["left"]) and value["chaos"] == 1
        assert value["z0"] * 0.01 * value["lr"] / 0.1 == pytest.approx(setting["flips"])
    assert loss_reached.knobs_of(loss_reached.CONDITIONS["P"], setting, 0.01, 800)["z0"] == 0


@pytest.fixture(scope="module")
def two_nets():
    """Weights of two seeds, and a batch for each."""
    states = [small_net.first_state(small_net.recipe(), seed) for seed in (0, 1)]
    batches = [small_net.batch(seed, 16) for seed in (0, 1)]
    x, y = (jnp.stack([batch[name] for batch in batches]) for name in ("x", "y"))
    return nets.stack([learner.weights_of(state) for state in states]), x, y


@pytest.mark.slow
def test_measurements_of_many_nets_are_those_of_each(two_nets):
    weights, x, y = two_nets
    config = small_net.CONFIG
    lines = minima.line_losses(config, weights, jax.tree.map(lambda leaf: leaf[::-1], weights), x, y)
    ends = minima.end_losses(config, weights, x, y)
    assert lines.shape == (2, 21)
    np.testing.assert_allclose(lines[:, 0], ends, rtol=1e-5)
    second = jax.tree.map(lambda leaf: leaf[1], weights)
    logits, _ = small_net.recipe().model.apply(second, x[1], False)
    own, shared = minima.accuracies(config, weights, x, y), minima.accuracies(config, weights, x[1], y[1])
    assert own[1] == shared[1] == (np.asarray(logits).mean(1).argmax(-1) == np.asarray(y[1])).mean()
    (logits, _), _ = small_net.recipe().model.apply(second, x[1], True, mutable=["batch_stats"])
    assert ends[1] == pytest.approx(float(losses.build(Loss())(logits, y[1])), rel=1e-5)
    moved = minima.matched(config, weights, weights)
    assert minima.distances(weights, moved).tolist() == [0, 0]
    keys = jax.random.split(jax.random.key(0), 2)
    found = minima.sharpness(config, weights, x, y, keys, 2)
    assert found["rises"].shape == (2, len(SIZES)) and (found["worst"] > 0).all()


@pytest.mark.slow
def test_the_study_runs_and_resumes_and_leaves_out_what_has_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(landscape, "BLOCK", 2)
    arms = {"digits": landscape.Arm("digits", 4, 2, 1), "cifar10": landscape.Arm("cifar10", 2, 2, 1)}
    monkeypatch.setattr(landscape, "ARMS", arms)
    monkeypatch.setattr(loss_reached, "NETS", {"digits": loss_reached.Net((4, 4), 2)})
    monkeypatch.setattr(loss_reached, "EPOCHS", 2)
    monkeypatch.setattr(loss_reached, "TUNING_SEEDS", (2000,))
    monkeypatch.setattr(loss_reached, "SETTINGS", loss_reached.SETTINGS[:2])
    short = {name: c._replace(epochs=1) for name, c in loss_reached.CONDITIONS.items()}
    monkeypatch.setattr(loss_reached, "CONDITIONS", short)
    arguments = ["--out", str(tmp_path), "--data-dir", str(tmp_path)]
    landscape.main([*arguments, "--seeds", "2", "--parts", "nets"])
    landscape.main(arguments)
    assert "cifar10 is left out" in capsys.readouterr().out
    content = json.loads((tmp_path / "landscape.json").read_text())
    assert list(content["data_marks"]) == ["digits"] and len(content["provenance"]["later"]) == 1
    stored = content["arms"]["digits"]
    assert {len(of_seeds) for of_seeds in stored["nets"].values()} == {4}
    assert {len(of_seeds) for of_seeds in stored["pairs"].values()} == {2}
    assert stored["differs"]["largest"] <= 0.03 and abs(stored["differs"]["mean"]) < 0.01  # rounding, amplified
    assert (tmp_path / "table.md").read_text().count("###") == 3

    def train(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(nets, "train", train)
    landscape.main(arguments)


def test_a_part_without_the_study_of_generalisation_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        landscape.main(["--nets", str(tmp_path / "none.json"), "--out", str(tmp_path)])
    assert "--nets: there is no file" in capsys.readouterr().err


def test_nets_of_another_size_are_refused(tmp_path, capsys):
    file = tmp_path / "generalisation.json"
    file.write_text(json.dumps({"network": "conv", "labels": 500, "side": None, "epochs": None, "arms": {}}))
    with pytest.raises(SystemExit, match="2"):
        nets.parse(argparse.ArgumentParser(), ["--nets", str(file)])
    assert f"{file} was made with --network conv --labels 500; give files of the" in capsys.readouterr().err


@pytest.mark.parametrize("study", [landscape, robustness])
def test_nets_of_other_files_do_not_join_and_arms_that_none_has_are_left_out(tmp_path, capsys, study):
    for name in ("first", "second"):
        (tmp_path / name).write_text(json.dumps({"network": "dense", "labels": None, "arms": {}}))
    arguments = ["--out", str(tmp_path), "--data-dir", str(tmp_path)]
    arguments += ["--parts", "nets"] if study is landscape else []
    study.main([*arguments, "--nets", str(tmp_path / "first")])
    assert "digits is left out: it is in no file of --nets" in capsys.readouterr().out
    settings = {"sizes": SIZES, "radius": minima.RADIUS, "settings": loss_reached.SETTINGS}
    written = settings | {"nets": [str(tmp_path / "first")], "arms": {}, "losses": {}}
    (tmp_path / f"{study.MODULE.split('.')[-1]}.json").write_text(json.dumps(written))
    for files in ([str(tmp_path / "second")], list(map(str, nets.FILES))):
        with pytest.raises(SystemExit, match="2"):
            study.main([*arguments, "--nets", *files])
        assert "made with other options" in capsys.readouterr().err


def test_pairs_are_of_ends_that_are_trained():
    ends = {end for pair in landscape.PAIRS.values() for end in pair}
    assert {end.rstrip("'") for end in ends} <= {*landscape.CONDITIONS}
    assert runs.SUBSTEPS == 10


def test_the_table_is_that_of_its_data():
    content = json.loads((RESULTS / "landscape.json").read_text())
    assert (RESULTS / "table.md").read_text() == landscape_report.page(content) + "\n"
    analysed = [stored for stored in content["arms"].values() if "analysis" in stored]
    assert analysed
    for stored in analysed:
        assert landscape_report.analyse_barriers(stored) == stored["analysis"]["barriers"]
