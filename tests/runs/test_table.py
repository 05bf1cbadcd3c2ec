"""The table of runs: reading, settings, the best try, contrasts, and what they show."""

import dataclasses
import itertools
import json
import os
import re
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import csbp_jax
from csbp_jax.config import ConfigError
from csbp_jax.reporting.statistics import paired, student, student_of_shares
from csbp_jax.runs import RunTable, reading
from csbp_jax.runs.table import plain_controls
from csbp_jax.runtime import seals
from tests.support.run_copies import edited

ACCURACY = "last_test_accuracy"


def row(arm, seed, accuracy, **more):
    """A run, of role "test" in a single case and draw."""
    names = {"case": "", "arm": arm, "draw": 0, "try": 0, "role": "test", "seed": seed, "chaos.z0": 3.0}
    return names | {ACCURACY: accuracy, "last_validation_accuracy": accuracy, "diverged": False} | more


def table(rows):
    return RunTable(pd.DataFrame(rows), ("chaos.z0",), (ACCURACY, "last_validation_accuracy", "diverged"))


CSBP, PLAIN, DRIFT = [0.94, 0.95, 0.96, 0.97], [0.90, 0.92, 0.97, 0.95], [0.91, 0.90, 0.93, 0.92]
ARMS = {"CSBP": CSBP, "plain": PLAIN, "drift": DRIFT}
THREE = table([row(arm, seed, value) for arm, values in ARMS.items() for seed, value in enumerate(values)])
DIFFERENCES = {arm: 100 * (np.array(CSBP) - values) for arm, values in ARMS.items() if arm != "CSBP"}


# --- contrasts ----------------------------------------------------------------------------------------------------


def test_a_contrast_is_the_paired_test_in_points_with_holms_correction():
    result = THREE.contrast("CSBP", margin=0.5)
    for arm, differences in DIFFERENCES.items():
        test, of_row = paired(differences, margin=0.5), result[arm]
        assert tuple(of_row[["difference", "low", "high"]]) == pytest.approx(test.difference)
        assert tuple(of_row[["p", "equivalence", "pairs"]]) == pytest.approx((test.p, test.equivalence, 4))
    ps = [result[arm]["p"] for arm in DIFFERENCES]
    assert [result[arm]["p_holm"] for arm in DIFFERENCES] == pytest.approx([max(ps), 2 * min(ps)])
    assert list(result.frame["verdict"]) == ["not decided", "better"]
    assert THREE.contrast(["CSBP", "drift"], "drift")["drift"]["p_holm"] == pytest.approx(min(ps))


def test_equality_is_corrected_over_the_same_differences_as_p():
    """CSBP is equal to plain where that is the only question, and not decided where five were asked."""
    spread = [1.0, -1.0, 0.5, -0.5, 0.8, -0.8]  # points
    arms = {"CSBP": spread, "plain": [0.0] * 6, **{f"other {n}": [3.0 * s for s in spread[::-1]] for n in range(4)}}
    rows = [row(arm, seed, 0.9 + v / 100) for arm, values in arms.items() for seed, v in enumerate(values)]
    alone, of_five = table(rows).contrast("CSBP", "plain", margin=0.9), table(rows).contrast("CSBP", margin=0.9)
    p = paired(spread, margin=0.9).equivalence
    assert p is not None and p < 0.05 < 5 * p
    assert alone["plain"]["equivalence_holm"] == pytest.approx(p) and alone["plain"]["verdict"] == "equal"
    assert of_five["plain"]["equivalence_holm"] == pytest.approx(5 * p)
    assert of_five["plain"]["verdict"] == "not decided"
    assert of_five.cells()["p of equivalence, Holm"].iloc[0] == f"{5 * p:.2g}"


def test_the_answer_comes_first_in_a_sentence():
    text = repr(THREE.contrast("CSBP", margin=4))
    heading, plain, drift = text.splitlines()
    assert heading == "last_test_accuracy, paired over seeds, 2 differences: 95 % intervals, t test"
    mean, low, high = student(DIFFERENCES["plain"])
    assert plain.startswith(f"CSBP - plain: {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, p ")
    assert plain.endswith("4 seeds, about 6 pairs would decide 4 points") and "(Holm 0.0" in drift
    assert "would decide" not in drift  # it is decided
    assert "about 39 pairs would decide 1 point" in repr(THREE.contrast("CSBP", "plain"))


