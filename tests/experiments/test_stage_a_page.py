"""The page of stage A on simulated runs: what counts, the numbers of the plan, and what is said before the end."""

import numpy as np
import pytest
from scipy import stats

from experiments import stage_a, stage_a_page, study

GAINS = {"plain": 0.0, "CSBP": 1.0, "drift": 0.9}
TERMS = [
    {"draw": 0, "arm": "CSBP", "ratio": 0.0123, "z0": 2.0, "flips": 0.00012},
    {"draw": 1, "arm": "CSBP", "ratio": 0.3, "z0": 9.0, "flips": 0.1},
    {"draw": 0, "arm": "drift", "ratio": 0.0, "z0": 0.0, "flips": 0.0},
]


def simulated(draws, seeds=stage_a.SEEDS, spread=0.3):
    """Rows of as many draws, with the screening of one setting, and the means of CSBP minus plain by draw."""
    rng, rows, means = np.random.default_rng(0), [], []
    for draw in range(draws):
        of_draw = {arm: rng.normal(60 + gain, spread, seeds) for arm, gain in GAINS.items()}
        means.append(of_draw["CSBP"].mean() - of_draw["plain"].mean())
        for arm, accuracies in of_draw.items():
            z0 = 0.0 if arm == "plain" else 2.0
            rows.append(row("screen", draw, arm, 3, z0, stage_a.SCREEN, 100 + draw, 50 + GAINS[arm]))
            rows += [row("test", draw, arm, 3, z0, stage_a.FULL, 1000 + i, a) for i, a in enumerate(accuracies)]
    return rows, np.array(means)


def row(role, draw, arm, setting, z0, epochs, seed, accuracy):
    run = stage_a.Run("chaos", z0, 0.1, 1e-4, 1.0, 0.02, epochs, seed)._asdict()
    curve = {"train_loss": [2.0, 1.0], "train_accuracy": [9.0, 61.2]}
    curve |= {"validation": [70.0, accuracy], "test": [accuracy + 5, accuracy]}
    return {"role": role, "draw": draw, "arm": arm, "setting": setting, "run": run} | {
        "measures": curve, "cpu_seconds": 3600, "commit": "0" * 40
    }  # fmt: skip


def test_the_interval_is_students_over_the_means_of_complete_draws():
    rows, means = simulated(6)
    rows += simulated(7, seeds=stage_a.SEEDS - 1)[0][-6:]  # a draw that is not complete
    found = stage_a_page.tested(rows, "test").contrast("CSBP", "plain", margin=0.5).frame.iloc[0]
    assert found["pairs"] == 6 and found["difference"] == pytest.approx(means.mean())
    low, high = stats.t.interval(0.95, 5, means.mean(), stats.sem(means))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert 0 <= found["seed_share"] <= 1


def test_the_page_answers_first_and_has_all_measures_of_the_plan():
    text = stage_a_page.page(simulated(6)[0], TERMS)
    assert "**Better**: CSBP - plain: +" in text.split("\n\n")[2] and "of the variance is seeds" in text
    for label in stage_a_page.MEASURES:
        assert f"| {label} | +" in text
    assert "| training loss, last epoch | +0 [" in text  # equal in all runs
    rows = simulated(1, spread=0)[0]
    levels = stage_a_page.levels(rows)
    assert "plain 60.0 %, CSBP 61.0 %, drift 60.9 %. In training, with" in levels and "plain has 61.2 %" in levels
    rows += [row("untuned", None, "CSBP", None, 1.0, 30, 2000, 59.0)]
    assert "drift 60.9 %; at the released settings, untuned: CSBP 59.0 %. In" in stage_a_page.levels(rows)


def test_before_the_end_it_says_how_far_the_study_is():
    rows = simulated(2)[0]
    assert "**So far " in stage_a_page.page(rows, TERMS)
    assert "**Not yet decided**: 1 of 6 draws are complete." in stage_a_page.page(simulated(1)[0], [])


def test_released_settings_are_a_row_of_their_own():
    seeds = range(2000, 2006)
    rows = [
        row("untuned", None, arm, None, z, 30, seed, 60 + z + (seed + z) % 2)
        for arm, z in (("plain", 0), ("CSBP", 1))
        for seed in seeds
    ]
    half = stats.t.ppf(0.975, 10) * np.sqrt(2 * 0.3 / 6)
    of_pairs = stats.t.ppf(0.975, 5) * np.sqrt(1.2 / 6)  # differences 0 and 2
    text = stage_a_page.page(rows, TERMS)
    assert f"| released settings, untuned, 6 seeds (Welch) | +1 [{1 - half:+.3g}, {1 + half:+.3g}] |  |" in text
    assert f"| the same, paired by seed | +1 [{1 - of_pairs:+.3g}, {1 + of_pairs:+.3g}] |  |" in text


def test_strengths_are_compared_with_plain_at_the_same_setting(tmp_path):
    gains = stage_a_page.gains(simulated(2)[0])
    ratios = [stage_a.settings(draw)[3].ratio for draw in (0, 1)]
    csbp = gains[gains["arm"] == "CSBP"]
    assert csbp["ratio"].tolist() == ratios and csbp["gain"].tolist() == pytest.approx([1.0, 1.0])
    stage_a_page.draw(simulated(2)[0], tmp_path / "strength.png")
    assert (tmp_path / "strength.pdf").exists()


def test_the_page_says_which_strengths_were_chosen():
    text = " ".join(stage_a_page.strengths_text(TERMS).split())
    assert (
        "CSBP: 0.012 to 0.3 of the task's gradient, z0 2 to 9, 0.00012 to 0.1 flips, off in 0 of 2 draws. "
        "drift: off in 1 of 1 draws." in text
    )


def test_stage_b_is_a_row_of_its_own():
    rows, _ = simulated(6)
    seeds = range(3000, 3005)
    rows += [row("larger", None, arm, None, 1, 40, n, 80 + gain + n % 2) for arm, gain in GAINS.items() for n in seeds]
    half = stats.t.ppf(0.975, 8) * np.sqrt(2 * np.var([0, 1, 0, 1, 0], ddof=1) / 5)
    label = "| stage B: 32x32, more channels, 40 epochs, 5 seeds (Welch) |"
    assert f"{label} +1 [{1 - half:+.3g}, {1 + half:+.3g}] | +0.1 [" in stage_a_page.page(rows, TERMS)


def test_flips_are_measured_once(tmp_path, monkeypatch):
    measured = []

    def flip_ratio(run, splits):
        measured.append(run)
        return 1e-3

    monkeypatch.setattr(stage_a, "load", lambda data_dir, side: {})
    monkeypatch.setattr(stage_a_page, "flip_ratio", flip_ratio)
    for draws in (1, 2, 2):
        terms = stage_a_page.add_flips(simulated(draws)[0], tmp_path / "strengths.json", "data")
    assert [run.seed for run in measured] == [100, 100, 101, 101] and {term["flips"] for term in terms} == {1e-3}


def test_the_committed_page_is_that_of_the_committed_rows():
    rows = [
        stage_a_page.json.loads(line) for line in (study.RESULTS / "stage_a" / "runs.jsonl").read_text().splitlines()
    ]
    terms = stage_a_page.json.loads((study.RESULTS / "stage_a" / "strengths.json").read_text())["choices"]
    assert (study.RESULTS / "stage_a" / "README.md").read_text() == stage_a_page.page(rows, terms)
