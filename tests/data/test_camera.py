"""The synthetic event camera: compared with a plain loop over pixels, and with its documentation."""

import dataclasses
import itertools
import math
import pathlib
import zlib
from typing import Any

import numpy as np
import pytest

from csbp_jax import configs
from csbp_jax.config import Config, Data, Model
from csbp_jax.data import digits as still_digits
from csbp_jax.data.events import binning, camera, digits_events, sources
from csbp_jax.data.events.readers import Events


@pytest.fixture
def quiet(monkeypatch):
    """No background activity."""
    monkeypatch.setattr(camera, "NOISE", 0.0)


@pytest.fixture(scope="module")
def digits():
    return still_digits.arrays()["x"]


def level(scene, picture, t, y, x):
    """Log luminance at pixel (y, x) at time t, a multiple of a millisecond."""
    edge = min(t // scene.edge, len(scene.corners) - 2)
    u = (t - scene.edge * edge) / scene.edge
    share = 3 * u**2 - 2 * u**3 if scene.eased else u
    centre = [a + (b - a) * share for a, b in zip(*scene.corners[edge : edge + 2], strict=True)]
    row, column = (
        (pixel - (pixels - 1) / 2 - c) / scene.zoom + (side - 1) / 2
        for pixel, pixels, c, side in zip((y, x), scene.sensor, centre, picture.shape, strict=True)
    )
    total = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            nearest = min(max(i, 0), picture.shape[0] - 1), min(max(j, 0), picture.shape[1] - 1)
            grey = picture[nearest] if nearest == (i, j) or scene.surround is None else scene.surround
            total += (1 - abs(row - i)) * (1 - abs(column - j)) * math.log(grey / scene.white + 0.1)
    return total


def fired(levels, rise, fall):
    """(time, polarity) of the events of one pixel, from its level at every millisecond."""
    events, reference, ready_at = [], levels[0], -1.0
    for k, (before, after) in enumerate(itertools.pairwise(levels)):
        start, end = 1000 * k, 1000 * (k + 1)
        if ready_at > end:
            continue
        if ready_at > start:
            reference = before + (after - before) * (ready_at - start) / 1000
        if after - reference >= rise or reference - after >= fall:
            p = int(after > reference)
            crossing = reference + rise if p else reference - fall
            t = start + 1000 * (crossing - before) / (after - before)
            events.append((t, p))
            ready_at = t + 1000
    return events


SMALL = dataclasses.replace(camera.LOOP, sensor=(7, 5), edge=20_000)
BESIDE_GREY = dataclasses.replace(SMALL, zoom=0.8, eased=True, surround=100, corners=((0, 0), (3, 1), (0, 0)))


@pytest.mark.parametrize("scene", [camera.DIGITS, SMALL, BESIDE_GREY], ids=["digits", "loop", "beside grey"])
def test_events_are_those_of_a_plain_loop_over_pixels(scene, quiet, digits):
    picture = digits[5] if scene is camera.DIGITS else np.random.default_rng(0).integers(0, 256, (6, 9))
    events = camera.record(picture[None], np.array([5]), scene)[0]
    height, width = scene.sensor
    rise, fall = np.random.Generator(np.random.Philox(key=[camera.SEED, 0])).normal(0.25, 0.03, (2, height, width))
    for y in range(0, height, 2):
        for x in range(1, width, 2):
            at_pixel = (events.y == y) & (events.x == x)
            levels = [level(scene, picture, 1000 * k, y, x) for k in range(scene.duration // 1000 + 1)]
            expected = fired(levels, rise[y, x], fall[y, x])
            assert list(events.p[at_pixel]) == [p for _, p in expected]
            np.testing.assert_allclose(events.t[at_pixel] + 0.5, [t for t, _ in expected], atol=0.51)
    assert len(events.t) > (1000 if scene is camera.DIGITS else 50) and events.sensor == scene.sensor


def test_the_loop_is_closed_and_of_four_diagonal_edges():
    corners = np.array([camera.LOOP.position(edge * camera.LOOP.edge) for edge in range(5)])
    np.testing.assert_array_equal(corners[0], corners[4])
    np.testing.assert_array_equal(np.abs(np.diff(corners, axis=0)), 2)
    np.testing.assert_array_equal(camera.LOOP.position(25_000), corners[:2].mean(axis=0))
    assert camera.LOOP.duration == 200_000


def test_a_picture_and_its_seed_determine_a_recording():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32))
    together = camera.record(pictures, np.array([7, 8, 7]), camera.LOOP)
    alone = [camera.record(pictures[[i]], np.array([seed]), camera.LOOP)[0] for i, seed in enumerate((7, 8, 7))]
    for events, others in zip(together, alone, strict=True):
        np.testing.assert_array_equal(np.stack(events[:4]), np.stack(others[:4]))
    other_noise = camera.record(pictures[:1], np.array([8]), camera.LOOP)[0]
    assert len(other_noise.t) != len(together[0].t)


def test_pictures_of_other_forms_are_refused():
    with pytest.raises(ValueError, match=r"grey values are 0 to 17, but 0 to 16 exist"):
        camera.record(np.array([[[0, 17]]]), np.array([0]))
    with pytest.raises(ValueError, match=r"\(8, 8\) is not possible; expected is \[N, height, width\]"):
        camera.record(np.zeros((8, 8), int), np.array([0]))


def test_a_recording_does_not_depend_on_the_others(digits):
    together = camera.record(digits[:3], np.arange(3))
    for i in range(3):
        for alone in (camera.record(digits[[i]], np.array([i]))[0], digits_events.recording(i)):
            np.testing.assert_array_equal(np.stack(alone[:4]), np.stack(together[i][:4]))


def test_events_are_sorted_and_inside_the_sensor_and_the_duration():
    for i in (0, 99, 100, 1796):
        events = digits_events.recording(i)
        assert np.all(np.diff(events.t) >= 0) and events.t[0] >= 0 and events.t[-1] < 300_000
        assert {events.x.min(), events.y.min()} <= set(range(16)) >= {events.x.max(), events.y.max()}
        assert set(np.unique(events.p)) == {0, 1}


def test_noise_is_poisson_over_pixels_and_polarities():
    blank = camera.record(np.zeros((400, 8, 8), np.uint8), np.arange(400))
    mean = camera.NOISE * 256 * 0.3
    counts = np.array([len(events.t) for events in blank])
    assert abs(counts.mean() - mean) < 5 * math.sqrt(mean / 400)
    assert abs(counts.var() / mean - 1) < 5 * math.sqrt(2 / 400)
    t, y, x, p = (np.concatenate(part) for part in zip(*((e.t, e.y, e.x, e.p) for e in blank), strict=True))
    for values, bins in ((t // 30_000, 10), (16 * y + x, 256), (p, 2)):
        counts, expected = np.bincount(values, minlength=bins), len(t) / bins
        assert ((counts - expected) ** 2 / expected).sum() < bins + 5 * math.sqrt(2 * bins)


def cheap_recording(index):
    """A recording that identifies its digit by the number of its events, without a simulation."""
    random = np.random.default_rng(index)
    x, y, p = (random.integers(0, end, index + 4) for end in (16, 16, 2))
    return Events(x, y, np.sort(random.integers(0, 300_000, index + 4)), p, (16, 16))


@pytest.fixture(scope="module")
def cheap(tmp_path_factory):
    """The data set of :func:`cheap_recording`: its config, the directory of its cache, and its splits."""
    config = configs.load("digits_events")
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_events, "recording", cheap_recording)
        return config, folder, digits_events.load(config, folder)


def test_splits_are_those_of_the_digits(cheap):
    _, _, events = cheap
    x = still_digits.arrays()["x"].astype(np.float32) / 16
    for split, still in still_digits.load(Config(), pathlib.Path()).items():
        np.testing.assert_array_equal(events[split].y, still.y)
        assert len(events[split]) == len(still) and events[split].classes == 10 and events[split].events
        digits = [int(events[split][i]["x"].sum()) - 4 for i in range(len(still))]
        np.testing.assert_array_equal(x[digits], still.x[:, 0, :, :, 0])
    record = events["test"][7]
    assert record["x"].shape == (10, 16, 16, 2) and record["x"].dtype == np.uint8 and record["y"].dtype == np.int32


def test_every_event_is_counted_in_its_digits_frames(tmp_path, monkeypatch):
    simulate, indices = digits_events.recording, (1700, 1750, 1796)  # of one chunk
    monkeypatch.setattr(digits_events, "recording", lambda i: simulate(i) if i in indices else cheap_recording(i))
    splits: Any = digits_events.load(configs.load("digits_events"), tmp_path)
    frames = {int(row): source[i]["x"] for source in splits.values() for i, row in enumerate(source.rows)}
    for index in indices:
        made, x = simulate(index), frames[index]
        assert x.sum() == len(made.t)
        np.testing.assert_array_equal(x.sum((0, 3)), np.histogram2d(made.y, made.x, np.arange(17))[0])
        np.testing.assert_array_equal(x.sum((0, 1, 2)), np.bincount(made.p))


def test_frames_are_made_once_for_each_version(cheap, capsys, monkeypatch):
    monkeypatch.setattr(digits_events, "recording", cheap_recording)
    config, folder, events = cheap
    before = digits_events.fingerprint(config, folder)
    indices, none = np.arange(40), np.zeros((40, 0), np.float32)
    again = digits_events.load(config, folder)["train"].take(indices, none)["x"]
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(again, events["train"].take(indices, none)["x"])
    monkeypatch.setattr(digits_events, "VERSION", 1)
    digits_events.load(config, folder)
    assert capsys.readouterr().err == "digits_events: making 1797 recordings, once for 10 time steps, data.bins time\n"
    assert digits_events.fingerprint(config, folder) != before


def test_other_frames_of_the_same_events(cheap, tmp_path, monkeypatch):
    monkeypatch.setattr(digits_events, "recording", cheap_recording)
    _, _, events = cheap
    data = Data(name="digits_events", size=(8, 6), bins="window", window=100_000)
    small = digits_events.load(Config(data=data, model=Model(time_steps=3)), tmp_path)
    for i in range(5):
        x = small["train"][i]["x"]
        assert x.shape == (3, 8, 6, 2) and x.sum() == events["train"][i]["x"].sum()


def test_what_is_recorded_changes_with_the_version_only():
    """Other events or frames under the same version would let a stopped run resume on other data."""
    events, crc = [digits_events.recording(i) for i in (0, 7, 1796)], 0
    edges = [
        binning.by_number(events[0].t, 4),
        binning.by_time(events[1].t, 4),
        binning.by_window(events[2].t, 4, 50_000),
    ]
    for e, steps in zip(events, edges, strict=True):
        frames = binning.count(e.x, e.y, e.p, steps, (16, 16, 2))
        crc = zlib.crc32(b"".join(a.astype(np.int64).tobytes() for a in (e.x, e.y, e.t, e.p, frames)), crc)
    assert (digits_events.VERSION, crc) == (3545999464, 1417951786)


@pytest.mark.full
def test_a_linear_map_separates_the_digits():
    """Ridge regression on the OFF events of frames."""
    events = [digits_events.recording(i) for i in range(400)]
    x = np.stack([sources.bin_events(e, Data(bins="time"), 10, (16, 16, 2)) for e in events])
    x, y = np.c_[x.reshape(400, -1), np.ones(400)][:, ::2].astype(float), still_digits.arrays()["y"][:400]
    weights = x[:300].T @ np.linalg.solve(x[:300] @ x[:300].T + 100 * np.eye(300), np.eye(10)[y[:300]])
    assert ((x[300:] @ weights).argmax(1) == y[300:]).mean() > 0.9