@pytest.mark.parametrize("margin, end", [
    (None, "a difference of 1 point would probably have shown; whether it is equal needs a margin"),
    (0.2, "a difference of 0.2 points would probably have shown"),
])  # fmt: skip
def test_enough_pairs_are_not_called_too_few(margin, end):
    """That "about 4 pairs would decide 1 point" read as if more than the 12 pairs were needed."""
    noise = [0.3, -0.3, 0.1, -0.1, 0.2, -0.2, 0.3, -0.3, 0.2, -0.2, 0.1, -0.1]  # points
    arms = {"a": [0.9 + (0.12 + points) / 100 for points in noise], "b": [0.9] * len(noise)}
    rows = [row(arm, seed, value) for arm, values in arms.items() for seed, value in enumerate(values)]
    text = repr(table(rows).contrast("a", "b", margin=margin))
    assert text.endswith(f"not decided, 12 seeds, {end}")


@pytest.mark.parametrize("draws", [2, 4])
def test_of_draws_it_says_how_many_would_decide_once_three_show_a_spread(draws):
    accuracies = zip(CSBP[:draws], PLAIN, strict=False)
    rows = [
        row(arm, seed, value + 0.01 * seed, draw=draw)
        for draw, pair in enumerate(accuracies)
        for arm, value in zip(("CSBP", "plain"), pair, strict=True)
        for seed in range(2)
    ]
    text = repr(table(rows).contrast("CSBP", "plain", over="draw", margin=1))
    assert f"not decided, {draws} draws" in text
    assert ("draws would decide 1 point" in text and "of the variance is seeds" in text) == (draws > 2)
    assert "pairs would" not in text


def test_more_pairs_are_needed_for_a_smaller_effect_and_more_comparisons():
    def needed(others, **options):
        return THREE.contrast("CSBP", others, **options)["plain"]["to_decide"]

    assert needed("plain", margin=4) < needed("plain") < needed(["plain", "drift"]) < needed("plain", margin=0.5)


def test_runs_without_a_partner_and_those_that_diverged_make_no_pair():
    rows = THREE.frame.to_dict("records")
    rows[0]["diverged"] = True  # CSBP, seed 0
    rows += [row("CSBP", 9, 0.1), row("plain", 8, 0.1), row("plain", 7, np.nan)]
    result = table(rows).contrast("CSBP", "plain")
    assert result["plain"]["difference"] == pytest.approx(DIFFERENCES["plain"][1:].mean())
    assert result["plain"]["left_out"] == 5 and "3 seeds (left out as diverged or without a partner: 5)" in repr(result)
    single = table(rows).where(seed=1).contrast("CSBP", "plain")
    assert repr(single).endswith("CSBP - plain: +3.00 points, not decided, 1 seed")
    nearly = table([row(arm, seed, 0.5 - (arm == "a") * seed * 1e-6) for arm in "ab" for seed in range(3)])
    assert "a - b: +0.00 [+0.00, +0.00] points" in repr(nearly.contrast("a", "b"))


def test_an_arm_that_diverged_or_shares_no_seed_has_a_row_that_says_so():
    rows = THREE.frame.to_dict("records")
    rows[4:8] = [of_plain | {"diverged": True} for of_plain in rows[4:8]]
    rows[8:] = [of_drift | {"seed": 10 + of_drift["seed"]} for of_drift in rows[8:]]
    rows += [row("strong", seed, value) for seed, value in enumerate(PLAIN)]
    result = table(rows).contrast("CSBP", margin=0.5)
    assert result.frame["verdict"].tolist()[:2] == ["no values", "no pairs"] and result["plain"]["left_out"] == 8
    lines = list(result.lines())
    assert lines[0] == "CSBP - plain: no difference, as one has no finite last test accuracy"
    assert lines[1] == "CSBP - drift: no difference, as no two have the same seed"
    # They take no part in the correction.
    assert result["strong"]["p_holm"] == THREE.contrast("CSBP", "plain")["plain"]["p"]
    cells = result.cells()
    assert cells["p"].tolist()[:2] == ["", ""] and "nan" not in result.to_markdown()
    assert len(result.differences) == len(result.frame)


def test_equal_differences_that_differ_by_rounding_have_no_spread():
    """Always one of 359 examples: as shares their differences are not the same numbers."""
    counts = np.random.default_rng(0).integers(200, 300, (4, 3))
    rows = [
        row(arm, seed, (count + (arm == "a")) / 359, draw=draw)
        for draw, of_draw in enumerate(counts)
        for seed, count in enumerate(of_draw)
        for arm in "ab"
    ]
    text = repr(table(rows).contrast("a", "b"))
    assert text.endswith("a - b: +0.28 (all equal) points, p 0.12, not decided, 4 draws")


