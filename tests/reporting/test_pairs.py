"""Controls of settings, differences paired over seeds, and their text."""

import pytest

from csbp_jax.config import flatten
from csbp_jax.reporting.pairs import difference_text, is_plain, paired_difference, plain_control
from csbp_jax.reporting.statistics import signed_rank, student
from tests.support.small_sweep import SMALL

CONTROL = {0: 0.90, 1: 0.92, 2: 0.97}


def test_differences_are_of_equal_seeds():
    paired = paired_difference({2: 0.96, 7: 0.10, 0: 0.94}, CONTROL)
    assert paired is not None
    assert paired.pairs == 2 and paired.difference == pytest.approx(student([0.04, -0.01]))
    assert paired.p == signed_rank([0.04, -0.01]) and paired.verdict is None
    assert paired_difference({7: 0.5}, CONTROL) is None


def test_text_of_a_difference():
    def text(differences, margin=None):
        paired = paired_difference(
            {i: 0.5 + d for i, d in enumerate(differences)}, dict.fromkeys(range(9), 0.5), margin
        )
        assert paired is not None
        return difference_text(paired).split("\n")

    assert text([0.04]) == ["+4.00 (n = 1)"] and text([0.04], 0.5) == ["+4.00 (n = 1)", "not decided"]
    assert text([0.01, 0.02, 0.03]) == ["+2.00 [-0.48, +4.48]"]
    # Pairs that all differ by the same show no spread, but another may differ.
    assert text([0.01, 0.01]) == ["+1.00 (all equal)"] and text(5 * [0.0], 1) == ["+0.00 (all equal)", "not decided"]
    # A margin is in percentage points.
    near = [0.001, -0.001, 0.001, -0.001, 0.002, -0.002]
    assert text(near, 0.5)[1:] == ["signed rank p 1", "equal within 0.5"] and text(near, 0.05)[2] == "not decided"
    assert text([0.01, 0.011, 0.012, 0.013, 0.014, 0.015], 0.5)[1:] == ["signed rank p 0.031", "better"]


def fields(**changed):
    """The fields of a setting, named with ``__`` for dots, as in a run's config.json."""
    flat = {k: list(v) if isinstance(v, tuple) else v for k, v in flatten(SMALL).items()}
    return flat | {name.replace("__", "."): value for name, value in changed.items()}


def test_the_control_is_the_same_without_the_chaos_term():
    settings = [
        fields(chaos__z0=[3.0]),
        fields(chaos__z0=[0.0], optimizer__lr=0.1),
        fields(chaos__z0=[0.0], chaos__term="drift", chaos__beta=0.5),
        fields(chaos__z0=[0.0], chaos__term="drift"),
        fields(chaos__z0=[3.0], optimizer__lr=0.1),
        fields(chaos__z0=[3.0], optimizer__lr=0.2),
    ]
    # Not of another learning rate; other fields of a term that is off do not matter, though fewer are better.
    assert [plain_control(number, settings) for number in range(6)] == [3, None, None, None, 1, None]
    assert is_plain(settings[1]) and not is_plain(settings[0]) and not is_plain(fields(chaos__z0=[0.0, 1.0]))
