"""``csbp_jax contrast``: anybody's table gets SciPy's numbers, our own RunTable's, a wrong one a clear line."""

import csv
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.evaluation.contrast_file import Unit, contrast
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import RunTable, reading
from tests.support.checkout import ROOT

TABLES = pathlib.Path(__file__).parent / "tables"
QUIET = Console(quiet=True)


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """Return what the command prints, errors first, on a table of these lines, or of a file."""
    monkeypatch.chdir(tmp_path)

    def run(lines, options):
        if lines is not None:
            pathlib.Path("runs.csv").write_text("\n".join(lines) + "\n")
        code = main.main(["contrast", "runs.csv", *options.split()])
        output, errors = capsys.readouterr()
        assert code == (2 if errors else 0)
        assert len(errors.splitlines()) <= 1
        return errors or output

    return run


def values(name, arm, measure):
    """The measure of each arm, in the order of the file."""
    with open(TABLES / f"{name}.csv") as file:
        rows = list(csv.DictReader(file))
    return {of: np.array([float(row[measure]) for row in rows if row[arm] == of]) for of in {row[arm] for row in rows}}


def compared(name, tmp_path, **options):
    return contrast(TABLES / f"{name}.csv", out=tmp_path, console=QUIET, **options)["plain"]


def test_students_t_is_that_of_scipy(tmp_path):
    of = values("t", "method", "test_acc")
    row = compared("t", tmp_path, arm="method", seed="seed", measure="test_acc", control="plain", margin=1)
    test = stats.ttest_rel(100 * of["CSBP"], 100 * of["plain"])
    low, high = test.confidence_interval(0.95)
    found = row[["p", "low", "high", "pairs", "difference"]].to_numpy(float)
    assert found == pytest.approx([test.pvalue, low, high, 8, (low + high) / 2], abs=1e-6)
    assert row["verdict"] == "better"