def test_cases_are_compared_each_by_itself_and_pooled_only_if_named():
    cases = {"digits": 0.0, "mnist": 0.01}
    rows = [
        row(arm, seed, value - shift * (arm == "plain"), case=case)
        for case, shift in cases.items()
        for arm, values in ARMS.items()
        for seed, value in enumerate(values)
    ]
    result = table(rows).contrast("CSBP", "plain")
    means = DIFFERENCES["plain"].mean() + np.array([0, 1])
    assert list(result.frame["case"]) == ["digits", "mnist"] and list(result.frame["difference"]) == pytest.approx(
        means
    )
    with pytest.raises(KeyError, match="2 differences are from it"):
        result["plain"]
    pooled = table(rows).contrast("CSBP", "plain", over="case")["plain"]
    assert (pooled["difference"], pooled["pairs"]) == (pytest.approx(means.mean()), 2)
    assert "digits: CSBP - plain" in repr(result) and "case" in result.cells()


def test_pairs_of_draws_are_means_over_seeds_and_show_what_more_seeds_would_gain():
    random = np.random.default_rng(0)
    draws, seeds = 200, 4
    of_draws, of_seeds = random.normal(0, 0.01, draws), random.normal(0, 0.04, (draws, seeds))
    gains = 0.02 + of_draws[:, None] + of_seeds
    rows = [
        row(arm, seed, 0.5 + (arm == "a") * gains[draw, seed], draw=draw)
        for arm, draw, seed in itertools.product("ab", range(draws), range(seeds))
    ]
    contrast = table(rows).contrast("a", "b")
    assert contrast["b"]["difference"] == pytest.approx(100 * gains.mean()) and contrast["b"]["pairs"] == draws
    # Of the variance of a draw's mean, 0.04^2 / 4 comes from seeds, and 0.01^2 from draws.
    assert contrast["b"]["seed_share"] == pytest.approx(0.8, abs=0.07)
    assert table(rows).contrast("a", "b", over="seed")["b"]["pairs"] == draws * seeds
    assert "of the variance is seeds" in repr(contrast)


