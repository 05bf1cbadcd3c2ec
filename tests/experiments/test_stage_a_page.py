"""The page of stage A on simulated runs: what counts, the numbers of the plan, and what is said before the end."""

import numpy as np
import pandas as pd
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
    first = " ".join(text.split("\n\n")[1].split())
    assert first.startswith(
        "**Better when tuned alike.** Where each method is tuned, CSBP minus plain backpropagation is +"
    )
    assert first.endswith("or 200 epochs.") and "**Better**." in first
    words = " ".join(text.split())
    assert "The p of a difference is " in words and "by Holm's method over this comparison" in words
    for label in stage_a_page.MEASURES:
        assert f"| {label} | +" in text
    assert "| training loss, last epoch | +0 [" in text  # equal in all runs
    rows = simulated(1, spread=0)[0]
    levels = stage_a_page.levels(rows)
    assert levels == "Test accuracies, tuned: plain 60.0 %, CSBP 61.0 %, drift 60.9 %."
    rows += [row("untuned", None, "CSBP", None, 1.0, 30, 2000, 59.0)]
    assert stage_a_page.levels(rows).endswith("drift 60.9 %; at the released settings, without tuning: CSBP 59.0 %.")


def test_equal_is_called_narrow_where_a_draw_decides_it():
    of_draws = pd.Series([0.31, -0.31, 0.15, 0.05, 0.63, 0.49])
    text = stage_a_page.without_one(of_draws, "equal")
    without = '"not decided" in 3 cases, "equal" in 2 cases, "better" in 1 case'
    assert text == f"if one of the 6 draws is left out, the verdict is {without}"
    assert stage_a_page.without_one(of_draws / 10, "equal") == ""


@pytest.mark.parametrize(("word", "gain", "said"), [
    ("equal", -1, "Not better when tuned alike; worse at the released settings"),
    ("better", 1, "Better when tuned alike; better at the released settings"),
    ("not decided", 0, "Not shown to differ when tuned alike; not shown to differ at the released settings"),
])  # fmt: skip
def test_the_practical_answer_comes_first(word, gain, said):
    rows = untuned(gain)
    assert stage_a_page.practical(rows, word) == f"**{said}.**"


def test_before_the_end_it_says_how_far_the_study_is():
    rows = simulated(2)[0]
    assert "**So far " in stage_a_page.page(rows, TERMS)
    assert "**Not yet decided**: 1 of 6 draws are complete." in stage_a_page.page(simulated(1)[0], [])


def untuned(gain):
    """Runs at the released settings, of CSBP with an accuracy and a training loss that are higher by ``gain``."""
    rows = [
        row("untuned", None, arm, None, z, 30, seed, 60 + z * gain + (seed + z) % 2)
        for arm, z in (("plain", 0), ("CSBP", 1))
        for seed in range(2000, 2006)
    ]
    for of_run in rows:
        noise = 1e-3 * (of_run["run"]["seed"] % 3)
        of_run["measures"]["train_loss"] = [2.0, 1.0 + 0.1 * gain * (of_run["run"]["z0"] > 0) + noise]
    return rows


def test_released_settings_are_rows_of_their_own():
    half = stats.t.ppf(0.975, 10) * np.sqrt(2 * 0.3 / 6)
    text = stage_a_page.page(untuned(1), TERMS)
    assert f"| released settings, untuned, 6 seeds (Welch) | +1 [{1 - half:+.3g}, {1 + half:+.3g}] |  |" in text
    assert "| released settings, untuned, training loss, 6 seeds (Welch) | +0.1 [" in text and "paired" not in text
    assert "for 6 of 6 seeds. The mean difference is +0.1 [" in " ".join(text.split())


def test_what_users_need_is_said_of_the_same_rows():
    rows, _ = simulated(2)
    for draw in range(2):
        for arm in GAINS:
            z0 = 0.0 if arm == "plain" else 2.0
            rows.append(row("tune", draw, arm, 3, z0, stage_a.FULL, 100 + draw, 60 + 3 * GAINS[arm]))
    terms = [
        {"draw": draw, "arm": "CSBP", "ratio": min(s.ratio for s in stage_a.settings(draw) if s.ratio) * (1 + draw)}
        for draw in range(2)
    ]
    text = " ".join(stage_a_page.facts(rows, terms))
    assert "is +1.0 [+1.0, +1.0] points for CSBP and +0.9 [+0.9, +0.9] points for drift (means" in text
    assert "In 1 of 2 draws, tuning chose the weakest of CSBP's 6 strengths" in text
    assert "by +0.95 points after 10 epochs and by +2.85 after 30" in text and "to the other +1.90, standard" in text


def test_repeated_runs_take_the_place_of_the_first(tmp_path):
    rows, means = simulated(6)
    (job,) = [job for job in stage_a.repeated_jobs(rows, [2]) if job.arm == "CSBP"]
    assert job.run.seed == 1000 and job.setting == 3
    again = row("repeat", 2, "CSBP", 3, 2.0, stage_a.FULL, 1000, 70.0)
    again["measures"]["fitted"] = [72.0]
    (first,) = [r for r in rows if (r["role"], r["draw"], r["arm"], r["run"]["seed"]) == ("test", 2, "CSBP", 1000)]
    fits, differs = stage_a_page.repeats(rows, [again])
    assert "72.0 % on the training pictures and of 70.0 % on the test pictures" in fits
    old = first["measures"]["test"][-1]
    means[2] += (70 - old) / stage_a.SEEDS
    assert f"are {old:.2f} and 70.00." in differs and f"the primary difference is {means.mean():+.2f} [" in differs


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
        "With CSBP, the gradient of the chosen terms is 0.012 to 0.3 of the task's, z0 is 2 to 9, the strength is "
        "0.00012 to 0.1 flips, and tuning left the term off in none of 2 draws. With drift, tuning left the term off "
        "in 1 of 1 draws." in text
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
    folder = study.RESULTS / "stage_a"
    rows, again = (stage_a.read(folder / name) for name in ("runs.jsonl", "repeated.jsonl"))
    terms = stage_a_page.json.loads((folder / "strengths.json").read_text())["choices"]
    assert (folder / "README.md").read_text() == stage_a_page.page(rows, terms, again)
