"""The study of arms over draws of settings: fair settings, resumption from committed rows, numbers of the page."""

import functools
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from csbp_jax.reporting.statistics import student
from experiments import study
from experiments.arms import __main__ as arms
from experiments.arms import page, tasks
from tests.support.checkout import ROOT

UNITS = {"flips": [0.01, 0.01, 0.02, 0.02, 0.02], "ratio": [0.1, 0.1, 0.2, 0.2, 0.2]}
SETTING = {"lr": 0.1, "width": 1.0, "strength": 0.5, "beta": 0.9}


def test_all_arms_have_the_same_settings_in_units_of_their_own():
    csbp, drift, mpgd, plain = (arms.fields_of(arm, UNITS, SETTING) for arm in ("CSBP", "drift", "MPGD", "plain"))
    flips = np.sqrt(2e-4 * 0.2)
    assert csbp["chaos.z0"] * 0.1 * 0.02 == pytest.approx(flips, rel=1e-3)
    assert csbp | {"chaos.term": "drift"} == drift and drift["chaos.z0"] == csbp["chaos.z0"]
    assert mpgd["chaos.z0"] == pytest.approx(np.sqrt(1e-4 * 0.1), rel=1e-3)
    off = SETTING | {"strength": None}
    assert all(arms.fields_of(arm, UNITS, off) == plain for arm in ("plain", "CSBP", "drift", *arms.FORCES))
    assert len(plain) == 2 and page.at_width(UNITS, "flips", 3.0) == pytest.approx(0.02)
    drawn = [arms.draw_setting(np.random.default_rng(seed)) for seed in range(400)]
    assert np.mean([setting["strength"] is None for setting in drawn]) == pytest.approx(0.25, abs=0.07)
    assert min(s["lr"] for s in drawn) >= 0.01 and max(s["width"] for s in drawn) <= 3


def test_wrong_labels_are_the_stated_share_of_a_seeds_own_records():
    splits = tasks.TASKS["digits"].training("data").splits({})
    (rows, right), (same, wrong) = (tasks.draw(splits, 5, 20, share) for share in (0.0, 0.2))
    np.testing.assert_array_equal(rows, same)
    assert len(set(rows)) == 200 and np.bincount(right).tolist() == [20] * 10 and (wrong != right).sum() == 40
    assert set(rows) != set(tasks.draw(splits, 6, 20, 0.0)[0])


@pytest.fixture
def small(monkeypatch):
    """Digits, one epoch, twelve tries, one seed that chooses and two that test."""
    monkeypatch.setitem(tasks.TASKS, "digits", tasks.TASKS["digits"]._replace(epochs=1, seeds=2))
    monkeypatch.setattr(arms, "TRIES", 12)
    monkeypatch.setattr(arms, "TUNING_SEEDS", (1000,))