def test_tests_of_bits_and_of_ranks():
    solved = np.random.default_rng(0).random((2, 40)) < [[0.9], [0.5]]
    rows = [row(arm, seed, 0.0, solved=solved[i, seed]) for i, arm in enumerate("ab") for seed in range(40)]
    bits = RunTable(pd.DataFrame(rows), (), ("solved",))
    differences = solved[0].astype(float) - solved[1]
    for test in ("mcnemar", "signed-rank"):
        result = bits.contrast("a", "b", test=test, confidence=0.9)["b"]
        expected = paired(differences, test, confidence=0.9)
        assert (result["p"], result["low"]) == pytest.approx((expected.p, expected.difference.low))
    assert "points" not in repr(bits.contrast("a", "b"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"others": "noise"}, "'noise' has no run of role test; arms are CSBP, plain, drift"),
        ({"measure": "loss"}, "'loss' is none of last_test_accuracy"),
        ({"test": "z"}, "'z' is none of t"),
        ({"test": "welch", "over": "case"}, "welch compares seeds or draws that make no pairs"),
        ({"test": "welch", "overlap": 0.1}, "welch compares seeds or draws that make no pairs"),
        ({"margin": -1.0}, "contrast: margin is -1.0, but must be above 0"),
        ({"margin": "1"}, "contrast: margin is '1', a text, but must be a number, above 0"),
    ],
)
def test_impossible_contrasts(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        THREE.contrast("CSBP", **options)


def test_an_arm_with_several_runs_of_a_seed_is_refused():
    rows = [*THREE.frame.to_dict("records"), row("plain", 2, 0.5, **{"try": 1})]
    with pytest.raises(ValueError, match="arm plain has several runs of seed 2"):
        table(rows).contrast("CSBP")
    assert table(rows).where(**{"try": 0}).contrast("CSBP")["plain"]["pairs"] == 4


# --- settings and tries -------------------------------------------------------------------------------------------


def test_settings_have_a_row_each_with_intervals_that_leave_out_what_diverged():
    rows = THREE.frame.to_dict("records")
    rows[0]["diverged"] = True
    settings = table(rows).settings().set_index("arm")
    ends = [f"{ACCURACY}_{end}" for end in ("mean", "low", "high")]
    assert tuple(settings.loc["CSBP", ends]) == pytest.approx(student_of_shares(CSBP[1:]))
    assert tuple(settings.loc["plain", ends]) == pytest.approx(student_of_shares(PLAIN))
    assert list(settings["n"]) == [3, 4, 4] and list(settings["diverged"]) == [1, 0, 0]


def test_the_number_of_an_epoch_has_no_interval():
    """Epochs from -26.3 to 37.3 stood beside the accuracies."""
    rows = [row("a", seed, 0.9, chosen_epoch=epoch) for seed, epoch in enumerate((2, 30))]
    of_epochs = dataclasses.replace(table(rows), measures=("chosen_epoch", ACCURACY))
    columns = [name for name in of_epochs.settings() if "epoch" in name]
    assert columns == ["chosen_epoch_mean"] and of_epochs.settings()["chosen_epoch_mean"].tolist() == [16]
    assert of_epochs.cells()["chosen epoch"].tolist() == ["16"]


def test_fields_are_shown_with_four_digits_where_these_tell_them_apart():
    rows = [row(arm, 0, 0.9, **{"chaos.z0": z0}) for arm, z0 in (("a", 0.008127437971495266), ("b", 3.0))]
    assert table(rows).cells()["chaos.z0"].tolist() == ["0.008127", "3.0"]
    assert table(rows).settings()["chaos.z0"].tolist() == [0.008127437971495266, 3.0]
    rows = [row(arm, 0, 0.9, **{"chaos.z0": z0}) for arm, z0 in (("a", 0.99791), ("b", 0.99792))]
    assert table(rows).cells()["chaos.z0"].tolist() == ["0.99791", "0.99792"]


def test_fields_of_arms_without_fields_are_empty():
    one = RunTable(pd.DataFrame([row("all", 0, 0.9)]).drop(columns="chaos.z0"), (), (ACCURACY,))
    assert one.of_arms() == {"all": {}} and THREE.of_arms()["CSBP"] == {"chaos.z0": 3.0}


def test_the_best_try_is_that_of_the_best_mean_validation_without_divergence():
    def tries(accuracies, **more):
        return [
            row("CSBP", seed, 0.0, **{"try": n, "role": "tune", "chaos.z0": z0}, last_validation_accuracy=value, **more)
            for n, (z0, values) in enumerate(accuracies.items())
            for seed, value in enumerate(values)
        ]

    rows = tries({1.0: [0.8, 0.9], (2.0, 0.0): [0.95, 0.85], 4.0: [0.1, 0.99], 8.0: [0.99, 0.99]})
    rows[-1]["diverged"] = True
    assert table(rows).best("CSBP") == {"chaos.z0": (2.0, 0.0)}
    # Runs of role "test" have no say.
    assert table([*rows, row("CSBP", 0, 1.0)]).best("CSBP") == {"chaos.z0": (2.0, 0.0)}
    several = [*rows, *tries({1.0: [0.8]}, case="mnist")]
    refused = ((rows[-2:], "CSBP", "no tries that converged"), (several, "CSBP", "cases"), (rows, "typo", "no tries"))
    for some, arm, problem in refused:
        with pytest.raises(ValueError, match=f"^arm {arm}: has .*{problem}"):
            table(some).best(arm)
    assert table(rows).where(arm="typo", seed=0).frame.empty
    assert "7 are tries, which are not shown" in repr(table([*rows[1:], row("CSBP", 0, 1.0)]))


def test_controls_are_equal_but_for_the_chaos_term():
    arms = {
        "z 3": {"chaos.z0": 3.0, "chaos.term": "chaos", "optimizer.lr": 0.2},
        "plain, slow": {"chaos.z0": 0.0, "chaos.term": "chaos", "optimizer.lr": 0.1},
        "plain, drift": {"chaos.z0": 0.0, "chaos.term": "drift", "optimizer.lr": 0.2},
        "plain": {"chaos.z0": 0.0, "chaos.term": "chaos", "optimizer.lr": 0.2},
        "slow": {"chaos.z0": (3.0, 1.0), "chaos.term": "drift", "optimizer.lr": 0.1},
        "other": {"chaos.z0": 3.0, "chaos.term": "chaos", "optimizer.lr": 0.4},
    }
    # Not of another learning rate; other fields of a term that is off do not matter, though fewer are better.
    expected = ["plain", None, None, None, "plain, slow", None]
    assert list(plain_controls(arms).values()) == expected
    assert plain_controls({"a": {"optimizer.lr": 1}, "b": {"optimizer.lr": 2}}) == {"a": None, "b": None}


# --- text, files and figures --------------------------------------------------------------------------------------


def test_what_notebooks_papers_and_pages_show(tmp_path):
    assert repr(THREE).splitlines()[0] == "12 runs: 3 arms, 4 seeds"
    markdown = THREE.to_markdown().splitlines()
    assert markdown[0] == "| arm | chaos.z0 | n | last test accuracy (%) | last validation accuracy (%) |"
    mean, low, high = student_of_shares(CSBP)
    assert f"| CSBP | 3.0 | 4 | {100 * mean:.2f} [{100 * low:.2f}, {100 * high:.2f}] |" in markdown[2]  # type: ignore[operator]
    for shown in (THREE, THREE.contrast("CSBP")):
        assert "\\toprule" in shown.to_latex() and "\\%" in table([row("a", 0, 0.5)]).to_latex()
        assert "<td>CSBP" in shown._repr_html_() and "<p>" in shown._repr_html_()
    assert "<p>last_test_accuracy, paired" in THREE.where(arm="CSBP").contrast("CSBP")._repr_html_()  # of no other arm
    THREE.to_csv(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "runs.csv", keep_default_na=False), THREE.frame)


