"""The speed of the data pipeline: its clocks and its page. Nothing is timed."""

import json
import pathlib
import re
import time

import jax
import numpy as np
import pytest

from benchmarks import data_device, data_images, data_page

PARTS = ("images", "events", "device")
DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.fixture
def published():
    return [json.loads((DOCS / "checks" / "data" / f"{name}.json").read_text()) for name in PARTS]


def test_the_page_and_the_docs_have_the_measured_numbers(published):
    page = (DOCS / "checks" / "data" / "README.md").read_text()
    assert page == data_page.page(*published)
    options = (DOCS / "data.md").read_text().partition("### Smaller images")[2]
    rows = re.findall(r"^\| photograph.*(?:pillow|simplejpeg|cykooz) \| pictures/s \| ([\d,]+)", page, re.MULTILINE)
    assert len(rows) == 5 and all(f" {median} " in options for median in rows[1:])


def test_the_device_is_timed_by_the_clock_that_the_page_names(tmp_path, monkeypatch, published):
    clocks: list[object] = []

    def timed(programs, rounds, clock=time.perf_counter):
        clocks.append(clock)
        return {name: np.ones(rounds) for name in programs}

    monkeypatch.setattr(data_device, "timed", timed)
    monkeypatch.setattr(data_device, "program", lambda shape, **options: None)
    monkeypatch.setattr(data_device, "pin_to_core", lambda: None)
    jax.config.update("jax_platforms", "")  # as where a user sets nothing: JAX would take a GPU
    data_device.main(["--out", str(tmp_path), "--rounds", "1"])
    assert clocks == [time.process_time] and jax.config.values["jax_platforms"] == "cpu"
    images, events, device = published
    device.pop("clock", None)
    assert "of augmentation on the device, wall time" in data_page.page(images, events, device)
    measured = json.loads((tmp_path / "device.json").read_text())
    assert "of augmentation on the device, CPU time" in data_page.page(images, events, measured)


def test_the_page_says_of_the_photographs_what_the_images_say(published):
    images, events, device = published
    others = images | {"photographs": images["photographs"] | {"source": "of the folder mine", "images": 7}}
    page = data_page.page(others, events, device)
    assert "The photographs are 7 of the folder mine, 93 kB each." in page and "foolbox" not in page
    del images["photographs"]
    page = data_page.page(images, events, device)
    assert "Real images were not timed." in page and "`python -m benchmarks.data_images`" in page


def test_photographs_are_said_to_be_of_their_folder(tmp_path, monkeypatch, capsys):
    folder, file = tmp_path / "mine", tmp_path / "images.json"
    folder.mkdir()
    (folder / "a.jpg").touch()
    monkeypatch.setattr(data_images, "pin_to_core", lambda: None)
    monkeypatch.setattr(data_images, "cifar", lambda rounds: {})
    monkeypatch.setattr(data_images, "photographs", lambda count: iter(()))
    monkeypatch.setattr(
        data_images, "imagenet", lambda jpegs, rounds: {"images": len(jpegs), "pictures_per_second": {}}
    )
    data_images.main(["--out", str(file), "--photographs", str(folder)])
    content = json.loads(file.read_text())
    assert content["command"] == f"python -m benchmarks.data_images --photographs {folder}"
    assert content["photographs"] == {
        "source": "of the folder mine",
        "images": 1,
        "pictures_per_second": {},
    }
    with pytest.raises(SystemExit, match="2"):
        data_images.main(["--out", str(file), "--photographs", str(tmp_path / "none")])
    assert f"--photographs: there is no folder {tmp_path / 'none'}" in capsys.readouterr().err
