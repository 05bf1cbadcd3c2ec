"""The classification of measurements."""

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
        ({"tangent": {"exponents": [0.03, 0.0], "stderr": [0.01, 0.01]}}, "contracting or neutral"),
        ({"finite_size": {"exponents": [-0.1, 0.2], "stderr": [0.01, 0.01]}}, "finite-size sensitive"),
        ({"tangent": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}}, "weakly expanding"),
        ({"tangent": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}, "counted": 300}, "chaotic"),
        ({"finite_size": {"exponents": [0.02, 0.0], "stderr": [0.001, 0.01]}}, "weakly expanding"),
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
