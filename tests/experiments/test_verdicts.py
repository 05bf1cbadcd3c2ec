"""The verdicts of studies follow from their differences as the plans say."""

import argparse
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import study
from experiments.cbp import overshoot
from experiments.statistics import best_weights, percent_text
from experiments.xor import conditions, draws, escape, net, tuned
from tests.support.quotes import body


def pair(difference, p_holm, low, high, margin):
    return {"difference": difference, "p_holm": p_holm, "low": low, "high": high, "margin": margin}


PLAIN, DRIFT, STEPS = "plain backpropagation", "drift", "chaos term in 10 sub-steps"
EQUAL, BELOW = pair(0.0, 1.0, -0.005, 0.005, 0.01), pair(-0.05, 1e-9, -0.06, -0.04, 0.01)
UNCLEAR = pair(-0.008, 0.2, -0.018, 0.002, 0.01)


@pytest.mark.parametrize(
    ("plain", "drift", "steps", "verdict"),
    [
        (BELOW, EQUAL, EQUAL, "the pull helps"),
        (BELOW, BELOW, BELOW, "chaos helps"),
        (BELOW, BELOW, EQUAL, "the term helps; whether by chaos is not decided"),
        (BELOW, UNCLEAR, EQUAL, "the term helps; whether by chaos is not decided"),
        (EQUAL, EQUAL, EQUAL, "nothing"),
        (UNCLEAR, EQUAL, EQUAL, "not decided"),
    ],
)
def test_verdicts_of_equal_tuning(plain, drift, steps, verdict):
    assert tuned.verdict({PLAIN: plain, DRIFT: drift, STEPS: steps}) == verdict


ABOVE = pair(0.1, 1e-9, 0.08, 0.12, 0.03)
SAME = pair(0.0, 1.0, -0.01, 0.01, 0.03)


@pytest.mark.parametrize(
    ("steps", "period_2", "alternating", "rises", "verdict"),
    [
        (ABOVE, SAME, SAME, (70.0, 2.0), "overshooting without chaos suffices"),
        (ABOVE, ABOVE, ABOVE, (70.0, 2.0), "chaos contributes"),
        (ABOVE, ABOVE, SAME, (70.0, 2.0), "not decided"),
        (ABOVE, SAME, SAME, (70.0, 9.0), "not decided: held in period 2 is chaotic, too"),
        (ABOVE, SAME, SAME, (3.0, 2.0), "nothing to explain"),
        (SAME, SAME, SAME, (70.0, 2.0), "nothing to explain"),
    ],
)
def test_verdicts_of_overshooting(steps, period_2, alternating, rises, verdict):
    pairs = {"S20": steps, overshoot.PERIOD_2: period_2, overshoot.ALTERNATING: alternating}
    assert overshoot.verdict(pairs, dict(zip((overshoot.CBP, overshoot.PERIOD_2), rises, strict=True))) == verdict


def compared(csbp, other):
    """CSBP minus a condition, as the study of escape compares them, from two strings of bits."""
    return escape.compare({"CSBP": {"solved": csbp}, **{name: {"solved": other} for name in escape.PRIMARY}})["primary"]


def test_escape_compares_csbp_with_each_condition_not_the_other_way_round():
    result = compared("1" * 900 + "0" * 100, "1" * 500 + "0" * 500)
    assert all(p["difference"] == pytest.approx(0.4) and p["more"] == 400 and p["less"] == 0 for p in result.values())
    assert escape.verdict(result) == "chaos helps to escape"
    assert result[PLAIN]["equal"]["low"] > 0.3


def test_equal_escapes_are_ascribed_to_any_displacement():
    solved = "10" * 500
    assert escape.verdict(compared(solved, solved)) == "any displacement does"


def test_the_page_of_overshooting_has_the_shares_at_the_released_strength():
    folder = pathlib.Path(__file__).parents[2] / "docs" / "results" / "cbp"
    content = json.loads((folder / "overshoot" / "overshoot.json").read_text())
    rows = {row[0]: row[1:] for row in body((folder / "README.md").read_text()) if "," not in row[0]}
    assert len(rows) == 6 and set(rows) <= {"plain descent", *overshoot.CONDITIONS}
    for name in set(rows) & set(overshoot.CONDITIONS):
        shares = (content["cells"][overshoot.key(task, name, overshoot.RELEASED)]["share"] for task in overshoot.TASKS)
        assert rows[name] == [f"{100 * share:.1f}" for share in shares]


FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "results" / "xor"