def test_the_figure_has_a_point_a_seed_joins_pairs_and_has_the_intervals_of_the_table(tmp_path):
    rows = [row(arm, seed, v, case=c) for c in ("a", "b") for arm, vs in ARMS.items() for seed, v in enumerate(vs)]
    figure = table(rows).plot(file=tmp_path / "figures" / "runs.png")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"runs.png", "runs.pdf"}
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    joined = [line for line in first.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    values = 100 * np.array(list(ARMS.values()))
    np.testing.assert_allclose([line.get_ydata() for line in joined], values.T)
    points = [line.get_ydata() for line in first.lines if line.get_marker() == "."]
    np.testing.assert_allclose(points, values)
    drawn = [bars.lines[2][0].get_segments()[0][:, 1] for bars in first.containers]
    np.testing.assert_allclose(drawn, 100 * THREE.settings()[[f"{ACCURACY}_low", f"{ACCURACY}_high"]].to_numpy())
    assert figure._repr_png_()[:4] == b"\x89PNG"  # type: ignore[attr-defined]


def test_a_figure_of_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match=f"measure: 'acc' is none of {ACCURACY}, last_validation_accuracy"):
        THREE.plot("acc")


def test_there_is_no_figure_of_tries_alone():
    with pytest.raises(ValueError, match="no run of role test"):
        dataclasses.replace(THREE, frame=THREE.frame.assign(role="tune")).plot()


