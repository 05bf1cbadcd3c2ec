"""The study of real sequences: both arms have the same rates, and the page says the differences of its runs."""

import pandas as pd
import pytest

from csbp_jax import RunTable, configs
from experiments import series_tasks


@pytest.mark.parametrize("task", series_tasks.TASKS)
def test_arms_differ_in_the_term_alone_and_the_first_try_is_the_preset(task):
    plan, config = series_tasks.experiment(task).plan(), configs.load(task)
    csbp, plain = ([plan.settings[key] for key in cell.tries] for cell in plan.cells)
    assert len(csbp) == len(plain) == 4 and csbp[0] == {} and csbp[1] == plain[1]
    for first, second in zip(csbp, plain, strict=True):
        assert first.get("optimizer.lr") == second.get("optimizer.lr")
        assert second["chaos.z0"] == 0 and config.optimizer.lr / 3 <= second.get("optimizer.lr", config.optimizer.lr)
    assert len({*plan.groups.values()}) == 1 and {cell.tuning_seeds for cell in plan.cells} == {(100, 101, 102)}


@pytest.mark.parametrize(
    "measure, strength, expected",
    [
        ("accuracy", 0.5, "accuracy (%) | 20.0 (19.0 to 21.0) | 52.0 (51.0 to 53.0) | 51.0 (50.0 to 52.0) | +1.0 ["),
        ("r2", 0.5, "R2 | 0.200 (0.190 to 0.210) | 0.520 (0.510 to 0.530) | 0.510 (0.500 to 0.520) | +0.010 ["),
        ("r2", 0.0, "R2 | 0.200 (0.190 to 0.210) | 0.520 (0.510 to 0.530) | 0.510 (0.500 to 0.520) | 0, the same runs"),
    ],
)
def test_a_row_has_the_preset_both_arms_and_their_difference(measure, strength, expected):
    rows = []
    for arm, z0, base in (("CSBP", strength, 0.51), ("plain", 0.0, 0.50)):
        fields = {"case": "", "arm": arm, "draw": 0, "try": 2, "chaos.beta": 0.9, "optimizer.lr": 1e-3}
        test = [fields | {"role": "test", "chaos.z0": z0, "seed": n, "value": base + n / 100} for n in range(3)]
        tune = [
            {**row, "role": "tune", "try": 0, "seed": 100 + n, "value": 0.19 + n / 100} for n, row in enumerate(test)
        ]
        rows += test + tune
    frame = pd.DataFrame(rows).rename(columns={"value": f"last_test_{measure}"})
    table = RunTable(frame, series_tasks.CHOSEN, (f"last_test_{measure}",))
    page = series_tasks.page({"tasks": {"watch": series_tasks.summary(table)}})
    assert page.splitlines()[-1].startswith(f"| `watch`: {expected}")
