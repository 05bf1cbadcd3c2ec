"""The verdicts of studies follow from their differences as the plans say."""

import json
import pathlib

import pytest

from experiments.cbp import overshoot
from experiments.statistics import compare_solved, equivalence_of_shares
from experiments.xor import escape, tuned


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


def test_equivalence_reads_differences_of_either_sign():
    bits = {"a": {"solved": "1" * 500 + "0" * 500}, "b": {"solved": "1" * 505 + "0" * 495}}
    one, other = compare_solved(bits, "a")["b"], compare_solved(bits, "b")["a"]
    tests = [equivalence_of_shares(p, 0.02) for p in (one, other)]
    assert tests[0]["p"] == pytest.approx(tests[1]["p"]) and tests[0]["low"] == pytest.approx(-tests[1]["high"])


def test_the_table_of_overshooting_is_that_of_its_data():
    folder = pathlib.Path(__file__).parents[2] / "docs" / "results" / "cbp_overshoot"
    content = json.loads((folder / "overshoot.json").read_text())
    assert content["primary"] == json.loads(json.dumps(overshoot.primary(content["cells"])))
    assert (folder / "table.md").read_text() == overshoot.page(content) + "\n"
    page = (folder / "README.md").read_text()
    assert overshoot.primary_table(content) in page and overshoot.tested_table(content) in page
    for name in overshoot.CONDITIONS:
        shares = (content["cells"][f"{task} | {name} | {overshoot.RELEASED:.2f}"]["share"] for task in overshoot.TASKS)
        assert f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |" in page


def test_the_table_of_equal_tuning_is_that_of_its_data():
    folder = pathlib.Path(__file__).parents[2] / "docs" / "results" / "xor_tuned"
    content = json.loads((folder / "tuned.json").read_text())
    finished = {name: result for name, result in content["conditions"].items() if "solved" in result}
    assert content["primary"] == json.loads(json.dumps(tuned.compare(finished)["primary"]))
    table = tuned.page(content | {"conditions": finished})
    assert (folder / "table.md").read_text() == table + "\n" and table in (folder / "README.md").read_text()
