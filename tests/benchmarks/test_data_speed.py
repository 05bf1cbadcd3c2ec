"""The speed of the data pipeline: its clocks and its page. Nothing is timed."""

import json
import pathlib
import time

import numpy as np
import pytest

from benchmarks import data_device, data_page

PARTS = ("images", "events", "device")
DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.fixture
def published():
    return [json.loads((DOCS / "results" / "data" / f"{name}.json").read_text()) for name in PARTS]


def test_the_page_and_the_docs_have_the_measured_numbers(published):
    assert (DOCS / "results" / "data" / "README.md").read_text() == data_page.page(*published)
    assert data_page.table(*published) in (DOCS / "data.md").read_text()


def test_the_device_is_timed_by_the_clock_that_the_page_names(tmp_path, monkeypatch, published):
    clocks = []

    def timed(programs, rounds, clock=time.perf_counter):
        clocks.append(clock)
        return {name: np.ones(rounds) for name in programs}

    monkeypatch.setattr(data_device, "timed", timed)
    monkeypatch.setattr(data_device, "program", lambda shape, **options: None)
    monkeypatch.setattr(data_device, "pin_to_core", lambda: None)
    data_device.main(["--out", str(tmp_path), "--rounds", "1"])
    assert clocks == [time.process_time]
    images, events, device = published
    assert "of augmentation on the device, wall time" in data_page.page(images, events, device)
    measured = json.loads((tmp_path / "device.json").read_text())
    assert "of augmentation on the device, CPU time" in data_page.page(images, events, measured)
