"""The speed of the data pipeline: its clock and its page. Nothing is timed."""

import json
import re
import time

import jax
import numpy as np
import pytest

from benchmarks import data_speed
from benchmarks.h100 import PUBLISHED

FOLDER = PUBLISHED.parent / "data"


@pytest.fixture
def published():
    return [json.loads((FOLDER / f"{part}.json").read_text()) for part in data_speed.PARTS]


def test_the_page_and_the_docs_have_the_measured_numbers(published):
    page = (FOLDER / "README.md").read_text()
    assert page == data_speed.page(*published)
    options = (FOLDER.parents[1] / "data.md").read_text().partition("### Smaller images")[2]
    rows = re.findall(r"^\| photograph.*(?:pillow|simplejpeg|cykooz) \| pictures/s \| ([\d,]+)", page, re.MULTILINE)
    assert len(rows) == 5 and all(f" {median} " in options for median in rows[1:])


def test_every_part_runs_and_is_timed_by_the_clock_that_the_page_names(tmp_path, monkeypatch):
    clocks: list[object] = []

    def once(programs, rounds, clock=time.perf_counter):
        clocks.append(clock)
        for program in programs.values():
            program()
        return {name: np.ones(rounds) for name in programs}

    photographs = data_speed.photographs
    monkeypatch.setattr(data_speed, "timed", once)
    monkeypatch.setattr(data_speed, "photographs", lambda count: photographs(2))
    monkeypatch.setattr(data_speed, "pin_to_core", lambda: None)
    for name, value in {"BATCHES": 2, "TOTAL_EVENTS": 400_000, "FRAMES": (2, 2, 8, 8, 2)}.items():
        monkeypatch.setattr(data_speed, name, value)
    jax.config.update("jax_platforms", "")  # as where a user sets nothing: JAX would take a GPU
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").write_bytes(next(photographs(1)))
    data_speed.main(["--out", str(tmp_path), "--rounds", "1", "--photographs", str(tmp_path / "mine")])
    assert clocks == [time.process_time] * 5 and jax.config.values["jax_platforms"] == "cpu"
    page = (tmp_path / "README.md").read_text()
    assert "of augmentation on the device, CPU time" in page and "The photographs are 1 of the folder mine, " in page
    counted = json.loads((tmp_path / "events.json").read_text())["million_events_per_second"]
    assert counted["nmnist"]["median"] == pytest.approx(0.4, rel=0.02)


def test_the_page_says_that_no_photographs_were_timed(published):
    images, events, device = published
    del images["photographs"]
    assert "Real images were not timed." in data_speed.page(images, events, device)


@pytest.mark.parametrize(("words", "message"), [
    (["--photographs", "{0}/none"], "--photographs: there is no folder {0}/none"),
    (["--only", "events"], "no page before images, device are timed: --only images device"),
])  # fmt: skip
def test_what_is_missing_is_said_in_a_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_speed, "pin_to_core", lambda: None)
    monkeypatch.setitem(data_speed.PARTS, "events", lambda rounds, folder: {})
    with pytest.raises(SystemExit, match="2"):
        data_speed.main(["--out", str(tmp_path), *(word.format(tmp_path) for word in words)])
    assert message.format(tmp_path) in capsys.readouterr().err
