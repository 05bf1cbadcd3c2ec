"""The study of learned delays: its arms differ in the delays alone, and its page is that of its data."""

import json

from csbp_jax import configs
from csbp_jax.config import replaced, to_json
from experiments import delays
from experiments.speakers import CASES, KNOWN, SPEAKERS
from experiments.study import RESULTS
from tests.support.case_runs import table_of
from tests.support.stored_numbers import stored


def test_the_arms_differ_in_the_delays_alone_and_the_cases_in_the_speaker():
    plan = delays.experiment(2).plan()
    fields = {(cell.case, cell.arm): plan.settings[cell.tries[0]] for cell in plan.cells}
    assert fields == {
        (case, arm): changes | CASES[case]
        for case in (KNOWN, *SPEAKERS)
        for arm, changes in {"delays": {}, "none": {"model.max_delay": None}}.items()
    }
    base = configs.load("fsdd_delays_bp")
    assert plan.system.content().items() >= to_json(base).items() and base.chaos.z0 == (0.0,)
    assert base.replace(**CASES["george"]).data == configs.load("fsdd_speaker").data


def test_speakers_are_the_sample():
    """Of the committed runs, as a table: its contrast over speakers is the last row of the page."""
    folder = RESULTS / "delays"
    content = json.loads((folder / "delays.json").read_text())
    accuracies = {case: content["accuracy"][case] for case in CASES}
    assert delays.summary(table_of(accuracies))["accuracy"] == stored(content["accuracy"])
    row = table_of({case: accuracies[case] for case in SPEAKERS}).contrast("delays", over="case")["none"]
    difference, low, high = (f"{row[name]:.2f}" for name in ("difference", "low", "high"))
    table = (folder / "table.md").read_text()
    assert table.endswith(f" | {difference} [{low}, {high}] |\n") and table in (folder / "README.md").read_text()


def test_the_preset_is_the_network_of_the_study():
    network = {"model.name": "dense", "model.features": (128, 128), "model.max_delay": 10}
    config = configs.load("fsdd_bp")
    for field, value in {**network, "chaos.taps": ("fc1.membrane",)}.items():
        config = replaced(config, field, value)
    assert config == configs.load("fsdd_delays_bp")
