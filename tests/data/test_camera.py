"""The synthetic event camera: compared with a plain loop over pixels, and with its documentation."""

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


def level(digit, t, y, x):
    """Log luminance at pixel (y, x) at time t, a multiple of a millisecond."""
    start, end = [((-1, -2), (2, 0)), ((2, 0), (-1, 2)), ((-1, 2), (-1, -2))][min(t // 100_000, 2)]
    u = (t - 100_000 * min(t // 100_000, 2)) / 100_000
    centre = [a + (b - a) * (3 * u**2 - 2 * u**3) for a, b in zip(start, end, strict=True)]
    row, column = ((pixel - 7.5 - c) / 1.5 + 3.5 for pixel, c in zip((y, x), centre, strict=True))
    total = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            grey = digit[i, j] if 0 <= i < 8 and 0 <= j < 8 else 0
            total += (1 - abs(row - i)) * (1 - abs(column - j)) * math.log(grey / 16 + 0.1)
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


def test_events_are_those_of_a_plain_loop_over_pixels(quiet, digits):
    events = camera.record(digits[5:6], np.array([5]))[0]
    rise, fall = np.random.Generator(np.random.Philox(key=[camera.SEED, 0])).normal(0.25, 0.03, (2, 16, 16))
    for y in range(0, 16, 2):
        for x in range(1, 16, 2):
            at_pixel = (events.y == y) & (events.x == x)
            expected = fired([level(digits[5], 1000 * k, y, x) for k in range(301)], rise[y, x], fall[y, x])
            assert list(events.p[at_pixel]) == [p for _, p in expected]
            np.testing.assert_allclose(events.t[at_pixel] + 0.5, [t for t, _ in expected], atol=0.51)
    assert len(events.t) > 1000


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