@pytest.mark.full
def test_committed_rows_are_gone_on_from_and_not_trained_again(small, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    train = functools.partial(arms.run, "digits", ["term", "noise"], 1, "data", out)
    trained = []
    original = arms.Training.train

    def counted(system, group, **options):
        trained.append(len(options["seeds"]))
        return original(system, group, **options)

    monkeypatch.setattr(arms.Training, "train", counted)
    monkeypatch.chdir(tmp_path)
    train()
    rows = page.read(out / "digits.csv")
    assert rows.groupby(["arm", "draw", "role"]).size().unstack().to_numpy().tolist() == [[2, 12]] * 4
    off = rows[(rows["role"] == "tune") & (rows["try"] == 11)]
    assert (off["chaos.z0"] == 0).all() and off["last_test_accuracy"].nunique() == 1, "the last try is without a term"
    before, count = (out / "digits.csv").read_bytes(), len(trained)
    monkeypatch.chdir(out)  # a machine without the folder of the runs
    train()
    assert len(trained) == count > 0 and (out / "digits.csv").read_bytes() == before
    (out / "again").mkdir()
    monkeypatch.chdir(out / "again")
    train(again=True)
    assert count < len(trained) < 2 * count, "rows without a term or force are kept"
    pd.testing.assert_frame_equal(page.read(out / "digits.csv"), rows)
    assert '"command": "python -m experiments.arms --again"' in (out / "log.jsonl").read_text()
    monkeypatch.chdir(ROOT)  # the page quotes results of other studies
    page.write(out)
    assert "**No verdict yet** on digits (1 of 12 draws)" in (out / "README.md").read_text()


def simulated(gain, spread, draws=12, seeds=6):
    """Rows of all arms, of which CSBP and drift are better than plain by ``gain`` points and MPGD is equal to it."""
    generator, rows = np.random.default_rng(1), []
    for draw in range(draws):
        of_arms = {"plain": 0.0, "CSBP": generator.normal(gain, spread), "drift": generator.normal(gain, spread)}
        for arm, mean in (of_arms | {"MPGD": 0.0}).items():
            z0 = 0.0 if arm == "plain" else 1.0 + draw
            settings = [{"try": n, "role": "tune", "seed": 1, "chaos.z0": z0 * (n + 1)} for n in range(3)]
            tests = [{"try": 0, "role": "test", "seed": seed, "chaos.z0": z0} for seed in range(seeds)]
            for row in (*settings, *tests):
                accuracy = 0.8 + mean / 100 + generator.normal(0, 0.01)
                fields = {"optimizer.lr": 0.1, "model.neuron.surrogate_param": 1.0}
                rows.append(
                    {"case": "", "arm": arm, "draw": draw} | row | fields | dict.fromkeys(arms.MEASURES, accuracy)
                )
    return pd.DataFrame(rows)


@pytest.mark.full
def test_verdicts_are_students_over_draws_corrected_over_all_tasks():
    tables = {
        "digits": simulated(2.0, 0.1, seeds=48),
        "N-MNIST": simulated(0.0, 1.5),
        "spike times": simulated(2.0, 0.3, draws=7),
    }
    found = page.analysis(tables)
    better, undecided, early = (found[name]["CSBP", "plain"] for name in tables)
    means = tables["digits"].query("role == 'test'").groupby(["arm", "draw"])["last_test_accuracy"].mean().unstack(0)
    expected = student(100 * (means["CSBP"] - means["plain"]))
    assert (better["difference"], better["low"], better["high"]) == pytest.approx(expected)
    ps = [of[pair]["p"] for of in (found["digits"], found["N-MNIST"]) for pair in page.PRIMARY]
    assert better["p_holm"] == pytest.approx(min(ps) * 4 if better["p"] == min(ps) else better["p_holm"])
    assert better["p"] == pytest.approx(stats.ttest_1samp(means["CSBP"] - means["plain"], 0).pvalue)
    assert (better["verdict"], undecided["verdict"], early["verdict"]) == ("better", "not decided", "")
    assert found["digits"]["MPGD", "plain"]["verdict"] == ""
    assert page.corrected({"p": 0.0105, "p_holm": 0.11}) == ", p 0.011, after Holm's correction 0.11"
    assert page.corrected({"p": 0.001, "p_holm": 0.01}) == page.corrected({"p": 0.2, "p_holm": 1.0}) == ""
    assert len(page.decided_table(tables, found).splitlines()) == 2 + 4, "of the complete tasks alone"
    text = page.text(tables, found, [{"cpu_seconds": 3600, "commit": "0" * 40}])
    words = " ".join(text.split())
    higher = f"CSBP is higher on digits ({page.interval(better)}).** After all draws it is **not decided** on N-MNIST ("
    assert higher in words and "No gain is shown" not in words
    draws = [found[name]["CSBP", "plain"]["draws"] for name in ("digits", "N-MNIST")]
    ends = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*student(np.mean(draws, axis=0)))
    assert f"their mean over tasks is {ends} over 12 draws of 2 tasks (not planned)" in words
    of_words = page.beside_drift(found)
    assert "CSBP is equal to it within 0.5 points on digits. It is not decided on N-MNIST. At k = 10" in of_words
    assert page.beside_drift({}) == ""
    assert "spike times (7 of 8 draws)" in text.replace("\n", " ") and "60 minutes of a core" in text
    assert "| digits | MPGD - plain | " in page.controls_table(found)
    assert page.controls_sentence(found) == ""
    rows = [
        of.assign(arm="noise" if n else of["arm"])
        for n, of in enumerate((tables["digits"], tables["digits"].query("arm == 'MPGD'")))
    ]
    more = {"digits": pd.concat([*rows, rows[1].assign(arm="logistic")])}
    assert re.search(
        r"backpropagation, give on digits MPGD .*, logistic .*, noise .*\]\.$",
        page.controls_sentence(page.analysis(more)),
    )


def test_strengths_are_given_as_flips_and_as_ratios():
    rows = simulated(1.0, 0.1, draws=2)
    tries = page.gains(rows, UNITS)
    assert len(tries) == 12 and set(tries["arm"]) == {"CSBP", "drift"}
    np.testing.assert_allclose(tries["flips"], 0.1 * 0.02 * tries["chaos.z0"])
    np.testing.assert_allclose(tries["ratio"], 0.2 * tries["chaos.z0"])
    assert "| digits | CSBP | 0 of 2 | 1.2 to 1.5 to 1.8 |" in page.strengths_table({"digits": rows}, {"digits": UNITS})


@pytest.mark.full
@pytest.mark.parametrize(("spread", "least"), [(0.3, 0.2), (1.1, 0.6)])
def test_two_equal_methods_differ_in_one_study_of_twenty_over_draws_and_in_many_over_seeds(spread, least):
    """The known answer of docs/results/arms, of ``RunTable.contrast``."""
    at_one_draw, over_draws = page.false_alarms(spread, page.SEED_SD, 12, 48, 400)
    assert over_draws == pytest.approx(0.05, abs=0.03)
    assert at_one_draw > least


def test_the_committed_page_is_that_of_the_committed_rows():
    out = study.RESULTS / "arms"
    tables = page.committed(out)
    found, units = page.analysis(tables), json.loads((out / "units.json").read_text())
    text, table = ((out / name).read_text() for name in ("README.md", "table.md"))
    assert page.primary_table(tables, found) in text
    assert " ".join(page.answer(tables, found).split()) in " ".join(text.split())
    assert page.controls_table(found) in table and page.strengths_table(tables, units) in table
    assert page.decided_table(tables, found) in table
    for rows in tables.values():
        sizes = rows.groupby(["arm", "draw", "role"]).size().unstack()
        assert (sizes["tune"] == arms.TRIES * len(arms.TUNING_SEEDS)).all() and sizes["test"].nunique() == 1
