"""The study of learned delays: its arms differ in the delays alone, and its table is that of its data."""

import json

import pytest

from csbp_jax import configs
from csbp_jax.config import check, replaced
from experiments import delays
from experiments.speakers import KNOWN, SPEAKERS
from experiments.study import RESULTS


def test_the_arms_differ_in_the_delays_alone():
    arms = delays.arms()
    assert list(arms) == list(delays.ARMS) and replaced(arms["delays"], "model.max_delay", None) == arms["none"]
    assert [check(config).chaos.z0 for config in arms.values()] == [(0.0,), (0.0,)]


def test_speakers_are_the_sample():
    def run(accuracy):
        return {"last": {"test_accuracy": accuracy, "validation_accuracy": 0.9}, "seconds": 2.0}

    splits = {
        split: {"delays": [run(0.1 * i), run(0.1 * i + 0.02)], "none": [run(0.05 * i), run(0.05 * i)]}
        for i, split in enumerate((KNOWN, *SPEAKERS))
    }
    content = delays.summary(splits)
    assert content["accuracy"][delays.UNKNOWN]["delays"] == pytest.approx([0.1 * i + 0.01 for i in range(1, 7)])
    rows = dict(line.strip("| ").split(" | ", 1) for line in delays.table(content).splitlines()[2:])
    assert list(rows) == [KNOWN, *SPEAKERS, delays.UNKNOWN]
    # 1 + 5 i points, i from 1 to 6: mean 18.5, standard deviation 9.35, t of 5 degrees of freedom 2.571.
    assert rows[delays.UNKNOWN].endswith("18.50 [8.68, 28.32]")


def test_the_pages_are_those_of_the_data():
    folder = RESULTS / "delays"
    content = json.loads((folder / "delays.json").read_text())
    table = delays.table(content)
    assert (folder / "table.md").read_text() == table + "\n" and table in (folder / "README.md").read_text()


def test_the_preset_is_the_network_of_the_study():
    network = {"model.name": "dense", "model.features": (128, 128), "model.max_delay": 10}
    config = configs.load("fsdd_bp")
    for field, value in {**network, "chaos.taps": ("fc1.membrane",)}.items():
        config = replaced(config, field, value)
    assert config == configs.load("fsdd_delays_bp") == delays.arms()["delays"]
