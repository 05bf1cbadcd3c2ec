"""Corruptions of pictures and of events: equal to NumPy or SciPy, distributed as they say, and within their range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from csbp_jax.evaluation.robustness import battery, events, pictures

KEYS = jax.random.split(jax.random.key(3), 400)
PICTURE = np.random.default_rng(0).random((1, 9, 7, 2)).astype(np.float32)
RECORDING = np.random.default_rng(1).poisson(1.5, (6, 4, 3, 2)).astype(np.float32)
PICTURES = [name for name, p in battery.PERTURBATIONS.items() if p.kind == "pictures"]
EVENTS = [name for name, p in battery.PERTURBATIONS.items() if p.kind == "events"]


@functools.cache
def drawn(name):
    """The corruption of one example by all keys, compiled once for each shape; severities are traced."""
    corruption = getattr(pictures if name in PICTURES else events, name)
    return jax.jit(jax.vmap(corruption, (0, None, None)))


def corrupted(name, severity, x):
    return np.asarray(drawn(name)(KEYS, jnp.asarray(x), float(severity)))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_stay_in_range_and_the_mildest_limit_changes_nothing(name):
    nothing = {"contrast": 1.0, "blur": 1e-3}.get(name, 0.0)
    assert np.allclose(corrupted(name, nothing, PICTURE), PICTURE, atol=1e-6)
    for severity in battery.PERTURBATIONS[name].severities:
        x = corrupted(name, severity, PICTURE)
        assert x.min() >= 0 and x.max() <= 1 and not np.allclose(x[0], PICTURE)


def test_noise_is_normal_and_clipped():
    x = corrupted("noise", 0.1, np.full_like(PICTURE, 0.5))
    assert stats.kstest((x.ravel() - 0.5) / 0.1, "norm").pvalue > 0.001
    black = corrupted("noise", 0.1, np.zeros_like(PICTURE))
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("deviation", battery.PERTURBATIONS["blur"].severities)
def test_blur_is_that_of_scipy(deviation):
    size = (0, deviation, deviation, 0)
    expected = ndimage.gaussian_filter(
        PICTURE.astype(float), size, mode="nearest", truncate=pictures.BLUR_RADIUS / deviation
    )
    assert np.allclose(corrupted("blur", deviation, PICTURE)[0], expected, atol=1e-6)


def test_a_shift_moves_to_the_eight_neighbours_alone():
    """Of a ramp, which shows by how much it moved; at the edge, the first or last pixel is repeated."""
    rows, columns = np.mgrid[:9, :7].astype(np.float32)
    ramp = np.stack([rows, columns], -1)[None]
    moved = corrupted("shift", 2, ramp)
    steps = {tuple((ramp - x)[0, 4, 3].astype(int)) for x in moved}
    assert steps == {(2 * down, 2 * right) for down in (-1, 0, 1) for right in (-1, 0, 1)} - {(0, 0)}
    for x in moved[:20]:
        down, right = (ramp - x)[0, 4, 3]
        assert np.array_equal(x[0, ..., 0], np.clip(rows - down, 0, 8))
        assert np.array_equal(x[0, ..., 1], np.clip(columns - right, 0, 6))


def test_contrast_keeps_the_mean_and_scales_the_deviation():
    x = corrupted("contrast", 0.25, PICTURE)[0]
    assert x.mean() == pytest.approx(PICTURE.mean(), rel=1e-5) and x.std() == pytest.approx(PICTURE.std() / 4, rel=1e-5)


def test_an_occlusion_is_a_grey_square_that_reaches_all_pixels():
    x = corrupted("occlusion", 0.375, np.zeros_like(PICTURE))
    assert np.array_equal(x[..., 0], x[..., 1])
    x = x[:, 0, ..., 0]
    side = round(0.375 * 7)
    assert set(np.unique(x)) == {0, 0.5} and ((x > 0).sum((1, 2)) == side**2).all()
    assert ((x > 0).any(2).sum(1) == side).all() and ((x > 0).any(1).sum(1) == side).all()
    assert (x > 0).any(0).all()


@pytest.mark.full
@pytest.mark.parametrize("name", EVENTS)
def test_recordings_stay_counts(name):
    assert np.array_equal(corrupted(name, 0, RECORDING)[0], RECORDING)
    for severity in battery.PERTURBATIONS[name].severities:
        x = corrupted(name, severity, RECORDING)
        assert (x == np.round(x)).all() and x.min() >= 0 and not np.array_equal(x[0], RECORDING)


def test_lost_events_are_binomial():
    lost = RECORDING - corrupted("lost_events", 0.3, RECORDING)
    assert lost.min() >= 0 and ((lost > 0) <= (RECORDING > 0)).all()
    total = RECORDING.sum() * len(KEYS)
    assert stats.binomtest(int(lost.sum()), int(total), 0.3).pvalue > 0.001
    cell = np.unravel_index(RECORDING.argmax(), RECORDING.shape)
    n = int(RECORDING[cell])
    counts = np.bincount(lost[(slice(None), *cell)].astype(int), minlength=n + 1)
    expected = len(KEYS) * stats.binom.pmf(np.arange(n + 1), n, 0.3)
    often = expected > 5
    rest = [counts[~often].sum()], [expected[~often].sum()]
    assert stats.chisquare([*counts[often], *rest[0]], [*expected[often], *rest[1]]).pvalue > 0.001


def test_added_events_are_poisson_with_the_share_as_mean():
    added = corrupted("added_events", 0.3, RECORDING) - RECORDING
    mean = 0.3 * RECORDING.mean()
    assert added.min() == 0
    assert abs(added.sum() - mean * added.size) < 4 * np.sqrt(mean * added.size)
    assert added.var() == pytest.approx(mean, rel=0.05)


def test_lost_steps_are_whole_frames():
    recording = RECORDING + 1
    lost = (corrupted("lost_steps", 0.4, recording) == 0).reshape(len(KEYS), len(recording), -1)
    assert (lost.all(2) == lost.any(2)).all()
    assert stats.binomtest(int(lost.any(2).sum()), lost[..., 0].size, 0.4).pvalue > 0.001


def test_jitter_moves_events_by_one_frame_and_preserves_their_number():
    alone = np.zeros_like(RECORDING)
    alone[0, 0, 0, 0] = alone[3, 1, 0, 0] = alone[5, 2, 0, 0] = 50
    x = corrupted("jitter", 0.6, alone)
    assert (x.sum(1) == alone.sum(0)).all()
    x = x[:, :, :3, 0, 0]
    middle = x[:, :, 1].sum(0)
    assert middle[[0, 1, 5]].sum() == 0
    total = int(middle.sum())
    for step, share in ((2, 0.3), (3, 0.4), (4, 0.3)):
        assert stats.binomtest(int(middle[step]), total, share).pvalue > 0.001
    # At both ends, what would leave the recording stays.
    for cell, stays, moves in ((0, 0, 1), (2, 5, 4)):
        assert stats.binomtest(int(x[:, moves, cell].sum()), total, 0.3).pvalue > 0.001
        assert x[:, [stays, moves], cell].sum() == total