def test_curves_are_means_over_seeds_with_intervals(tmp_path):
    rows = [row(arm, seed, v) | {"epoch": e, "validation_accuracy": v * e / 2} for e in (1, 2)
            for arm, values in ARMS.items() for seed, v in enumerate(values)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "epochs.csv", index=False)
    runs = dataclasses.replace(THREE, folder=tmp_path)
    axes = runs.plot_curves(file=tmp_path / "curves.png").axes[0]  # type: ignore[union-attr]
    assert (tmp_path / "curves.pdf").exists() and axes.get_ylabel() == "validation accuracy (%)"
    for line, (arm, values) in zip(axes.lines, ARMS.items(), strict=True):
        mean = 100 * np.mean(values)
        assert line.get_label() == arm and line.get_ydata().tolist() == pytest.approx([mean / 2, mean])
    # Of runs that diverged there is no curve, as there is no point.
    some = THREE.frame.assign(diverged=(THREE.frame["arm"] == "drift") | (THREE.frame.index == 0))
    axes = dataclasses.replace(runs, frame=some).plot_curves().axes[0]  # type: ignore[union-attr]
    drawn = {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
    assert drawn == pytest.approx({"CSBP": 100 * np.mean(CSBP[1:]), "plain": 100 * np.mean(PLAIN)})
    assert dataclasses.replace(runs, frame=THREE.frame.assign(diverged=True)).plot_curves() is None
    with pytest.raises(ValueError, match=r"measure: 'nope' is none of .*validation_accuracy"):
        runs.plot_curves("nope")
    only = runs.where(arm="CSBP").curves()
    assert set(only["arm"]) == {"CSBP"} and len(only) == 2 * len(CSBP)
    # Folders of weights, which begin at the experiment's, have no curves of their own.
    assert len(dataclasses.replace(runs, frame=THREE.frame.assign(run="weights/a-0")).curves()) == len(rows)
    assert THREE.plot_curves() is None


# --- folders ------------------------------------------------------------------------------------------------------


def test_folders_of_runs_are_arms_by_the_fields_that_differ(trained, tmp_path):
    for z0, seed, accuracy in ((0.0, 0, 0.9), (0.0, 1, 0.92), (30.0, 0, 0.94), (30.0, 1, 0.93)):
        edited(
            trained, tmp_path / f"z{z0:.0f}-{seed}", accuracy=accuracy, seed=seed, chaos__z0=[z0], log_every=seed + 1
        )
    (tmp_path / "notes").mkdir()
    read = RunTable.read(tmp_path / "*")
    assert read.arms == ["chaos.z0 0.0", "chaos.z0 30.0"] and read.fields == ("chaos.z0",)
    assert read.measures[:3] == ("last_test_accuracy", "chosen_test_accuracy", "last_validation_accuracy")
    assert list(read.frame["seed"]) == [0, 1, 0, 1] and set(read.frame["case"]) == {""}
    assert read.contrast("chaos.z0 30.0")["chaos.z0 0.0"]["difference"] == pytest.approx(2.5)
    assert str(tmp_path / "z0-1") == read.frame["run"][1]
    odd = shutil.copytree(tmp_path, tmp_path.parent / "runs [1]")  # a name, though it looks like a pattern
    assert all(len(RunTable.read(runs).frame) == len(read.frame) for runs in (tmp_path, odd, [odd]))
    one = RunTable.read([tmp_path / "z0-0"])
    assert one.arms == ["z0-0"] and one.fields == ()


def test_runs_of_other_data_are_another_case(trained, tmp_path):
    copies = [edited(trained, tmp_path / f"{z0}", accuracy=0.9, chaos__z0=[z0], epochs=7) for z0 in (0.5, 0.0)]
    for copy in copies:
        content = json.loads((copy / "config.json").read_text()) | {"data": "changed"}
        (copy / "config.json").write_text(json.dumps(content))
    other = edited(trained, tmp_path / "other", accuracy=0.8, chaos__z0=[0.5])
    read = RunTable.read([*copies, other])
    assert list(read.frame["case"])[:2] == ["digits change"] * 2 and read.fields == ("chaos.z0",)
    assert read.frame["case"][2].startswith("digits ") and read.arms == ["chaos.z0 0.5", "chaos.z0 0.0"]
    assert list(read.contrast("chaos.z0 0.5").frame["case"]) == ["digits change"]
    assert RunTable.read([*copies[:1], other]).arms == ["0.5", "other"]


def test_the_weights_of_a_row_are_those_of_its_run(trained):
    read = RunTable.read([trained])
    _, variables, _ = csbp_jax.load(trained, "chosen")
    weights = read.weights(read.frame.iloc[0], "chosen")
    jax.tree.map(np.testing.assert_array_equal, weights, variables)
    with pytest.raises(ValueError, match="keeps no weights"):
        THREE.weights(THREE.frame.iloc[0])


@pytest.mark.parametrize("is_older", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("0.875", "0.975", "line 3 has last_test_accuracy 0.975, the sealed results have 0.875"),
        ("3.0", "4.0", "line 2 has chaos.z0 4.0, the run had 3.0"),
        ("test,1,", "test,7,", "line 3 is of a run that the experiment did not train"),
        (",plain,", ",CSBP,", "line 4 has chaos.z0 0.0, the run had 3.0"),
    ],
)
def test_a_table_that_was_edited_is_refused_in_one_line(tmp_path, is_older, old, new, named):
    rows = [
        row(arm, seed, accuracy) | {"chaos.z0": z0}
        for arm, z0, accuracies in (("CSBP", 3.0, (0.5, 0.875)), ("plain", 0.0, (0.25, 0.625)))
        for seed, accuracy in enumerate(accuracies)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    sealed_results(tmp_path, rows, ["chaos.z0"], is_older)
    assert len(RunTable.read(tmp_path).frame) == 4
    text = (tmp_path / "runs.csv").read_text()
    (tmp_path / "runs.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"runs.csv: was changed .*: {re.escape(named)}; repeat the command"):
        RunTable.read(tmp_path)


def test_lines_and_columns_that_were_removed_are_noticed(tmp_path):
    rows = [row("a", seed, 0.5) for seed in range(3)]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    sealed_results(tmp_path, rows, [])
    pd.DataFrame(rows[:2]).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(ConfigError, match=r"runs.csv: was changed .* removed"):
        RunTable.read(tmp_path)
    names = list(reading.COLUMNS)
    pd.DataFrame(rows)[names].to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(ConfigError, match="it has no measures"):
        RunTable.read(tmp_path)


def test_curves_that_were_edited_are_refused_in_one_line(tmp_path):
    rows = [row("a", seed, 0.5) for seed in range(2)]
    losses = [[2.0, 1.5], [2.5, 1.25]]
    epochs = [
        dict(zip(reading.COLUMNS, (of_run[name] for name in reading.COLUMNS), strict=True)) | {"epoch": n, "loss": loss}
        for of_run, curve in zip(rows, losses, strict=True)
        for n, loss in enumerate(curve, start=1)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    pd.DataFrame(epochs).to_csv(tmp_path / "epochs.csv", index=False)
    sealed_results(tmp_path, rows, [], curves={"loss": losses})
    assert list(RunTable.read(tmp_path).curves()["loss"]) == [2.0, 1.5, 2.5, 1.25]
    (tmp_path / "epochs.csv").write_text((tmp_path / "epochs.csv").read_text().replace("1.25", "0.25"))
    with pytest.raises(ConfigError, match=r"epochs.csv: was changed .* line 5 has loss 0.25, the .* 1.25"):
        RunTable.read(tmp_path)


def sealed_results(folder, rows, fields, is_older=False, curves=None):
    """Write the sealed files of an experiment whose runs.csv has these rows, as an older version wrote them or as now.

    curves: measures of each epoch, a list for each row.
    """
    (folder / "blocks").mkdir()
    tries = {}
    for number, of_run in enumerate(rows):
        setting = {name: of_run[name] for name in fields}
        tries[of_run["arm"]] = setting
        measures = {name: [value] for name, value in of_run.items() if name not in (*reading.COLUMNS, *fields)}
        measures |= {name: [values[number]] for name, values in (curves or {}).items()}
        content = {"fields": setting, "seeds": [of_run["seed"]], "measures": measures, "how": {}}
        seals.write_json(folder / "blocks" / f"{number}.json", content)
    cells = [{"case": rows[0]["case"], "arm": arm, "draw": 0, "tries": [setting]} for arm, setting in tries.items()]
    written = [name for name in ("runs.csv", "epochs.csv") if (folder / name).exists()]
    tables = {} if is_older else {"tables": {name: reading.table_digest(folder / name) for name in written}}
    seals.write_json(folder / "settings.json", {"cells": cells, **tables})


@pytest.mark.parametrize(
    ("accuracies", "options", "words"),
    [
        ([90.0, 91.0, 92.0], {}, f"{ACCURACY}: is a share, and at most 1"),
        ([0.9, 0.91, 0.92], {"over": "x"}, "over: 'x' is none of seed, draw, case"),
        ([0.9, 0.91, 0.92], {"confidence": 95}, "confidence: 95 is not possible"),
        ([0.9, 0.91, 0.92], {"overlap": -0.05}, "overlap: -0.05 is not possible"),
    ],
)
def test_options_and_accuracies_that_are_not_possible_are_refused(accuracies, options, words):
    runs = table([row(arm, n, value) for arm in ("a", "b") for n, value in enumerate(accuracies)])
    with pytest.raises(ValueError, match=words):
        runs.contrast("a", "b", **options)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_a_change_of_the_unit_changes_no_verdict(unit):
    """Energies in joules were rounded to 9 decimals: all were equal, and p was 1."""
    joules = {"a": [2.3, 2.5, 2.4, 2.45, 2.2, 2.6], "b": [2.1, 2.4, 2.2, 2.3, 2.15, 2.4]}
    rows = [
        row(arm, n, 0.9) | {"energy": unit * value} for arm, values in joules.items() for n, value in enumerate(values)
    ]
    contrast = RunTable(pd.DataFrame(rows), ("chaos.z0",), ("energy",)).contrast("a", "b", measure="energy")
    expected = stats.ttest_rel(joules["a"], joules["b"]).pvalue
    assert contrast["b"]["p"] == pytest.approx(expected) and contrast["b"]["verdict"] == "better"


def test_fields_that_are_read_are_those_that_were_written(tmp_path):
    """Tuples and None are in a file as text and as nothing; numbers keep their last digit."""
    fields = {
        "chaos.z0": [(3.0, 0.0), (0.0, 0.0), 0.1 + 0.2],
        "optimizer.clip": [None, 1.0, None],
        "model.max_delay": [2, None, 2],
        "model.norm": [None, "none", "tebn"],
        "data.test_speaker": ["", "7", "theo"],
        "own.knob": ["a", "b", None],
    }
    settings = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    rows = [row(f"arm{n}", seed, 0.9, role=role) | setting
            for n, setting in enumerate(settings) for seed in (0, 1) for role in ("tune", "test")]  # fmt: skip
    reading.with_fields(rows, fields).to_csv(tmp_path / "runs.csv", index=False)
    sealed_results(tmp_path, rows, list(fields))
    read = RunTable.read(tmp_path)
    assert list(read.of_arms().values()) == settings
    assert [read.best(f"arm{n}") for n in range(3)] == settings
    assert set(read.where(**{"optimizer.clip": None}).frame["arm"]) == {"arm0", "arm2"}
    assert plain_controls({"a": settings[0], "b": settings[0] | {"chaos.z0": (0.0, 0.0)}}) == {"a": "b", "b": None}
    assert "| None |" in read.to_markdown()


@pytest.mark.parametrize("name", ["runs.csv", "epochs.csv"])
def test_a_damaged_table_is_refused_in_one_line(tmp_path, name):
    pd.DataFrame([row("a", 0, 0.5)]).to_csv(tmp_path / name, index=False)
    whole = (tmp_path / name).read_text()
    for damaged in ("", whole.splitlines()[0] + "\n", whole[:-3]):
        (tmp_path / name).write_text(damaged)
        with pytest.raises(ConfigError, match=rf"{name}: cannot be read .*; repeat the command of the experiment"):
            dataclasses.replace(THREE, folder=tmp_path).curves() if name == "epochs.csv" else RunTable.read(tmp_path)


def test_runs_of_another_task_have_not_diverged():
    of_values = {**row("values", 0, np.nan), "last_test_r2": 0.5}
    runs = RunTable(
        pd.DataFrame([row("classes", 0, 0.9), row("lost", 0, 0.9, diverged=True), of_values]),
        ("chaos.z0",),
        (ACCURACY, "last_validation_accuracy", "diverged"),
    )
    assert runs.cells()["last test accuracy (%)"].tolist() == ["90.00", "diverged", ""]


def test_runs_that_make_no_table(trained, tmp_path):
    copy = edited(trained, tmp_path / "copy", log_every=3)
    with pytest.raises(ConfigError, match=r"copy: has the seed of .*, and differs in no field"):
        RunTable.read([trained, copy])
    with pytest.raises(ConfigError, match=r"none-\*: there is no run"):
        RunTable.read(tmp_path / "none-*")
    other = shutil.copytree(copy, tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(ConfigError, match=r"its name is not UTF-8, .* rename the folder"):
        RunTable.read(other)
    (copy / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"copy: is not finished"):
        RunTable.read([trained, copy])
    with pytest.raises(ConfigError, match="RUN: missing"):
        RunTable.read([])


def test_arms_that_are_named_by_their_fields_are_not_named_twice(tmp_path):
    rows = [row(f"chaos.z0 {z0}", seed, 0.9, **{"chaos.z0": z0}) for z0 in (0.0, 3.0) for seed in (0, 1)]
    cells = dataclasses.replace(table(rows), folder=tmp_path).cells()
    assert "arm" not in cells and cells["chaos.z0"].tolist() == ["0.0", "3.0"]
    assert "arm" in dataclasses.replace(THREE, folder=tmp_path).cells()


# --- what a control can tell --------------------------------------------------------------------------------------


def with_terms(k, control):
    """CSBP and a control at scale k."""
    fields = {"CSBP": {"chaos.term": "chaos", "chaos.substeps": 1}, "control": control}
    rows = [
        row(arm, seed, 0.9 + seed / 100) | {"chaos.term": "chaos", "chaos.substeps": 1} | fields[arm]
        for arm in fields
        for seed in range(4)
    ]
    names = ("chaos.z0", "chaos.term", "chaos.substeps")
    return RunTable(pd.DataFrame(rows), names, (ACCURACY,), shared={"chaos.scale": k})


@pytest.mark.parametrize("k, control, expected", [
    (10.0, {"chaos.term": "drift"}, "at k = 10 the drift is the term to 1.2 % of the pull for |h| <= 3, and overshoots "
     "from 0.94 of the term's strength on: equality says nothing about chaos"),
    (1.0, {"chaos.term": "drift"}, "at k = 1 the drift's gradient differs from the term's by up to 183 %"),
    (10.0, {"chaos.term": "linear"}, "at k = 10 linear differs from the term by up to 50 % of the pull"),
    (10.0, {"chaos.substeps": 10}, "10 sub-steps differ from the term by about its flip ratio"),
])  # fmt: skip
def test_a_contrast_with_a_control_says_what_it_can_tell(k, control, expected):
    compared = with_terms(k, control).contrast("CSBP", "control")
    (note,) = compared.notes
    assert note.startswith(expected) and repr(compared).endswith(f"note: {note}")


@pytest.mark.parametrize("control", [{"chaos.z0": 0.0}, {}])
def test_a_contrast_with_plain_backpropagation_has_no_such_note(control):
    assert with_terms(10.0, control).contrast("CSBP", "control").notes == ()
