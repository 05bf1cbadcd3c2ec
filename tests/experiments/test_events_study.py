"""The study of recordings of events: its plan, its statistics, and its own command on small data."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from csbp_jax import data
from csbp_jax.config import check
from csbp_jax.runtime import preemption
from experiments.events import __main__ as events
from experiments.events import page, plan, training
from experiments.events.page import Welch
from tests.support import formats
from tests.support.checkout import ROOT

RESULTS = ROOT / "docs/results/events"
PLAN = (RESULTS / "plan.md").read_text()


def test_the_plan_has_76_runs_whose_arms_are_those_of_its_table():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PLAN.splitlines() if line.startswith("| ")]
    table = {cells[0]: cells for cells in rows if cells[0] in plan.ARMS}
    assert list(table) == list(plan.ARMS)
    for name, arm in plan.ARMS.items():
        _, _, z0, rate, seeds = table[name]
        assert (float(z0), float(rate), seeds) == (arm.z0, arm.lr, f"0 to {arm.seeds - 1}")
    runs = list(events.in_order(plan.SEEDS))
    assert len(runs) == 76 and runs == sorted(runs, key=lambda run: run[0])
    assert [arm for seed, arm in runs if seed == 0] == list(plan.ARMS)
    assert [arm for seed, arm in runs if seed == 15] == ["plain", "CSBP", "linear"]


@pytest.mark.parametrize("arm", plan.ARMS)
def test_z_ends_at_the_released_share_with_twice_the_epochs_too(arm):
    for epochs in (60, 120):
        config = check(training.BASE.replace(**plan.fields_of(arm, epochs)))
        assert config.epochs == epochs and config.chaos.beta**epochs == pytest.approx(0.0177, rel=0.01)
    released = training.BASE.replace(**plan.fields_of("CSBP", 60))
    assert released == training.BASE


def test_intervals_are_those_of_welch():
    first, second = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5])
    found = page.welch(first, second)
    assert found is not None
    variances = first.var(ddof=1) / 3, second.var(ddof=1) / 2
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 1)
    half = stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5
    difference = first.mean() - second.mean()
    np.testing.assert_allclose(found[:3], [difference, difference - half, difference + half])
    assert found.low < found.low_90 < found.high_90 < found.high and found.runs == (3, 2)
    assert page.welch(first, second[:1]) is None and page.welch(first, np.ones(3)) is None


@pytest.mark.parametrize(
    "ends, said",
    [
        ((0.1, 1.5, 0.2, 1.4), "gain"),
        ((-1.5, -0.1, -1.4, -0.2), "harm"),
        ((-0.5, 0.5, -0.4, 0.4), "equal within 1 point"),
        ((0.1, 0.9, 0.2, 0.8), "gain, and equal within 1 point"),
        ((-0.5, 1.2, -0.4, 1.1), "not decided"),
    ],
)
def test_the_words_are_those_of_the_plan(ends, said):
    low, high, low_90, high_90 = ends
    assert page.words(Welch(0.0, low, high, low_90, high_90, 0.5, (16, 16))) == said


def rows(**test):
    """Rows of two checks that pass, and of the study with these test accuracies (percent) of each arm."""
    of_runs = [("check", "plain", seed, 50.0) for seed in plan.CHECK_SEEDS]
    of_runs += [("study", arm, seed, value) for arm, values in test.items() for seed, value in enumerate(values)]
    return pd.DataFrame(
        {
            "part": part,
            "arm": arm,
            "seed": seed,
            "epochs": 60,
            "test_accuracy": value / 100,
            "train_accuracy": 0.7,
            "last_validation_accuracy": 0.5,
            "best_spare_accuracy": value / 100 + 0.01,
            "processor": "a",
            "commit": "0123456789",
            "cpu_seconds_of_run": 3600,
        }
        for part, arm, seed, value in of_runs
    )


def test_the_page_says_what_came_out_only_as_far_as_it_did():
    spread = np.linspace(-1, 1, 16)
    arms = {name: 50 + spread[: arm.seeds] for name, arm in plan.ARMS.items()}
    whole = rows(**(arms | {"CSBP": 52 + spread}))
    text = " ".join(page.page(whole).split())
    assert "**Gain**: in a CNN7 with TEBN at a quarter of its width" in text and "+2.00 [" in text
    assert "training minus validation accuracy is 20.0 points after 60 epochs" in text
    assert page.complete_seeds(whole) == 16
    some = whole[(whole["seed"] < 7) | (whole["part"] == "check")]
    assert page.complete_seeds(some) == 7
    partly = " ".join(page.page(some).split())
    assert "**So far, with 7 of 16 seeds finished, gain**" in partly
    few = rows(plain=[50.0], CSBP=[51.0])
    assert "**Not yet decided**: 0 of 16 seeds are finished." in page.page(few)
    assert "no run is finished" in page.page(None)
    check_alone = page.page(rows())
    assert "events.png" not in check_alone and "| arm |" not in check_alone and "**Check**" in check_alone


def test_a_training_loss_is_that_of_the_last_epoch():
    curves = pd.DataFrame(
        {"part": part, "arm": "plain", "epochs": 2, "epoch": epoch, "train_loss": loss}
        for part, epoch, loss in (("study", 1, 2.0), ("study", 2, 0.5), ("study", 2, 1.0), ("check", 2, 9.0))
    )
    (line,) = [
        row for row in page.level_table(rows(plain=[50.0, 51.0]), curves).splitlines() if row.startswith("| plain |")
    ]
    assert line.endswith("| 0.7500 |")


def test_a_commit_that_looks_like_a_number_stays_text(tmp_path):
    rows(plain=[50.0]).assign(commit="0123456789", data="12e4").to_csv(tmp_path / "runs.csv", index=False)
    runs = page.read(tmp_path / "runs.csv")
    assert runs is not None and set(runs["commit"]) == {"0123456789"} and set(runs["data"]) == {"12e4"}


def test_the_page_is_that_of_the_rows():
    assert (RESULTS / "README.md").read_text() == page.page(
        *(page.read(RESULTS / name) for name in ("runs.csv", "epochs.csv"))
    )


def test_a_network_that_does_not_overfit_ends_the_study():
    checks = rows().assign(train_accuracy=0.55)
    text = " ".join(page.page(pd.concat([checks, checks.assign(epochs=120)])).split())
    assert "**Not tested**: in a CNN7" in text and "only 5.0 points above validation after 120 epochs" in text


def test_a_repeated_run_is_beside_its_first():
    repeated = rows(plain=[50.0, 51.0], CSBP=[50.0, 51.0])
    again = repeated[(repeated["part"] == "study") & (repeated["seed"] == 0)].assign(part="repeat", processor="b")
    text = page.repeat_text(pd.concat([repeated, again.assign(test_accuracy=0.493)]))
    assert "plain, seed 0: 50.00 % on a, 49.30 % on b; CSBP, seed 0: 50.00 % on a, 49.30 % on b" in text


# --- the command itself -------------------------------------------------------------------------------------------


SMALL = training.BASE.replace(**{"model.width": 0.05, "model.time_steps": 2, "batch_size": 8})


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The study's command in a folder of its own, on 30 training recordings, with a small network and few seeds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    formats.cifar10(tmp_path / "raw", per_file=10)
    data.prepare(SMALL, "raw", "data", verify=False)
    monkeypatch.setattr(training, "BASE", SMALL)
    monkeypatch.setattr(plan, "BASE", SMALL)
    for module in (plan, events, page):
        monkeypatch.setattr(module, "EPOCHS", 2)
    monkeypatch.setattr(events, "GAP", -100.0)
    arms = {name: arm._replace(seeds=min(arm.seeds, 2)) for name, arm in plan.ARMS.items() if "rate" not in name}
    for module in (plan, events, page):
        monkeypatch.setattr(module, "ARMS", arms)
    for module in (events, page):
        monkeypatch.setattr(module, "SEEDS", 2)
    return tmp_path


def run(*arguments):
    events.main([*arguments, "--seeds", "2", "--out", "out"])


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_the_command_goes_on_where_it_was_stopped_and_writes_rows_and_page(small, monkeypatch, capsys):
    run("--check")
    whole = pd.read_csv(small / "out" / "runs.csv")
    (small / "out").rename(small / "out_of_whole")
    (small / "runs").rename(small / "runs_of_whole")

    save, saves = training.checkpoint.Checkpoints.save, []

    def stopped_after_first_epoch(*arguments, **options):
        save(*arguments, **options)
        saves.append(arguments)
        if len(saves) == 1:
            raise preemption.Stopped(15)

    monkeypatch.setattr(training.checkpoint.Checkpoints, "save", stopped_after_first_epoch)
    with pytest.raises(preemption.Stopped):
        run("--check")
    assert not (small / "out" / "runs.csv").exists()
    run("--check")
    assert len(saves) == 4  # of two runs of two epochs, none twice
    resumed = pd.read_csv(small / "out" / "runs.csv")
    accuracies = [name for name in whole.columns if "accuracy" in name]
    pd.testing.assert_frame_equal(whole[accuracies], resumed[accuracies])

    run()
    rows = pd.read_csv(small / "out" / "runs.csv")
    assert list(rows["part"]) == ["check"] * 2 + ["study"] * 12
    assert [*rows["seed"]] == [*plan.CHECK_SEEDS, *[0] * 6, *[1] * 6]
    assert list(rows["arm"][2:8]) == list(events.ARMS)
    assert rows["processor"].str.contains("cores").all() and rows["versions"].str.contains("jaxlib").all()
    assert len(pd.read_csv(small / "out" / "epochs.csv")) == 2 * len(rows)
    text = (small / "out" / "README.md").read_text()
    assert "14 runs" in text and "| linear | 2 |" in text

    before, count = (small / "out" / "runs.csv").read_bytes(), len(saves)
    (small / "runs").rename(small / "runs_elsewhere")  # as on another machine, with the rows alone
    run()
    assert len(saves) == count and (small / "out" / "runs.csv").read_bytes() == before
    for _ in range(2):
        run("--repeat")
        again = pd.read_csv(small / "out" / "runs.csv")[len(rows) :]
        assert [*again["arm"]] == ["plain", "CSBP"] and set(again["part"]) == {"repeat"}
        assert len(saves) == count + 4
    first = rows[(rows["seed"] == 0) & rows["arm"].isin(["plain", "CSBP"])]
    assert [*again["test_accuracy"]] == [*first["test_accuracy"]]

    (small / "out" / "runs.csv").write_text(before.decode().replace(rows["data"][0], "f" * 16))
    with pytest.raises(SystemExit):
        run()
    assert "runs.csv: its runs had other data" in capsys.readouterr().err


def test_the_beginning_of_a_run_notes_where_it_is(tmp_path, monkeypatch):
    first = training.add_origin(tmp_path / "run")
    assert training.add_origin(tmp_path / "run") == first
    assert re.search(r"jax \d+\.\d+.*numpy", first["versions"]) and "cores" in first["processor"]
    monkeypatch.setattr(training, "machine", lambda: "another")
    moved = training.add_origin(tmp_path / "run")
    assert moved["processor"] == f"{first['processor']} + another" and moved["versions"] == first["versions"]
    assert len(json.loads((tmp_path / "run" / "origins.json").read_text())) == 2