def test_a_difference_that_all_settings_share_has_no_spread_over_them():
    csbp = np.array([0.2, 0.9, 0.5, 0.7, 0.6])
    result = draws.best_of_tries(np.stack([csbp, csbp - 0.1, np.full(5, 0.5)]), 3, samples=200)
    assert result["best"][0] == pytest.approx(best_weights(5, 3) @ np.sort(csbp))
    assert [*result["minus plain backpropagation"].values()] == pytest.approx([0.1] * 3)
    other = result["minus drift"]
    assert other["mean"] == pytest.approx(result["best"][0] - 0.5) and other["low"] < other["mean"] < other["high"]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.05, "CSBP trains better"),
        (-0.01, 0.019, "equal"),
        (-0.01, 0.03, "not decided"),
        (-0.05, -0.01, "not decided"),
    ],
)
def test_verdicts_over_draws(low, high, word):
    assert draws.verdict({"low": low, "high": high}) == word


@pytest.fixture(scope="module")
def drawn():
    return json.loads((FOLDER / "tuned" / "draws.json").read_text())


def test_numbers_of_draws_are_quoted(drawn):
    numbers = {
        tries: [
            *(f"{100 * share:.1f}" for share in cell["best"][:2]),
            *(percent_text(cell[f"minus {name}"], "+") for name in draws.NAMES[1:]),
        ]
        for tries, cell in drawn["analysis"]["all"]["best of"].items()
    }
    text = " ".join((FOLDER / "README.md").read_text().split())
    for tries, cells in numbers.items():
        planned = tries if tries != "1" else "1 (not planned)"
        assert f"| {' | '.join([planned, *cells])} |" in text
    drift = f"{100 * drawn['analysis']['all']['best of']['24']['best'][2]:.1f} %"
    assert [number for number in (drift, *numbers["24"]) if number not in text] == []


@pytest.mark.full
def test_a_study_of_draws_is_its_experiment(tmp_path, monkeypatch):
    """Each share is that of the net trained by itself; the settings of a draw are those of its number."""
    monkeypatch.setattr(study, "WORK", tmp_path / "work")
    sizes = {"draws": 2, "tries": 2, "tuning": 4, "starts": 8, "steps": 60}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    draws.main(["--out", str(tmp_path / "out"), *words])
    content = json.loads((tmp_path / "out" / "draws.json").read_text())
    assert {name: len(cells) for name, cells in content["draws"].items()} == {"0": 3, "1": 3}
    for draw, name in itertools.product(range(2), draws.NAMES):
        settings, result = conditions.draw_settings(2, seed=draw), content["draws"][str(draw)][name]
        seeds = draws.SEEDS + 100 * draw + jnp.arange(12)
        starts = jnp.split(seeds, [4])
        kind = conditions.CONDITIONS[name].kind
        settings = [jax.tree.map(jnp.float32, setting) for setting in settings]
        for n, setting in enumerate(settings):
            solved = [net.train(seed, setting, kind=kind, steps=60)[0] for seed in starts[0]]
            assert result["tuning"][n] == np.mean(solved)
        chosen = settings[int(np.argmax(result["tuning"]))]
        assert result["share"] == np.mean([net.train(seed, chosen, kind=kind, steps=60)[0] for seed in starts[1]])
    before = (tmp_path / "out" / "draws.md").read_bytes()
    monkeypatch.setattr(conditions.Xor, "train", None)  # all is finished
    draws.main(["--out", str(tmp_path / "out"), *words])
    assert (tmp_path / "out" / "draws.md").read_bytes() == before


@pytest.mark.full
def test_a_study_of_escape_is_its_experiment(tmp_path, monkeypatch):
    """Each point is left as by training from it by itself."""
    monkeypatch.setattr(study, "WORK", tmp_path)
    monkeypatch.setattr(escape, "BLOCK", 16)
    setting = net.Setting(lr=1.0, width=3.0)
    result = escape.run_group("g", setting, argparse.Namespace(tries=2, tuning=3, stuck=4, rises=2, steps=60))
    points = escape.find_stuck(setting, 7, 60)
    assert result["stuck"] == len(points.seeds) - 3 and len(result["rise"]["nats"]) == 2
    settings = conditions.draw_settings(2, seed=1, most_shift=0.0)
    for name in ("CSBP", "drift"):
        of_name, kind = result["conditions"][name], conditions.CONDITIONS[name].kind

        def is_left(n, tried, kind=kind):
            start = jax.tree.map(lambda leaf: leaf[n], points.params)
            traced = jax.tree.map(jnp.float32, tried)
            return bool(net.train_from(start, points.seeds[n], traced, kind=kind, steps=60)[0])

        assert of_name["tuning"] == [np.mean([is_left(n, tried) for n in range(3)]) for tried in settings]
        chosen = settings[int(np.argmax(of_name["tuning"]))]
        assert of_name["solved"] == "".join("01"[is_left(n, chosen)] for n in range(3, len(points.seeds)))