def test_welchs_t_is_that_of_scipy(tmp_path):
    options = {"arm": "method", "seed": "seed", "measure": "test acc %", "control": "plain", "unit": "raw"}
    of = values("welch", "method", "test acc %")
    row = compared("welch", tmp_path, test="welch", margin=1, **options)
    test = stats.ttest_ind(of["CSBP"], of["plain"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    found = row[["p", "low", "high", "pairs", "left_out"]].to_numpy(float)
    assert found == pytest.approx([test.pvalue, low, high, 5, 0], abs=1e-6)
    one_sided = [
        stats.ttest_ind(of["CSBP"] + 1, of["plain"], equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(of["CSBP"] - 1, of["plain"], equal_var=False, alternative="less").pvalue,
    ]
    assert row["equivalence"] == pytest.approx(max(one_sided), abs=1e-6)
    assert compared("welch", tmp_path, **options)["verdict"] == "no pairs"  # no seed is in both arms


def test_ranks_are_those_of_scipy(tmp_path):
    of = values("signed_rank", "arm", "loss")
    options = {"arm": "arm", "seed": "name", "measure": "loss", "control": "plain", "unit": "raw"}
    row = compared("signed_rank", tmp_path, test="signed-rank", **options)
    assert row["p"] == pytest.approx(stats.wilcoxon(of["CSBP"], of["plain"]).pvalue, abs=1e-6)
    assert row["difference"] == pytest.approx(np.mean(of["CSBP"] - of["plain"]), abs=1e-6)


@pytest.mark.parametrize("margin, verdict", [(0.4, "equal"), (0.1, "not decided")])
def test_equivalence_is_that_of_scipy(tmp_path, margin, verdict):
    of = values("equivalence", "term", "accuracy")
    differences = 100 * (of["parabola"] - of["plain"])
    one_sided = [
        stats.ttest_1samp(differences, -margin, alternative="greater").pvalue,
        stats.ttest_1samp(differences, margin, alternative="less").pvalue,
    ]
    columns = {"arm": "term", "seed": "init", "measure": "accuracy", "control": "plain"}
    row = compared("equivalence", tmp_path, margin=margin, **columns)
    assert row["equivalence"] == pytest.approx(max(one_sided), abs=1e-6)
    assert row["verdict"] == verdict


OURS = [*(ROOT / "docs/results/series_tasks").glob("*.csv"), ROOT / "docs/results/arms/digits.csv"]


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_our_own_tables_give_the_numbers_of_their_run_table(file, tmp_path):
    frame = reading.read_csv(file)
    measure = next(name for name in frame.columns if name.startswith("last_test_"))
    table = RunTable(frame, (), tuple(name for name in (measure, "diverged") if name in frame))
    unit: Unit = "points" if table.shown_as(measure).share else "raw"
    columns: Any = {"arm": "arm", "seed": "seed", "measure": measure, "control": "plain"}
    found = contrast(file, unit=unit, margin=0.5, out=tmp_path, console=QUIET, **columns)
    others = [arm for arm in table.arms if arm != "plain"]
    expected = table.contrast(others, "plain", measure=measure, margin=0.5)
    pd.testing.assert_frame_equal(found.frame, expected.frame, rtol=1e-12)
    assert len(found.frame) == len(others) > 0
    assert repr(found) == repr(expected)


def test_numbers_of_a_table_in_percent_are_those_in_shares(said):
    shares = ["m,s,acc,pct", *(f"{m},{s},{(90 + s + 2 * (m == 'a') * s) / 100},{90 + s + 2 * (m == 'a') * s}"
              for m in "ab" for s in range(4))]  # fmt: skip
    columns = "--arm m --seed s --control b --margin 0.5"
    as_shares = said(shares, f"{columns} --measure acc").splitlines()[1]
    as_percent = said(None, f"{columns} --measure pct --unit raw").splitlines()[1]
    assert as_shares.startswith("a - b: +3.00 [-1.11, +7.11] points, p 0.1")
    assert as_percent.startswith("a - b: +3 [-1.11, +7.11], p 0.1")


def test_files_hold_the_differences_and_the_figure(said, tmp_path):
    said(["m,s,acc", *(f"{m},{s},0.{9 - s}{m == 'a':d}" for m in "ab" for s in range(4))],
         "--arm m --seed s --control b --measure acc")  # fmt: skip
    folder = tmp_path / "runs-contrast"
    assert {file.name for file in folder.iterdir()} == {
        *("differences.csv", "tables.tex", "contrast.png", "contrast.pdf"),
    }
    assert pd.read_csv(folder / "differences.csv")["difference"].tolist() == pytest.approx([1.0])
    assert "+1.00" in (folder / "tables.tex").read_text()


def test_it_says_what_a_table_cannot_support(said):
    options = "--arm m --seed s --control b --measure"
    full = ["m,s,best_acc,acc,tries,rule,gap"]
    full += [
        f"{m},{s},0.9{s},0.9{s},{3 if m == 'a' else 1},best test epoch,0.1" for m in "ab" for s in range(4 - (m == "b"))
    ]
    text = said(full, f"{options} acc")
    assert "the arms have unequal numbers of runs: a 4, b 3" in text
    assert "column tries differs between the arms (a 3; b 1)" in text
    assert "column rule says 'best test epoch'" in text
    assert "nothing seals" in text and "seems to hold" not in text
    assert "column best_acc seems to hold the best epoch" in said(full, f"{options} best_acc")
    assert "better means a larger gap" in said(full, f"{options} gap --unit raw")
    assert "a, b: one seed" in said(["m,s,acc", "a,0,0.9", "b,0,0.8"], f"{options} acc")
    assert "of 2 seeds nothing is decided" in said(["m,s,acc", *(f"{m},{s},0.{s}" for m in "ab" for s in (1, 2))],
                                                   f"{options} acc")  # fmt: skip
    apart = ["m,s,acc", *(f"{m},{s + 5 * (m == 'a')},0.9{s}" for m in "ab" for s in range(4))]
    assert "no seed in common; --test welch" in said(apart, f"{options} acc")
    assert "4 seeds in the smaller arm" in said(apart, f"{options} acc --test welch")


def test_unequal_tries_of_our_own_tables_are_counted(said):
    head = "case,arm,draw,try,role,seed,acc"
    tuned = [
        f",{arm},0,{n},tune,{seed},0.5" for arm, tries in (("a", 3), ("b", 1)) for n in range(tries) for seed in (8, 9)
    ]
    tests = [f",{arm},0,0,test,{seed},0.{seed + 5}" for arm in "ab" for seed in range(3)]
    text = said([head, *tuned, *tests], "--arm arm --seed seed --control b --measure acc")
    assert "the arms had unequal numbers of tries: a 3, b 1" in text and "3 seeds" in text


GOOD = ["m,s,acc", "a,0,0.9", "a,1,0.8", "b,0,0.9", "b,1,0.7"]
COLUMNS = "--arm m --seed s --measure acc --control b"
WRONG = [
    (GOOD, "--seed s", "--arm: missing; name one of its columns: m, s, acc"),
    (GOOD, "--arm m --seed s --measure acc", "--control: missing; name one of the arms"),
    (GOOD, COLUMNS.replace("--seed s", "--seed sed"), "has no column 'sed' for the seed"),
    (GOOD, COLUMNS.replace("acc", "ac"), "has no column 'ac'; perhaps you meant acc"),
    (GOOD, COLUMNS.replace("control b", "control c"), "has no arm 'c'; there are a, b"),
    (GOOD, COLUMNS.replace("--seed s", "--seed m"), "one column cannot be two of arm, seed and draw"),
    (GOOD, f"{COLUMNS} --margin 0", "--margin: 0.0 is not possible"),
    (GOOD, f"{COLUMNS} --unit percent", "allowed is points, raw"),
    (GOOD[:3], COLUMNS.replace("control b", "control a"), "has no arm beside a"),
    (GOOD[:1], COLUMNS, "has names, but no row"),
    ([*GOOD, "b,1,0.6"], COLUMNS, "lines 5 and 6 are both of arm b and s 1"),
    ([*GOOD, "b,,0.6"], COLUMNS, "line 6 has no s"),
    ([*GOOD, "b,2"], COLUMNS, "line 6 has 2 cells, and the first line 3 names"),
    ([*GOOD, "b,2,90%"], COLUMNS, "line 6 has acc '90%', which is no number"),
    ([*GOOD, "b,2,93.1"], COLUMNS, "column acc has 93.1, and a share is from 0 to 1"),
    ([line.replace(",", ";") for line in GOOD], COLUMNS, "its columns seem to be separated by ';'"),
    (["m,s,acc,acc", "a,0,1,1"], COLUMNS, "has two columns 'acc'"),
    (["m,s,acc,diverged", "a,0,1,yes"], COLUMNS, "diverged has other words than True and False"),
    (['m,s,"acc', "a,0,1"], COLUMNS, "is no CSV file"),
    (["m,s,acc", "a,0,", "b,0,nan"], COLUMNS, "column acc has no number"),
]


@pytest.mark.parametrize("lines, options, message", WRONG, ids=[row[2] for row in WRONG])
def test_a_wrong_table_is_one_line(said, lines, options, message):
    text = said(lines, options)
    assert text.startswith("csbp_jax: ") and message in text


def test_a_file_that_is_no_table_is_one_line(said, tmp_path):
    assert "runs.csv: there is no such file" in said(None, COLUMNS)
    (tmp_path / "runs.csv").write_bytes(b"m,s,acc\n\xff,0,1\n")
    assert "runs.csv: is no CSV file" in said(None, COLUMNS)
    (tmp_path / "runs.csv").unlink()
    (tmp_path / "runs.csv").mkdir()
    assert "not a regular file" in said(None, COLUMNS)


def test_a_table_from_a_spreadsheet_is_read(tmp_path):
    """With a byte order mark, CRLF, empty lines, seeds as decimals, and arms named like missing cells."""
    file = tmp_path / "runs.csv"
    file.write_bytes("\ufeffarm,seed,acc,note\r\nNone,1.0,0.5,x\r\n\r\nNA,1,0.75,\r\nNA,2,,\r\n".encode())
    table = RunTable.read_csv(file, arm="arm", seed="seed", shares=["acc"])
    assert table.arms == ["None", "NA"] and list(table.frame["seed"]) == [1, 1, 2]
    assert table.measures == ("acc",) and table.contrast("NA", "None")["None"]["difference"] == pytest.approx(25)
    assert table.contrast("NA", "None")["None"]["left_out"] == 1


def test_seeds_of_draws_are_averaged_first(tmp_path):
    file = tmp_path / "runs.csv"
    rows = [(arm, draw, seed, (draw + seed + 3 * (arm == "a") * draw) / 100)
            for arm in "ab" for draw in range(1, 5) for seed in range(3)]  # fmt: skip
    file.write_text("\n".join(["arm,setting,seed,accuracy", *(",".join(map(str, row)) for row in rows)]))
    contrasted = RunTable.read_csv(file, arm="arm", seed="seed", draw="setting").contrast("a", "b")
    assert contrasted.over == "draw" and contrasted["b"]["pairs"] == 4
    assert contrasted.differences[0].tolist() == pytest.approx([3, 6, 9, 12])
    with pytest.raises(ConfigError, match="lines 2 and 5 are both of arm a and seed 0"):
        RunTable.read_csv(file, arm="arm", seed="seed")


def test_percentages_under_the_name_of_an_accuracy_are_refused(tmp_path):
    (tmp_path / "runs.csv").write_text("arm,seed,accuracy\na,0,93.1\n")
    with pytest.raises(ConfigError, match="a share is from 0 to 1"):
        RunTable.read_csv(tmp_path / "runs.csv", arm="arm", seed="seed")
    assert RunTable.read_csv(tmp_path / "runs.csv", arm="arm", seed="seed", shares=()).measures == ("accuracy",)
