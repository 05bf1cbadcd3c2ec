"""The order of the runs of stage A, and one run on noise."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import stage_a

NOISE = {
    name: (
        jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)),
        jnp.arange(count) % 10,
    )
    for name, count in {"train": 130, "validation": 500, "test": 500}.items()
}


def test_settings_are_shared_by_the_arms_and_off_in_two_of_eight() -> None:
    rows: dict[stage_a.Run, Any] = {}
    jobs = []
    strengths = {n: 3.0 for n, setting in enumerate(stage_a.settings(1)) if setting.ratio}
    for job in stage_a.jobs_of_draw(1, {}, rows, strengths):
        # CSBP is best in its third setting, the others in their first.
        best = 2 if job.arm == "CSBP" else 0
        rows[job.run] = {"measures": {"validation": [80.0 if job.setting == best else 70.0 - (job.setting or 0)]}}
        jobs.append(job)
    screened = {arm: [job.run for job in jobs if (job.role, job.arm) == ("screen", arm)] for arm in stage_a.ARMS}
    plain, csbp, drift = screened.values()
    assert plain[:2] == csbp[:2] == drift[:2] and plain[2:] != csbp[2:]
    assert all(run._replace(term="drift") == other for run, other in zip(csbp[2:], drift[2:], strict=True))
    assert all(run._replace(z0=0.0, end=1.0) == other for run, other in zip(csbp, plain, strict=True))
    tested = [job for job in jobs if job.role == "test"]
    assert [(job.arm, job.setting) for job in tested] == 3 * [("plain", 0), ("CSBP", 2), ("drift", 0)]
    assert len({job.run.seed for job in tested}) == 3 and len(jobs) == 3 * (8 + 2 + 3)


def test_stage_b_trains_each_arms_best_setting_on_larger_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    best = {"plain": (2, 5), "CSBP": (0, 4), "drift": (1, 0)}  # draw and setting; the last is without the term
    rows = [
        {"role": "tune", "arm": arm, "draw": draw, "setting": setting, "run": {"seed": 100 + draw}}
        | {"measures": {"validation": [90.0, 70.0 + 5 * ((draw, setting) == best[arm])]}}
        for arm in stage_a.ARMS
        for draw in range(3)
        for setting in {0, 4, 5}
    ]
    monkeypatch.setattr(stage_a, "strength", lambda setting, seed, splits, side, channels: setting.ratio * seed * side)
    jobs = list(stage_a.larger_jobs(rows, {}, 0.5, range(3000, 3002)))
    assert [(job.arm, job.run.seed) for job in jobs] == [(arm, s) for s in (3000, 3001) for arm in stage_a.ARMS]
    plain, csbp, drift = (job.run for job in jobs[:3])
    setting = stage_a.settings(0)[4]
    assert csbp == stage_a.Run("chaos", setting.ratio * 100 * 32, *setting[:3], setting.end, 40, 3000, 32, 0.5)
    assert plain.lr == stage_a.settings(2)[5].lr and (plain.z0, drift.z0, drift.term) == (0, 0, "chaos")


def test_stage_b_waits_for_stage_a(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["stage_a", "--stage", "B", "--out", str(tmp_path / "runs.jsonl")])
    with pytest.raises(SystemExit):
        stage_a.main()
    assert "not complete" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_after_its_last_epoch(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stage_a.Run("chaos", 2.0, 0.1, 1e-4, 1.0, 0.1, 3, 0, side=16, channels=1 / 8)
    whole = stage_a.train(run, NOISE, True, tmp_path / "whole")
    evaluate, calls = stage_a.evaluate, iter(range(4))

    def stopped(*arguments: Any) -> dict[str, float]:
        if next(calls) == 3:  # in the second epoch
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(stage_a, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        stage_a.train(run, NOISE, True, tmp_path / "stopped")
    monkeypatch.setattr(stage_a, "evaluate", evaluate)
    resumed = stage_a.train(run, NOISE, True, tmp_path / "stopped")
    assert resumed.pop("cpu_seconds") != whole.pop("cpu_seconds")
    assert resumed == whole


@pytest.mark.slow
def test_a_run_reports_each_epoch_and_the_pull_at_its_start(tmp_path: pathlib.Path) -> None:
    setting = stage_a.settings(0)[2]
    z0 = stage_a.strength(setting, 0, NOISE)
    run = stage_a.Run("chaos", z0, *setting[:3], setting.end, 2, 0)
    measures = stage_a.train(run, NOISE, True, tmp_path)
    assert {len(values) for values in measures.values()} == {2} and measures["bad"] == [0, 0]
    assert abs(measures["test"][-1] - 10) < 6  # noise cannot be learned
    of_run = stage_a.functions(stage_a.make_config(run), 2)
    rows = stage_a.order(0, 0, 130)
    norms = [of_run.norms(of_run.init(jax.random.key(0)), *NOISE["train"], batch) for batch in rows]
    task, chaos = (sum(float(norm[name]) for norm in norms) for name in ("task", "chaos"))
    np.testing.assert_allclose(chaos / task, setting.ratio, rtol=1e-3)
