"""Contrasts and means of a table of the committed runs are the numbers of the studies."""

import json

import numpy as np
import pandas as pd
import pytest

from csbp_jax.runs import RunTable
from tools import analyses

PAIRED = {"paired t": "t", "paired accuracies": "signed-rank", "signed rank": "signed-rank", "McNemar": "mcnemar"}
PAIRED |= {"paired t over folds": "t"}
FAMILIES = [f for f in json.loads(analyses.FILE.read_text()) if f["test"] in (*PAIRED, "mean")]


def table_of(family):
    """The arrays of a family as runs, an arm each; accuracies in points as shares."""
    arrays = {name: analyses.select(selector, family["file"]) for name, selector in family["values"].items()}
    in_points = "accuracy" in family["measure"] and "(points)" in family["measure"]
    measure = "test_accuracy" if in_points else "value"
    frames = [
        pd.DataFrame({"arm": name, "seed": range(len(array)), measure: array / (100 if in_points else 1)})
        for name, array in arrays.items()
    ]
    frame = pd.concat(frames).assign(case="", draw=0, role="test", **{"try": 0})
    return RunTable(frame, (), (measure,))


def contrasts(family, table, **options):
    """Rows of the contrasts of a family's pairs, of which p of the first is corrected together."""
    names, corrected = analyses.names_of(family), family.get("holm", 0)
    every = [(arm, other) for arm, other, *_ in names] if family["test"] in PAIRED else []
    for pairs in (every[:corrected], every[corrected:]):
        frame = table.contrast_pairs(pairs, over="seed", **options).frame.set_index(["arm", "other"])
        yield from (frame.loc[pair] for pair in pairs)


def computed(family):
    """Numbers of each row, by the names that the family gives them."""
    table, test = table_of(family), PAIRED.get(family["test"])
    if test is None:
        settings = table.settings().set_index("arm")
        scale = 100 if table.measures[0] == "test_accuracy" else 1
        for (arm,) in analyses.names_of(family):
            ends = [settings.loc[arm, f"{table.measures[0]}_{end}"] * scale for end in ("mean", "low", "high")]
            # The interval of accuracies is another one in a table: within [0, 1].
            yield dict(zip(("mean", "low", "high"), ends[:1] if scale > 1 else ends, strict=False))
        return
    options = {name: value for name, value in family.get("options", {}).items() if name in ("margin", "confidence")}
    if sizes := family.get("options", {}).get("sizes"):
        options |= {"overlap": sizes[0] / sizes[1], "margin": 0.015}
    wide = list(contrasts(family, table, test=test, **options))
    narrow = contrasts(family, table, test=test, **options | {"confidence": 0.9}) if test == "mcnemar" else wide
    for row, of_90 in zip(wide, narrow, strict=True):
        bits = {"low": of_90["low"], "high": of_90["high"], "half": (row["high"] - row["low"]) / 2}
        yield dict(row) | {"n": row["pairs"], "holm": row["p_holm"]} | (bits if test == "mcnemar" else {})


@pytest.mark.parametrize("family", FAMILIES, ids=analyses.title)
def test_the_numbers_of_a_study(family):
    compared = 0
    for of, numbers in zip(family["rows"], computed(family), strict=True):
        stored = dict(zip(family["numbers"], of[-len(family["numbers"]) :], strict=True))
        for name in stored.keys() & numbers.keys():
            if stored[name] is not None:
                p = name in analyses.PS
                # Digits of a difference, which are those of numbers of up to 100.
                assert numbers[name] == pytest.approx(stored[name], rel=1e-9, abs=0 if p else 1e-11), (of, name)
                compared += 1
    assert compared >= len(family["rows"])


def test_they_are_most_of_the_stored_families():
    assert len(FAMILIES) > 230 and np.sum([len(family["rows"]) for family in FAMILIES]) > 1800
