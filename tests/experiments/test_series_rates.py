"""The rates of `csbp_jax series`: systems are what their names say, and the page agrees with its data."""

import json
import pathlib
import re

import numpy as np
import pytest

from experiments import series_rates, study
from experiments.series_rates import SYSTEMS

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results" / "series"


@pytest.mark.parametrize(("name", "period"), [("period 2", 2), ("period 4", 4), ("period 8", 8)])
def test_cycles_have_their_period(name, period):
    x = SYSTEMS[name].draw(np.random.default_rng(0), 2)
    np.testing.assert_allclose(x[:, period:], x[:, :-period], atol=1e-6)
    assert np.abs(x[:, period // 2 :] - x[:, : -(period // 2)]).min(axis=1).max() > 1e-3


def test_series_differ_between_seeds_and_have_the_length():
    for name, system in SYSTEMS.items():
        if "Lorenz" not in name:
            x = system.draw(np.random.default_rng(1), 2)
            assert x.shape == (2, series_rates.LENGTH) and np.isfinite(x).all(), name
            assert not np.array_equal(*x), name


def test_the_study_runs_and_resumes(tmp_path, monkeypatch, capsys):
    chosen = {name: SYSTEMS[name] for name in ("period 2", "logistic, r = 4")}
    for commit, names in (("a", ["period 2"]), ("b", [*chosen])):
        monkeypatch.setattr(series_rates, "SYSTEMS", {name: chosen[name] for name in names})
        monkeypatch.setattr(study, "_commit", lambda commit=commit: commit)
        series_rates.main(["--seeds", "2", "--out", str(tmp_path)])
    table = (tmp_path / "table.md").read_text()
    assert "| period 2 | -0.01" in table and "regular 100 % |" in table and "irregular and nonlinear 100 % |" in table
    with np.load(tmp_path / "series.npz") as arrays:
        assert arrays["logistic, r = 4/zero_one"].shape == (2,)
    monkeypatch.setattr(series_rates, "measure", None)  # nothing is measured again
    monkeypatch.setattr(study, "_commit", lambda: "c")
    series_rates.main(["--seeds", "2", "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == table
    content = json.loads((tmp_path / "series.json").read_text())
    assert [made["commit"] for made in (content, *content["later"])] == ["a", "b"]


def test_only_p_are_counted_as_rejections():
    numbers = dict.fromkeys([*series_rates.NUMBERS, "surrogate_p", "p_time_asymmetry", "zero_one_damped"], np.zeros(3))
    rejected = series_rates.summary(numbers, ["regular"] * 3)["rejected"]
    assert list(rejected) == ["surrogate_p", "p_time_asymmetry"]
    systems = json.loads((RESULTS / "series.json").read_text())["systems"].values()
    assert {*map(tuple, (result["rejected"] for result in systems))} == {
        ("surrogate_p", "p_time_asymmetry", "p_prediction_error")
    }


def test_the_rates_are_of_the_stored_series():
    content = json.loads((RESULTS / "series.json").read_text())
    assert list(content["systems"]) == list(SYSTEMS)
    with np.load(RESULTS / "series.npz") as arrays:
        for name, result in content["systems"].items():
            assert arrays[f"{name}/zero_one"].mean() == pytest.approx(result["zero_one"]["mean"], abs=1e-5)
            rejected = float(np.mean(arrays[f"{name}/surrogate_p"] <= 0.05 + 1e-6))
            assert rejected == pytest.approx(result["rejected"]["surrogate_p"]["share"])


def test_the_lab_quotes_rates_of_the_data():
    systems = json.loads((RESULTS / "series.json").read_text())["systems"]
    lab = (RESULTS.parents[1] / "lab.md").read_text()
    section = lab.partition("## Recorded series")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([0-9.]+) \|$", section, re.MULTILINE))
    assert len(rows) >= 6
    for name, percent in rows.items():
        assert f"{100 * systems[name][series_rates.CHAOS]['share']:.3g}" == percent, name
