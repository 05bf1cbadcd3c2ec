"""The classification of measurements, which does not depend on the number of steps."""

import pytest

from csbp_jax.instruments import classify
from tests.support.small_map import CALM

NAN = float("nan")


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, "contracting or neutral"),
        ({"size": 1e4}, "runs away"),
        ({"size": NAN}, "runs away"),
        ({"tangent": {"exponents": [0.05, 0.0], "stderr": [0.01, 0.01]}}, "chaotic"),
        ({"tangent": {"exponents": [0.04, 0.0], "stderr": [0.01, 0.01]}}, "not decided"),
        ({"tangent": {"exponents": [0.0, 0.0], "stderr": [0.002, 0.01]}}, "not decided"),
        ({"tangent": {"exponents": [0.0, 0.0], "stderr": [0.001, 0.01]}}, "contracting or neutral"),
        ({"tangent": {"exponents": [0.003, 0.0], "stderr": [0.0001, 0.01]}}, "contracting or neutral"),
        ({"finite_size": {"exponents": [-0.1, 0.2], "stderr": [0.01, 0.01]}}, "finite-size sensitive"),
        ({"finite_size": {"exponents": [-0.1, 0.02], "stderr": [0.01, 0.01]}}, "not decided"),
        ({"finite_size": {"exponents": [NAN, -0.1], "stderr": [NAN, 0.01]}}, "not decided"),
        ({"cumulated": [1.0, 7.0, -3.0]}, "transiently expanding"),
        ({"cumulated": [5.5, 5.0]}, "transiently expanding"),
        ({"cumulated": [4.0, -1.0, 3.5]}, "contracting or neutral"),
        ({"cumulated": [-20.0, -30.0, -10.0, 0.0]}, "transiently expanding"),
        ({"cumulated": [-20.0, -30.0, -26.0]}, "contracting or neutral"),
        ({"tangent": {"exponents": [NAN, NAN], "stderr": [NAN, NAN]}, "cumulated": [NAN, NAN]}, "no exponent"),
    ],
)
def test_classes(change, expected):
    assert classify.classify(CALM | change) == expected


@pytest.mark.parametrize("kind, shown", [("tangent", "chaotic"), ("finite_size", "finite-size sensitive")])
@pytest.mark.parametrize("exponent", [0.003, 0.0215, 0.2])
def test_more_steps_decide_and_never_change_a_decision(kind, shown, exponent):
    """Standard errors fall with the root of the number of steps."""
    words = []
    for counted in (20, 50, 100, 200, 250, 1000, 100_000):
        growth = {"exponents": [exponent, -0.1], "stderr": [0.05 / counted**0.5, 0.001]}
        words.append(classify.classify(CALM | {kind: growth, "counted": counted}))
    assert words[-1] == (shown if exponent > classify.BOUND else "contracting or neutral")
    first = words.index(words[-1])
    assert set(words[:first]) <= {"not decided"} and set(words[first:]) == {words[-1]}
    assert exponent > 0.1 or first > 0
